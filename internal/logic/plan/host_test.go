package plan_test

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// disk is where files are read from and written to.
type disk map[string]change.Image

func (d disk) read(p string) (change.Image, error) {
	if i, ok := d[p]; ok {
		return i, nil
	}
	return change.Image{Absent: true}, nil
}

// perform does what a plan says, without any care.
func (d disk) perform(t *testing.T, ns *testlab.NS, p change.Plan) {
	t.Helper()
	for _, s := range p.Steps {
		switch s.Kind {
		case change.File:
			d[s.Target] = s.After
			if s.After.Absent {
				delete(d, s.Target)
			}
		case change.Sysctl:
			if got := ns.ReadSysctl(s.Target); got != s.Before.Text {
				t.Errorf("%s is %q before, not %q", s.Target, got, s.Before.Text)
			}
			ns.Sysctl(s.Target, s.After.Text)
			if got := ns.ReadSysctl(s.Target); got != s.After.Text {
				t.Errorf("%s is %q after, not %q", s.Target, got, s.After.Text)
			}
		case change.Table:
			load(t, ns, s.After.Text)
		case change.Neighbour:
			dev, a, _ := strings.Cut(s.Target, " ")
			ns.IP("-6", "neigh", "replace", a, "lladdr", s.After.Text, "dev", dev, "nud", "permanent")
		case change.Unit:
			d["/etc/systemd/system/sysinit.target.wants/"+s.Target] = change.Image{Text: "link"}
		case change.Action:
		default:
			t.Errorf("what is %s?", s.Kind)
		}
	}
}

func ids(p change.Plan) (out []string) {
	for _, s := range p.Steps {
		out = append(out, s.ID)
	}
	return out
}

func refusals(p change.Plan) (out []string) {
	for _, r := range p.Refusals {
		out = append(out, r.ID)
		if r.WayOut == "" {
			out = append(out, r.ID+" without a way out")
		}
	}
	return out
}

func risks(p change.Plan) (out []string) {
	for _, r := range p.Risks {
		out = append(out, r.ID)
	}
	return out
}

// TestPlanThenNothing: what a plan says can be done on a real host, does what it says,
// and leaves nothing to plan; the rules are without lint, and nothing about them is
// unknown.
func TestPlanThenNothing(t *testing.T) {
	all := intents()
	for _, name := range []string{"static server", "slaac", "router", "ipv4 only", "ipv6 managed", "egress deny"} {
		in := all[name]
		t.Run(name, func(t *testing.T) {
			f := newFiring(t, "plan")
			f.Victim.Run("nft", "delete", "table", "inet", "witness")
			d := disk{}
			o := plan.Options{Decode: hostview.Decode, Read: d.read}
			s := hostview.Snapshot(t, f.Victim)
			o.Namespace = s.Namespaces[0].Name
			p := plan.New(in, s, o)
			if r := refusals(p); len(r) > 0 {
				t.Fatalf("refused: %+v", p.Refusals)
			}
			a, _ := json.Marshal(p)
			b, _ := json.Marshal(plan.New(in, s, o))
			if string(a) != string(b) || p.ID == "" || len(p.Steps) == 0 {
				t.Error("the same intent on the same host gives another plan")
			}
			d.perform(t, f.Victim, p)
			s = hostview.Snapshot(t, f.Victim)
			again := plan.New(in, s, o)
			if len(again.Steps) > 0 {
				t.Errorf("after it, there is still to do: %v", ids(again))
			}
			sp := reach.NewSpace(s, &s.Namespaces[0], nil, false)
			for _, l := range sp.Lint() {
				if l.Severity != reach.Info && !(in.Families == intent.Disabled || in.Families == intent.DisabledKeepLoopback) && !(in.Firewall.Manage == intent.ManageIPv6 && l.ID == reach.LintOneFamily) {
					t.Errorf("lint: %s %s: %s %v", l.Severity, l.ID, l.Message, l.Evidence)
				} else {
					t.Logf("lint: %s: %s", l.ID, l.Rule)
				}
			}
			for _, fam := range []rs.Family{rs.IPv4, rs.IPv6} {
				for _, port := range []uint16{22, 23, 80, 443, 5432, 9000} {
					for _, v := range sp.Port(fam, "tcp", port, "", netip.Addr{}) {
						if !slices.Equal(v.Must, v.May) {
							t.Errorf("tcp/%d over %s: not sure: must %v may %v %v", port, reach.FamilyWord(fam), v.Must, v.May, v.Assumes)
						}
					}
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	f := newFiring(t, "ref")
	f.Victim.IP("-6", "route", "del", "default")
	f.Victim.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "v0", "proto", "ra")
	s := hostview.Snapshot(t, f.Victim)
	no := false
	way := change.Way{Family: "ipv6", Local: netip.MustParseAddrPort("[2001:db8:1::10]:22"), Remote: netip.MustParseAddrPort("[2001:db8:1::7]:50000"), Process: "sshd"}
	in := intents()["slaac"]
	for name, c := range map[string]struct {
		change func(in *intent.Intent, o *plan.Options)
		want   string
	}{
		"all is well":          {func(*intent.Intent, *plan.Options) {}, ""},
		"session":              {func(in *intent.Intent, _ *plan.Options) { in.Services = nil }, "session-lost"},
		"session, other ports": {func(in *intent.Intent, _ *plan.Options) { in.Services = []intent.Service{web()} }, "session-lost"},
		"session, other source": {func(in *intent.Intent, _ *plan.Options) {
			in.Services = []intent.Service{{Name: "ssh", Ports: []string{"tcp/22"}, From: prefixes("2001:db8:9::/48")}}
		}, "session-lost"},
		"session, IPv6 off": {func(in *intent.Intent, _ *plan.Options) { in.Families = intent.Disabled }, "session-lost"},
		"nobody decodes":    {func(_ *intent.Intent, o *plan.Options) { o.Decode = nil }, "unproven"},
		"static":            {func(in *intent.Intent, _ *plan.Options) { in.Interfaces = one(intent.Static) }, "default-router-lost"},
		"asymmetric routing": {func(in *intent.Intent, _ *plan.Options) {
			i := in.Interfaces["v0"]
			i.AsymmetricRouting = true
			in.Interfaces = map[string]intent.Interface{"v0": i}
		}, ""},
		"another router": {func(in *intent.Intent, _ *plan.Options) {
			in.Interfaces = one(intent.SLAAC, intent.Router{Address: addr("fe80::2")})
		}, "default-router-lost"},
		"another MAC": {func(in *intent.Intent, _ *plan.Options) {
			in.Interfaces = one(intent.SLAAC, intent.Router{Address: addr("fe80::1"), MAC: "52:54:00:00:00:02"})
		}, "default-router-lost"},
		"router nobody looked at": {func(in *intent.Intent, _ *plan.Options) {
			in.Interfaces = one(intent.SLAAC, intent.Router{Address: addr("fe80::1"), Accepted: &no})
		}, "router-unaccepted"},
		"check": {func(in *intent.Intent, _ *plan.Options) {
			in.Checks = []string{"tcp://[2600:1::1]:853"}
			in.Egress.IPv6.Default = "deny"
		}, "check-lost"},
		"check that is let out": {func(in *intent.Intent, _ *plan.Options) {
			in.Checks = []string{"tcp://[2600:1::1]:853", "icmp://192.0.2.1"}
			in.Egress.IPv6 = intent.EgressFamily{Default: "deny", Allow: []intent.Destination{{Ports: []string{"tcp/853"}}}}
		}, ""},
		"name with a quote": {func(in *intent.Intent, _ *plan.Options) {
			in.Services = append(in.Services, intent.Service{Name: `a"b`, Ports: []string{"tcp/1"}})
		}, "intent"},
		"prefix of IPv4 in IPv6": {func(in *intent.Intent, _ *plan.Options) {
			in.Services = append(in.Services, intent.Service{Name: "x", Ports: []string{"tcp/1"}, From: prefixes("::ffff:192.0.2.0/120")})
		}, "intent"},
	} {
		i := in
		o := plan.Options{Decode: hostview.Decode, Namespace: s.Namespaces[0].Name, Administered: []change.Way{way}}
		c.change(&i, &o)
		p := plan.New(i, s, o)
		if got := refusals(p); strings.Join(got, " ") != c.want && !slices.Contains(got, c.want) || c.want == "" && len(got) > 0 {
			t.Errorf("%s: refused %v, want %q: %+v", name, got, c.want, p.Refusals)
		}
		if strings.Contains(name, "learned") {
			rules := ""
			for _, st := range p.Steps {
				if st.Kind == change.Table {
					rules = st.After.Text
				}
			}
			if !strings.Contains(rules, "ip6 saddr fe80::1") || !slices.Contains(risks(p), "routers-learned") {
				t.Errorf("%s: the router is not believed, or nobody says so: %v", name, risks(p))
			}
		}
	}
	// Another table drops what is opened here.
	load(t, f.Victim, "table inet firewalld { chain filter_INPUT { type filter hook input priority 10; policy drop; tcp dport 22 accept; iifname lo accept; }; }")
	s = hostview.Snapshot(t, f.Victim)
	i := in
	i.Services = append(i.Services, web())
	p := plan.New(i, s, plan.Options{Decode: hostview.Decode, Namespace: s.Namespaces[0].Name, Administered: []change.Way{way}})
	if !slices.Contains(refusals(p), "foreign-drop") || !slices.ContainsFunc(p.Refusals, func(r change.Refusal) bool {
		return strings.Contains(r.WayOut, "firewall-cmd --permanent --add-port=443/tcp")
	}) {
		t.Errorf("firewalld drops: %+v", p.Refusals)
	}
}

// TestSecondUplink: who has two uplinks is told what becomes of the second one.
func TestSecondUplink(t *testing.T) {
	f := newFiring(t, "upl")
	f.Victim.IP("-6", "route", "add", "default", "via", "2001:db8:2::1", "dev", "v1", "metric", "4096")
	f.Victim.IP("route", "add", "default", "via", "198.51.100.1", "dev", "v1", "metric", "4096")
	s := hostview.Snapshot(t, f.Victim)
	for asym, want := range map[bool]bool{false: true, true: false} {
		in := intents()["static server"]
		in.Interfaces = map[string]intent.Interface{"v0": {Addressing: intent.Static}, "v1": {Addressing: intent.Static, AsymmetricRouting: asym}}
		p := plan.New(in, s, plan.Options{Decode: hostview.Decode, Namespace: s.Namespaces[0].Name})
		if got := slices.Contains(risks(p), "second-uplink"); got != want {
			t.Errorf("asymmetricRouting %t: second-uplink among %v: %t", asym, risks(p), got)
		}
	}
}

// TestGuardsWithoutNetfilter: who wants guests guarded is told where bridges show the rules
// nothing.
func TestGuardsWithoutNetfilter(t *testing.T) {
	f := newFiring(t, "gwn")
	in := intents()["static server"]
	in.Interfaces = map[string]intent.Interface{"v0": {Addressing: intent.Static, GuardBridged: true}}
	for _, c := range []struct {
		call, tagged, want string
		sysctls            map[string]string
	}{
		{"0", "0", "guards-miss-guests", nil},
		{"1", "0", "guards-miss-tagged", nil},
		{"1", "1", "", nil},
		{"0", "0", "", map[string]string{"net.bridge.bridge-nf-call-ip6tables": "1", "net.bridge.bridge-nf-filter-vlan-tagged": "1"}},
		{"1", "1", "guards-miss-guests", map[string]string{"net.bridge.bridge-nf-call-ip6tables": "0"}},
	} {
		f.Victim.Sysctl("net/bridge/bridge-nf-call-ip6tables", c.call)
		f.Victim.Sysctl("net/bridge/bridge-nf-filter-vlan-tagged", c.tagged)
		s := hostview.Snapshot(t, f.Victim)
		in.Sysctls = c.sysctls
		got := ""
		for _, r := range risks(plan.New(in, s, plan.Options{Decode: hostview.Decode, Namespace: s.Namespaces[0].Name})) {
			if strings.HasPrefix(r, "guards-miss") {
				got += r
			}
		}
		if got != c.want {
			t.Errorf("call %s, tagged %s, intent %v: %q, want %q", c.call, c.tagged, c.sysctls, got, c.want)
		}
	}
}

// TestDisable: what IPv6 takes with it is in the plan.
func TestDisable(t *testing.T) {
	f := newFiring(t, "dis")
	s := hostview.Snapshot(t, f.Victim)
	for _, keep := range []bool{false, true} {
		in := intents()["ipv4 only"]
		if keep {
			in.Families = intent.DisabledKeepLoopback
		}
		p := plan.New(in, s, plan.Options{Decode: hostview.Decode, Namespace: s.Namespaces[0].Name})
		got := map[string][]string{}
		for _, st := range p.Steps {
			if strings.HasSuffix(st.Target, "/disable_ipv6") {
				got[st.Target] = nil
				for _, o := range st.Destroys {
					got[st.Target] = append(got[st.Target], o.Target)
				}
			}
		}
		want := []string{"net/ipv6/conf/default/disable_ipv6", "net/ipv6/conf/lo/disable_ipv6", "net/ipv6/conf/v0/disable_ipv6", "net/ipv6/conf/v1/disable_ipv6"}
		if keep {
			want = slices.Delete(want, 1, 2)
		}
		if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, want) {
			t.Errorf("keep loopback %t: %v", keep, keys)
		}
		for _, o := range []string{"v0 2001:db8:1::10/64", "v0 fe80::1", "default via fe80::1 dev v0 proto 3 metric 1024"} {
			if !slices.Contains(got["net/ipv6/conf/v0/disable_ipv6"], o) {
				t.Errorf("%s is not among what goes: %v", o, got["net/ipv6/conf/v0/disable_ipv6"])
			}
		}
		if !slices.Contains(risks(p), "disable-destroys") {
			t.Error("nobody says so")
		}
	}
}

// TestBackAgain: an intent that wants IPv6 again, long after another one switched it
// off, switches on what that one had off, loopback and later interfaces too, and says
// what does not come back by itself; what somebody else had off stays so.
func TestBackAgain(t *testing.T) {
	f := newFiring(t, "bak")
	f.Victim.IP("link", "add", "theirs", "type", "veth", "peer", "name", "theirs1")
	d := disk{}
	look := func(in intent.Intent) change.Plan {
		t.Helper()
		s := hostview.Snapshot(t, f.Victim)
		p := plan.New(in, s, plan.Options{Decode: hostview.Decode, Read: d.read, Namespace: s.Namespaces[0].Name})
		if r := refusals(p); len(r) > 0 {
			t.Fatalf("refused: %+v", p.Refusals)
		}
		return p
	}
	off := intents()["ipv4 only"]
	p := look(off)
	if !slices.Contains(risks(p), "ipv6-until-sysctl") {
		t.Errorf("nobody says what a boot does: %v", risks(p))
	}
	d.perform(t, f.Victim, p)
	on := intents()["static server"]
	p = look(on)
	if !slices.Contains(risks(p), "enabling-is-not-all") {
		t.Errorf("nobody says what is missing then: %v", risks(p))
	}
	d.perform(t, f.Victim, p)
	for _, i := range []string{"lo", "default", "v0", "v1"} {
		if v := f.Victim.ReadSysctl("net/ipv6/conf/" + i + "/disable_ipv6"); v != "0" {
			t.Errorf("%s is still without IPv6", i)
		}
	}
	if again := look(on); len(again.Steps) > 0 {
		t.Errorf("after it, there is still to do: %v", ids(again))
	}
	f.Victim.Sysctl("net/ipv6/conf/theirs/disable_ipv6", "1")
	if p := look(on); slices.Contains(ids(p), "sysctl:net/ipv6/conf/theirs/disable_ipv6") {
		t.Error("what somebody else switched off is switched on")
	}
	// The other form: the kernel's command line.
	s := hostview.Snapshot(t, f.Victim)
	s.Host.Boot.Parameters = fact.Value(map[string]string{"ipv6.disable": "1"})
	if p := plan.New(on, s, plan.Options{Decode: hostview.Decode, Read: d.read, Namespace: s.Namespaces[0].Name}); !slices.Contains(risks(p), "ipv6-off-at-boot") {
		t.Errorf("nobody says that a reboot is needed: %v", risks(p))
	}
	if p := plan.New(off, s, plan.Options{Decode: hostview.Decode, Read: d.read, Namespace: s.Namespaces[0].Name}); slices.Contains(risks(p), "ipv6-until-sysctl") {
		t.Error("the command line is asked for what it has")
	}
}

// TestNoSystemd: where nothing would load our rules at boot no unit is planned, and that
// is said.
func TestNoSystemd(t *testing.T) {
	f := newFiring(t, "nosd")
	s := hostview.Snapshot(t, f.Victim)
	in := intents()["static server"]
	in.Drift = intent.DriftRestore
	for _, none := range []bool{false, true} {
		p := plan.New(in, s, plan.Options{Decode: hostview.Decode, Namespace: s.Namespaces[0].Name, NoSystemd: none})
		units := slices.ContainsFunc(p.Steps, func(st change.Step) bool { return st.Kind == change.Unit || strings.HasSuffix(st.Target, ".service") })
		rules := slices.ContainsFunc(p.Steps, func(st change.Step) bool { return st.Target == plan.RulesFile })
		if units == none || !rules || slices.Contains(risks(p), "no-boot-hook") != none {
			t.Errorf("without systemd %t: units %t, the file of rules %t, risks %v", none, units, rules, risks(p))
		}
	}
}
