package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// Where the intent lives.
const (
	IntentPath    = "/etc/sixfence/sixfence.yaml"
	IntentDropIns = "/etc/sixfence/sixfence.d" // *.yaml, read in the order of their names
)

// IntentFile is one file of an intent as it was read.
type IntentFile struct {
	Path string
	Text []byte
}

// LoadedIntent is an intent with what is known about its making.
type LoadedIntent struct {
	Intent intent.Intent
	Hash   string
	Files  []string // in the order of precedence: a later one wins
	// Origins says which line each value comes from, by path: "interfaces.eth0.addressing",
	// "services.ssh.ports[0]".
	Origins map[string]Origin
	// Warnings are what is accepted and probably not meant.
	Warnings []*Error
}

// LoadIntent reads an intent from its files, the main one first. Later files win: a
// mapping is merged key by key; services, checks and waivers add up, and a service with
// the name of an earlier one takes its place; every other value, lists included, takes
// the place of the earlier one. known tells whether a control of the audit exists; nil
// accepts any. The error is of type Errors and holds every mistake of every file.
func LoadIntent(files []IntentFile, known func(id string) bool) (*LoadedIntent, error) {
	var errs Errors
	var merged *node
	out := &LoadedIntent{}
	for i, f := range files {
		s := &source{name: f.Path, errors: &errs}
		out.Files = append(out.Files, f.Path)
		before := len(errs)
		tree := parseTree(s, f.Text)
		if tree == nil {
			continue
		}
		var alone intent.Intent
		(&decoder{}).into(tree, reflect.ValueOf(&alone).Elem(), "", "")
		if tree.kind != mapKind {
			continue
		}
		if tree.get("apiVersion") == nil && len(errs) == before {
			s.fail(0, "begin the file with: apiVersion: "+APIVersion, "apiVersion is missing")
		}
		twice(tree)
		if i == 0 || merged == nil {
			merged = tree
			continue
		}
		merged = merge(merged, tree, "")
	}
	if len(errs) > 0 {
		return nil, errs.sorted(out.Files)
	}
	if merged == nil {
		return nil, Errors{{Why: "there is no intent", Hint: "write one from this host with: sixfence harden init"}}
	}
	if merged.get("role") == nil {
		merged.file.fail(0, "say what the host is for: role: server (router, kubernetes-node, hypervisor, workstation)", "role is missing")
	}
	d := &decoder{origins: map[string]*node{}}
	d.into(merged, reflect.ValueOf(&out.Intent).Elem(), "", "")
	c := crossCheck{in: &out.Intent, at: d.origins, known: known, out: out}
	c.run()
	if len(errs) > 0 {
		return nil, errs.sorted(out.Files)
	}
	out.Origins = map[string]Origin{}
	for p, n := range d.origins {
		out.Origins[p] = Origin{File: n.file.name, Line: n.line}
	}
	var err error
	if out.Hash, err = out.Intent.Hash(); err != nil {
		return nil, err
	}
	return out, nil
}

// sorted puts the mistakes in the order of the files and their lines.
func (e Errors) sorted(files []string) Errors {
	slices.SortStableFunc(e, func(a, b *Error) int {
		if c := slices.Index(files, a.File) - slices.Index(files, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return slices.CompactFunc(e, func(a, b *Error) bool { return *a == *b })
}

// twice refuses two services of one name within a file: which of them wins would be a
// guess.
func twice(tree *node) {
	s := tree.get("services")
	if s == nil {
		return
	}
	first := map[string]int{}
	for _, item := range s.items {
		n := item.get("name")
		if n == nil || n.kind != scalarKind {
			continue
		}
		if line, there := first[n.text]; there {
			n.file.fail(n.line, fmt.Sprintf("give it another name, or put its ports into the first, on line %d", line), "there are two services named %q", n.text)
			continue
		}
		first[n.text] = n.line
	}
}

// merge lays b over a. The trees are not shared with their files' any more.
func merge(a, b *node, path string) *node {
	if a.kind == listKind && b.kind == listKind && slices.Contains([]string{"services", "checks", "waivers"}, path) {
		out := *b
		out.items = slices.Clone(a.items)
		for _, item := range b.items {
			i := -1
			switch path {
			case "services":
				i = slices.IndexFunc(out.items, func(x *node) bool {
					return x.get("name") != nil && item.get("name") != nil && x.get("name").text == item.get("name").text
				})
			case "checks":
				i = slices.IndexFunc(out.items, func(x *node) bool { return x.text == item.text })
			}
			if i >= 0 {
				out.items[i] = item
				continue
			}
			out.items = append(out.items, item)
		}
		return &out
	}
	if a.kind != mapKind || b.kind != mapKind {
		return b
	}
	out := *a
	out.fields = slices.Clone(a.fields)
	for _, f := range b.fields {
		i := slices.IndexFunc(out.fields, func(x field) bool { return x.key == f.key })
		if i < 0 {
			out.fields = append(out.fields, f)
			continue
		}
		f.value = merge(out.fields[i].value, f.value, join(path, f.key))
		out.fields[i] = f
	}
	return &out
}

// crossCheck holds values of a merged intent against each other.
type crossCheck struct {
	in    *intent.Intent
	at    map[string]*node
	known func(string) bool
	out   *LoadedIntent
}

func (c *crossCheck) fail(path, hint, why string, a ...any) {
	n := c.node(path)
	n.file.fail(n.line, hint, "%s: %s", path, fmt.Sprintf(why, a...))
}

func (c *crossCheck) warn(path, hint, why string, a ...any) {
	n := c.node(path)
	c.out.Warnings = append(c.out.Warnings, &Error{File: n.file.name, Line: n.line, Text: textOf(n.file.lines, n.line), Why: path + ": " + fmt.Sprintf(why, a...), Hint: hint})
}

// node is where a path, or what holds it, is written.
func (c *crossCheck) node(path string) *node {
	for {
		if n := c.at[path]; n != nil {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return c.at["apiVersion"]
		}
		path = path[:i]
	}
}

func (c *crossCheck) run() {
	in := c.in
	keys := slices.Sorted(maps.Keys(in.Interfaces))
	for _, k := range keys {
		c.iface(k, in.Interfaces[k])
	}
	for i := range in.Services {
		c.service(&in.Services[i], keys)
	}
	for i := range in.Forwarding.Allow {
		f := &in.Forwarding.Allow[i]
		p := fmt.Sprintf("forwarding.allow[%d]", i)
		if f.From == nil && f.To == nil && f.InInterface == "" && f.OutInterface == "" && f.Ports == nil && f.Families == nil {
			c.fail(p, "narrow it: inInterface, outInterface, from, to, ports or families", "it names nothing, and would let everything pass")
		}
		c.families(p, f.Families, slices.Concat(f.From, f.To))
	}
	for _, e := range []struct {
		family string
		of     *intent.EgressFamily
	}{{"ipv4", &in.Egress.IPv4}, {"ipv6", &in.Egress.IPv6}} {
		p := "egress." + e.family
		if e.of.Allow != nil && e.of.Default != "deny" {
			c.fail(p+".allow", "add default: deny, or take the list out", "a list of what may be sent to means nothing while everything may")
		}
		for i, d := range e.of.Allow {
			if d.To == nil && d.Ports == nil {
				c.fail(fmt.Sprintf("%s.allow[%d]", p, i), "name addresses (to) or ports", "it names nothing, and would allow everything")
			}
			for j, t := range d.To {
				if t.Addr().Is4() != (e.family == "ipv4") {
					c.fail(fmt.Sprintf("%s.allow[%d].to[%d]", p, i, j), "move it to the other family's list", "%s is not %s", t, e.family)
				}
			}
		}
	}
	if in.Role == intent.RoleServer && len(in.Forwarding.Allow) > 0 && off(in.Forwarding.IPv4) && off(in.Forwarding.IPv6) {
		c.warn("forwarding.allow", "add ipv6: true (or ipv4: true), or choose role: router", "the role server does not forward: the list has no effect")
	}
	for i, w := range in.Waivers {
		if c.known != nil && !c.known(w.Control) {
			c.fail(fmt.Sprintf("waivers[%d].control", i), "`sixfence explain` lists the controls", "there is no control %q", w.Control)
		}
		if p, err := intent.ParsePort(w.Port); w.Port != "" && err == nil && (p.Whole() || p.From != p.To) {
			c.fail(fmt.Sprintf("waivers[%d].port", i), "one port a waiver: port: tcp/443", "%q is more than one port", w.Port)
		}
	}
	if in.Families == intent.Disabled || in.Families == intent.DisabledKeepLoopback {
		for _, k := range keys {
			if a := in.Interfaces[k].Addressing; a == intent.SLAAC || a == intent.DHCPv6 {
				c.warn("interfaces."+k, "write addressing: none, or choose other families", "families is %s, and its addressing is %s: it will have no IPv6", in.Families, a)
			}
		}
		for i := range in.Services {
			if s := &in.Services[i]; slices.Equal(s.Families, []string{"ipv6"}) {
				c.warn("services."+s.Name, "take it out, or choose other families", "families is %s, and it is for IPv6 only: nobody will reach it", in.Families)
			}
		}
	}
	if in.Firewall.Manage == intent.ManageNone && len(in.Services) > 0 {
		c.warn("firewall.manage", "the other manager's rules decide; take the services out, or let sixfence write rules", "no rule is written, so the list of services is only compared with what is open")
	}
}

func off(b *bool) bool { return b == nil || !*b }

func (c *crossCheck) iface(key string, i intent.Interface) {
	p := join("interfaces", key)
	if i.Addressing == "" {
		c.fail(p, "say how it gets its IPv6 addresses: addressing: static (slaac, dhcpv6, none)", "addressing is missing")
	}
	if i.Addressing == intent.NoIPv6 && (len(i.Routers) > 0 || len(i.DHCPv6Servers) > 0 || i.LearnOnce) {
		c.fail(p, "take the routers and servers out, or choose another addressing", "addressing is none, and it names routers or servers of IPv6")
	}
	if i.LearnOnce && i.Addressing == intent.Static {
		c.fail(p+".learnOnce", "take it out: with addressing: static no router is believed", "there is nothing to learn")
	}
	if i.PinGateway && !i.LearnOnce && !slices.ContainsFunc(i.Routers, func(r intent.Router) bool { return r.MAC != "" }) {
		c.fail(p+".pinGateway", "add the router with its MAC address: routers: [{address: \"fe80::1\", mac: \"52:54:00:00:00:01\"}]", "there is no MAC address to pin")
	}
	seen := map[string]int{}
	for n, r := range i.Routers {
		id := r.Address.String() + " " + r.MAC
		if first, there := seen[id]; there {
			c.fail(fmt.Sprintf("%s.routers[%d]", p, n), "keep one of them", "it is the router of item %d", first+1)
		}
		seen[id] = n
	}
}

func (c *crossCheck) service(s *intent.Service, keys []string) {
	p := join("services", s.Name)
	for i, k := range s.Interfaces {
		if !slices.Contains(keys, k) {
			hint := "interfaces: has no entry of that name; add one"
			if near := Nearest(k, keys); len(near) > 0 {
				hint = "did you mean " + strings.Join(near, " or ") + "?"
			} else if len(keys) > 0 {
				hint = "the entries of interfaces: are " + strings.Join(keys, ", ")
			}
			c.fail(fmt.Sprintf("%s.interfaces[%d]", p, i), hint, "there is no %q", k)
		}
	}
	c.families(p, s.Families, s.From)
	if len(s.From) == 0 || len(s.To) > 0 {
		c.families(p, s.Families, s.To)
	}
	var all []intent.Port
	for i, text := range s.Ports {
		q, err := intent.ParsePort(text)
		if err != nil {
			continue
		}
		for _, o := range all {
			if o.Proto == q.Proto && (o.Whole() || o.From <= q.To && q.From <= o.To) {
				c.warn(fmt.Sprintf("%s.ports[%d]", p, i), "keep the wider one", "%s is in %s already", q, o)
			}
		}
		all = append(all, q)
	}
}

// families refuses a narrowing to a family of which no prefix is there.
func (c *crossCheck) families(p string, families []string, ps []netip.Prefix) {
	if len(ps) == 0 {
		return
	}
	for _, f := range families {
		if !slices.ContainsFunc(ps, func(x netip.Prefix) bool { return x.Addr().Is4() == (f == "ipv4") }) {
			c.fail(p+".families", "add a prefix of that family, or take the family out", "it is for %s, and no %s address is among its prefixes: nobody would get in", f, f)
		}
	}
}

// Waivers are those of an intent as the audit takes them.
func (l *LoadedIntent) Waivers() []finding.Waiver {
	var out []finding.Waiver
	for i, w := range l.Intent.Waivers {
		until, err := time.Parse("2006-01-02", w.Until)
		if err != nil {
			continue // refused when it was read
		}
		o := l.Origins[fmt.Sprintf("waivers[%d]", i)]
		on := finding.WaiverSubject{Interface: w.Interface}
		if w.Address.IsValid() {
			on.Address = w.Address.String()
		}
		if w.Port != "" {
			p, err := intent.ParsePort(w.Port)
			if err != nil {
				continue // refused when it was read
			}
			on.Proto, on.Port = p.Name, p.From
		}
		out = append(out, finding.Waiver{
			Control: w.Control, Subject: on, Reason: w.Reason, Owner: cmp.Or(w.Owner, l.Intent.Decision.Who, "nobody named"),
			Until: until, Whole: true, File: o.File, Line: o.Line,
		})
	}
	return out
}
