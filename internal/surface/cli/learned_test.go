package cli

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/draft"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// TestLearnedOnce: what is learned is kept in a file that the next plan reads. A router
// that comes later is not learned, whatever it says, and deleting rules does not make
// the host learn again.
func TestLearnedOnce(t *testing.T) {
	t.Parallel()
	const main = "apiVersion: sixfence/v1\nrole: server\ninterfaces:\n  \"e*\": {addressing: slaac, learnOnce: true}\nservices:\n  - {name: ssh, ports: [tcp/22]}\n"
	disk := map[string]change.Image{}
	o := plan.Options{Learned: "/etc/sixfence/sixfence.d", Read: func(p string) (change.Image, error) {
		if i, ok := disk[p]; ok {
			return i, nil
		}
		return change.Image{Absent: true}, nil
	}}
	load := func() *config.LoadedIntent {
		t.Helper()
		files := []config.IntentFile{{Path: "main", Text: []byte(main)}}
		for p, i := range disk {
			if strings.HasPrefix(p, o.Learned+"/") {
				files = append(files, config.IntentFile{Path: p, Text: []byte(i.Text)})
			}
		}
		l, err := config.LoadIntent(files, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	s := vm(slaac)
	n := &s.Namespaces[0]
	rules := func(p change.Plan) string {
		for _, st := range p.Steps {
			if st.Kind == change.Table {
				return st.After.Text
			}
		}
		return ""
	}
	has := func(p change.Plan, refusal string) bool {
		return slices.ContainsFunc(p.Refusals, func(r change.Refusal) bool { return r.ID == refusal })
	}
	first := plan.New(load().Intent, s, o)
	var learned *change.Step
	for i, st := range first.Steps {
		if strings.HasPrefix(st.Target, o.Learned) {
			learned = &first.Steps[i]
		}
		if st.Kind == change.File {
			disk[st.Target] = st.After
		}
	}
	if learned == nil || learned.After.Mode != 0o600 || !strings.Contains(learned.After.Text, `{address: "fe80::1", mac: "52:54:00:00:00:01"}`) || !strings.Contains(rules(first), "fe80::1") {
		t.Fatalf("nothing is kept: %+v", learned)
	}
	// A rogue comes, and routes by it.
	n.Neighbours = fact.Value(append(value(n.Neighbours), fact.Neighbour{Index: 2, Address: netip.MustParseAddr("fe80::666"), MAC: "52:54:00:06:06:06", Flags: fact.NeighRouter}))
	rogue := value(n.Routes)[1]
	rogue.Priority, rogue.NextHops = 1024, []fact.NextHop{{Index: 2, Via: netip.MustParseAddr("fe80::666")}}
	n.Routes = fact.Value(append(value(n.Routes), rogue))
	l := load()
	second := plan.New(l.Intent, s, o)
	if strings.Contains(rules(second), "fe80::666") || rules(second) != rules(first) {
		t.Error("the rogue changed the rules")
	}
	if !slices.ContainsFunc(second.Risks, func(r change.Risk) bool {
		return r.ID == "ra-default-route-expires" && strings.Contains(r.Remedy, "ip -6 route del default via fe80::666 dev eth0")
	}) {
		t.Errorf("nobody speaks of the rogue: %+v", second.Risks)
	}
	for _, st := range second.Steps {
		if st.Kind == change.File {
			t.Errorf("%s is written again", st.Target)
		}
	}
	if l.Origins["interfaces[e*].routers"].File == "" && l.Origins["interfaces.e*.routers"].File != learned.Target {
		t.Errorf("the routers come from %v", l.Origins["interfaces.e*.routers"])
	}
	// What was learned is taken away again by a later file: it is not learned anew.
	in := load().Intent
	i := in.Interfaces["e*"]
	i.LearnOnce, i.Routers = true, nil
	in.Interfaces["e*"] = i
	if p := plan.New(in, s, o); !has(p, "learned-before") {
		t.Errorf("learned again: %+v", p.Refusals)
	}
	// Read from a pipe there is nowhere to keep it.
	o.Learned = ""
	if p := plan.New(in, s, o); !has(p, "learned-nowhere") {
		t.Errorf("kept nowhere: %+v", p.Refusals)
	}
}

// TestRogueAtInit: a rogue that advertises while `harden init` looks is written beside
// the router, with what speaks against it, and neither is believed before somebody says
// so. Who accepts the router alone gets rules that know the router alone.
func TestRogueAtInit(t *testing.T) {
	p := testlab.NewPair(t, "ri")
	routers := map[string]testlab.MAC{"good": {0x52, 0x54, 0, 0, 0, 1}, "rogue": {0x52, 0x54, 0, 6, 6, 6}}
	good, rogue := testlab.LinkLocal(routers["good"]), testlab.LinkLocal(routers["rogue"])
	p.Victim.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	p.Victim.IP("route", "add", "default", "via", "192.0.2.1")
	p.Victim.IP("neigh", "add", "192.0.2.1", "lladdr", "52:54:00:00:00:01", "dev", "v0", "nud", "permanent")
	testlab.Eventually(t, time.Minute, "both routers to be believed", func() bool {
		for name, mac := range routers {
			f := p.Wire.Frame()
			f.SrcMAC, f.Src = mac, testlab.LinkLocal(mac)
			prefix := map[string]string{"good": "2001:db8:1::/64", "rogue": "2001:db8:bad::/64"}[name]
			p.Wire.Send(f.RA(testlab.RA{Lifetime: 1800, Options: [][]byte{ndisc.SourceLinkLayer(mac), testlab.PrefixInfo(netip.MustParsePrefix(prefix), 3600, 1800)}}).Bytes())
		}
		out := p.Victim.IP("-6", "route", "show", "default")
		return strings.Contains(out, good.String()) && strings.Contains(out, rogue.String())
	})
	s := hostview.Snapshot(t, p.Victim)
	d, err := draft.New(s, &s.Namespaces[0], draft.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := draftText(d)
	if err != nil {
		t.Fatal(err)
	}
	text := folded.ReplaceAllString(string(b), " ")
	before, after, _ := strings.Cut(text, "address: \""+good.String()) // fe80::5054:ff:fe00:1 comes before the rogue's
	if strings.Count(text, "accepted: false") != 2 || !strings.Contains(before, "FOR it: the IPv4 gateway 192.0.2.1 has the same MAC address") || !strings.Contains(after, "AGAINST it: the IPv4 gateway 192.0.2.1 is another machine (MAC 52:54:00:00:00:01)") || !strings.Contains(text, "it is one of 2 that claim to be routers here") {
		t.Errorf("the draft does not tell them apart:\n%s", b)
	}
	o := plan.Options{Namespace: s.Namespaces[0].Name, Decode: hostview.Decode}
	made := plan.New(d.Intent, s, o)
	var ids []string
	for _, r := range made.Refusals {
		ids = append(ids, r.ID)
	}
	if strings.Join(ids, " ") != "router-unaccepted router-unaccepted" {
		t.Errorf("refused for %v", ids)
	}
	i := d.Intent.Interfaces["v0"]
	i.Routers = slices.DeleteFunc(i.Routers, func(r intent.Router) bool { return r.Address == rogue })
	yes := true
	i.Routers[0].Accepted, i.PinGateway = &yes, true
	d.Intent.Interfaces["v0"] = i
	made = plan.New(d.Intent, s, o)
	if len(made.Refusals) > 0 {
		t.Errorf("refused: %+v", made.Refusals)
	}
	for _, st := range made.Steps {
		if all := st.Target + st.After.Text; strings.Contains(all, rogue.String()) || strings.Contains(all, "52:54:00:06:06:06") {
			t.Errorf("%s knows the rogue", st.ID)
		}
		if st.Kind == change.Neighbour && st.After.Text != "52:54:00:00:00:01" {
			t.Errorf("pinned: %s to %s", st.Target, st.After.Text)
		}
	}
	if !slices.ContainsFunc(made.Steps, func(s change.Step) bool { return s.Kind == change.Neighbour }) {
		t.Error("nothing is pinned")
	}
}
