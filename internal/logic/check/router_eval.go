package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

const protoICMPv6 = 58

// advertisementsTakenBy judges what managers do with RAs.
func (c *Context) advertisementsTakenBy(names ...string) []Result {
	ms, ok := c.Snap.Host.Managers.Get()
	if !ok {
		if g := gapOf(c.Snap.Host.Managers); g != nil {
			return []Result{unknown(finding.Subject{Process: names[0]}, *g)}
		}
		return nil
	}
	var out []Result
	for i := range ms {
		m := &ms[i]
		if !slices.Contains(names, m.Name) {
			continue
		}
		switch {
		case c.Snap.Host.Mode == fact.ModeRoot:
			out = append(out, c.writtenRA(m)...)
		case m.Name == "netplan":
			out = append(out, notApplicable(finding.Subject{Process: m.Name}, "netplan writes the configuration of systemd-networkd or NetworkManager, which are judged by themselves."))
		case m.Running.Or(true) || m.Enabled.Or(true):
			out = append(out, c.managerRA(m)...)
		default:
			out = append(out, notApplicable(finding.Subject{Process: m.Name}, m.Name+" neither runs nor is enabled."))
		}
	}
	return out
}

// writtenRA judges the files of a manager in a directory tree: there are no
// interfaces to match them with.
func (c *Context) writtenRA(m *fact.Manager) []Result {
	if !m.Enabled.Or(true) {
		return []Result{notApplicable(finding.Subject{Process: m.Name}, m.Name+" is not enabled in this tree.")}
	}
	if g := gapOf(m.Enabled); g != nil {
		return []Result{unknown(finding.Subject{Process: m.Name}, *g)}
	}
	var out []Result
	for i := range m.Interfaces {
		mi := &m.Interfaces[i]
		sub := finding.Subject{Process: m.Name, File: mi.Origin.File, Key: strings.Join(mi.Names, " ")}
		takes, known := mi.AcceptRA.Get()
		ev := acceptEvidence(mi)
		switch {
		case !known:
			if g := gapOf(mi.AcceptRA); g != nil {
				out = append(out, unknown(sub, *g))
			}
		case !takes:
			out = append(out, pass(sub, "These settings take no router advertisements.", ev))
		case len(mi.RouterAllowList) > 0:
			out = append(out, pass(sub, "Only listed routers are accepted.", ev))
		default:
			r := fail(sub, fmt.Sprintf("When this system boots, %s takes router advertisements from anybody on the interfaces that %s covers.", m.Name, mi.Origin.File), ev)
			r.Title = m.Name + " is configured to accept rogue router advertisements"
			if len(mi.Addresses) == 0 {
				r.Severity = finding.Medium
			}
			out = append(out, r)
		}
	}
	for _, g := range m.Gaps {
		out = append(out, unknown(finding.Subject{Process: m.Name}, g))
	}
	return out
}

func acceptEvidence(mi *fact.ManagedInterface) finding.Evidence {
	v := "default"
	if mi.AcceptRASet {
		v = "set"
	}
	return written(mi.Origin, "accepts RAs", fmt.Sprintf("%t (%s)", mi.AcceptRA.Or(false), v))
}

func (c *Context) managerRA(m *fact.Manager) []Result {
	links, gap := c.managedLinks(m)
	if gap != nil {
		return []Result{unknown(finding.Subject{Process: m.Name}, *gap)}
	}
	var out []Result
	for _, ml := range links {
		r := ml.judge()
		if r.Effective == finding.Pass && len(m.Gaps) > 0 {
			r = unknown(r.Subject, m.Gaps...)
		}
		out = append(out, ml.s.mark(r)...)
	}
	return out
}

func (ml managedLink) judge() Result {
	sub := ml.s.On(ml.l.Name)
	sub.Process = ml.m.Name
	if why, g := ml.s.hearsNobody(ml.l); why != "" {
		return notApplicable(sub, why)
	} else if g != nil {
		return unknown(sub, *g)
	}
	if ml.set == nil {
		if len(ml.m.Interfaces) == 0 && len(ml.m.Gaps) > 0 {
			return unknown(sub, ml.m.Gaps...)
		}
		return notApplicable(sub, ml.m.Name+" has no settings for this interface.")
	}
	ev := acceptEvidence(ml.set)
	takes, known := ml.set.AcceptRA.Get()
	if ml.set.IPv6Disabled {
		takes, known = false, true
	}
	switch {
	case !known && gapOf(ml.set.AcceptRA) != nil:
		return unknown(sub, *gapOf(ml.set.AcceptRA))
	case ml.doubt != nil:
		return unknown(sub, *ml.doubt)
	case !takes:
		return pass(sub, fmt.Sprintf("%s takes no router advertisements on %s.", ml.m.Name, ml.l.Name), ev)
	case !ml.set.InUserspace:
		return ml.leftToKernel(sub, ev)
	}
	runs, known := ml.m.Running.Get()
	if !known {
		if g := gapOf(ml.m.Running); g != nil {
			return unknown(sub, *g)
		}
	}
	addressing := ml.s.Addressing(ml.l)
	lives := addressing == addrSLAAC || addressing == addrDHCPv6
	if len(ml.set.RouterAllowList) > 0 && lives {
		return pass(sub, fmt.Sprintf("%s takes router advertisements on %s from listed routers only. A neighbour that forges a listed address is still heard.", ml.m.Name, ml.l.Name), ev)
	}
	r := fail(sub, fmt.Sprintf("%s would take router advertisements from any neighbour on %s, whatever accept_ra says.", ml.m.Name, ml.l.Name), ev)
	r.Remediation = ml.remedies()
	switch {
	case len(ml.set.RouterAllowList) > 0:
		r.Severity = finding.Medium
		r.Message = fmt.Sprintf("%s takes router advertisements of listed routers on %s, which has a static address and needs none.", ml.m.Name, ml.l.Name)
	case lives:
		r.Severity = finding.Medium
		r.Message += " The interface gets its address that way; limit from whom."
	}
	if g := gapOf(ml.s.Addresses); g != nil {
		r.Message += " Whether it needs them is not known: its addresses could not be read."
	}
	if !runs {
		r.Compliance, r.Status = finding.Fail, finding.Fail
		r.Effective, r.Severity = finding.Pass, finding.Medium
		r.Title = ml.m.Name + " is enabled and would accept rogue router advertisements once it starts"
		r.Message = fmt.Sprintf("%s does not run now. It is enabled, and from its next start it takes router advertisements from any neighbour on %s.", ml.m.Name, ml.l.Name)
		return r
	}
	return ml.s.behind(rawRA(), ml.l.Name, r)
}

// leftToKernel judges a manager that writes accept_ra and lets the kernel decide.
func (ml managedLink) leftToKernel(sub finding.Subject, ev finding.Evidence) Result {
	want, says := ml.set.Sysctls["accept_ra"]
	if !says || want == "0" {
		return notApplicable(sub, ml.m.Name+" leaves router advertisements to the kernel (SYSCTL-RA-01).")
	}
	live := ml.s.ConfInt(ml.l.Name, "accept_ra")
	if g := gapOf(live); g != nil {
		return unknown(sub, *g)
	}
	if live.Or(0) != 0 {
		return notApplicable(sub, fmt.Sprintf("%s sets accept_ra=%s and leaves router advertisements to the kernel, which takes them now (SYSCTL-RA-01).", ml.m.Name, want))
	}
	r := fail(sub, fmt.Sprintf("The kernel takes no router advertisements on %s now, and %s switches that on (accept_ra=%s) when it brings the interface up again.", ml.l.Name, ml.m.Name, want), ev)
	r.Effective, r.Compliance, r.Status = finding.Pass, finding.Fail, finding.Fail
	r.Severity = finding.Medium
	r.Title = ml.m.Name + " will switch router advertisements on again"
	return r
}

func (ml managedLink) remedies() []finding.Remediation {
	static := intent("interfaces:\n  %s:\n    addressing: static", yamlWord(ml.l.Name))
	switch ml.m.Name {
	case "NetworkManager":
		return append(ml.s.refuseRAs(), static)
	case "systemd-networkd":
		name := baseName(ml.set.Origin.File)
		if !strings.HasSuffix(name, ".network") {
			return nil
		}
		dir := shellWord("/etc/systemd/network/" + name + ".d")
		return []finding.Remediation{
			command("mkdir -p %s && printf '[Network]\\nIPv6AcceptRA=no\\n' >%s/90-ra.conf && networkctl reload", dir, dir),
			static,
		}
	case "dhcpcd":
		return []finding.Remediation{
			command("printf 'interface %%s\\nnoipv6rs\\n' %s >>/etc/dhcpcd.conf && systemctl restart dhcpcd", shellWord(ml.l.Name)),
			static,
		}
	}
	return nil
}

// refuseRAs drops every RA, however it is wrapped, before a program can read it.
func (s *Space) refuseRAs() []finding.Remediation {
	return []finding.Remediation{
		command("%s", s.Run(nft("add table inet guard; add chain inet guard pre { type filter hook prerouting priority -450; }; add rule inet guard pre icmpv6 type nd-router-advert drop; add rule inet guard pre meta nfproto ipv6 exthdr frag exists ip6 daddr { fe80::/10, ff02::/16 } drop"))),
		advice("Then configure the client not to take them (RA-02, RA-03, RA-04). The rules close the interface for wanted RAs as well."),
	}
}

// raClients are programs that take router advertisements from a raw socket.
var raClients = []string{"systemd-networkd", "NetworkManager", "dhcpcd", "connmand", "rdisc6", "rdnssd", "odhcp6c", "netifd"}

// icmpv6Users are programs that hold raw ICMPv6 sockets for other things.
var icmpv6Users = []string{
	"ping", "ping6", "fping", "fping6", "oping", "noping", "arping", "traceroute", "traceroute6", "tracepath", "mtr", "mtr-packet", "nmap", "ndisc6",
	"radvd", "corerad", "rad", "dnsmasq", "bird", "bird6", "zebra", "babeld", "watchfrr", "ospf6d", "pim6d", "keepalived", "ndppd", "npd6", "pimd", "smcrouted",
	"smokeping", "collectd", "monit", "telegraf", "zabbix_server", "zabbix_proxy", "blackbox_exporter", "snmpd", "cilium-agent", "dhcp6c", "kea-dhcp6", "sixfence",
}

// holders names the executables that hold a socket, and says why when it cannot.
func (c *Context) holders(k *fact.Socket) (exes []string, gap *fact.Gap) {
	pids, ok := k.Owners.Get()
	if !ok {
		return nil, gapOf(k.Owners)
	}
	for _, pid := range pids {
		p := c.procs[pid]
		if p == nil {
			gap = &fact.Gap{Reason: fact.NotCollected, What: "a process that holds a socket"}
			continue
		}
		exe, ok := p.Exe.Get()
		if !ok {
			if g := gapOf(p.Exe); g != nil {
				gap = g
			}
			continue
		}
		exes = append(exes, exe)
	}
	return sortedUnique(exes), gap
}

func rawICMPv6(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		if g := gapOf(s.Sockets); g != nil {
			return []Result{unknown(s.Subject(), *g)}
		}
		socks, _ := s.Sockets.Get()
		held := map[string]int{}
		var gaps []fact.Gap
		for i := range socks {
			k := &socks[i]
			if k.Protocol != "raw" || k.Number != protoICMPv6 || k.Family != "ipv6" {
				continue
			}
			exes, gap := c.holders(k)
			if gap == nil && len(exes) == 0 {
				gap = &fact.Gap{Reason: fact.NotCollected, What: "holder of a raw ICMPv6 socket (none is visible from here)"}
			}
			if gap != nil && !slices.Contains(gaps, *gap) {
				gaps = append(gaps, *gap)
			}
			for _, e := range exes {
				held[e]++
			}
		}
		var out []Result
		if len(gaps) > 0 {
			out = append(out, unknown(s.Subject(), gaps...))
		}
		lives := false
		for i := range s.links {
			if a := s.Addressing(&s.links[i]); a == addrSLAAC || a == addrDHCPv6 {
				lives = true
			}
		}
		for exe, n := range held {
			sub := s.Subject()
			sub.Proto, sub.Process = "icmpv6", exe
			ev := c.observed("raw sockets, protocol 58", "executable", exe)
			base := baseName(exe)
			if slices.Contains(icmpv6Users, base) {
				out = append(out, pass(sub, fmt.Sprintf("%s holds %s for its own purposes.", exe, count(n, "raw ICMPv6 socket")), ev))
				continue
			}
			r := fail(sub, fmt.Sprintf("%s holds %s. It would be given router advertisements that the kernel refuses.", exe, count(n, "raw ICMPv6 socket")), ev)
			r.Remediation = s.refuseRAs()
			switch {
			case !slices.Contains(raClients, base):
				r.Severity = finding.Low
				r.Message += " What it does with them is not known."
			case lives:
				r.Severity = finding.Medium
				r.Message += " It is a client that acts on them, and an interface here lives by them."
			default:
				r.Message += " It is a client that acts on them, and no interface here needs them."
			}
			out = append(out, s.behind(rawRA(), "", r))
		}
		slices.SortFunc(out, func(a, b Result) int { return strings.Compare(a.Subject.Process, b.Subject.Process) })
		if out == nil {
			out = append(out, pass(s.Subject(), "No raw ICMPv6 socket is open."))
		}
		return out
	})
}

// raSenders run for nothing else than sending router advertisements;
// raSenderSockets do so when they hold a raw ICMPv6 socket.
var (
	raSenders       = []string{"radvd", "corerad", "rad", "rtadvd"}
	raSenderSockets = []string{"dnsmasq", "bird", "bird6"}
)

func sendsRA(c *Context) []Result {
	var out []Result
	stop := func(who string, r Result) Result {
		if r.Effective == finding.Fail && strings.HasPrefix(who, "/") {
			r.Remediation = []finding.Remediation{command("systemctl disable --now %s", shellWord(baseName(who))), intent("role: router")}
		}
		return r
	}
	judge := func(s *Space, ifname, who string, ev finding.Evidence) {
		var sub finding.Subject
		if s != nil {
			sub = s.On(ifname)
		}
		sub.Process = who
		if s == nil {
			out = append(out, unknown(sub, fact.Gap{Reason: fact.NotCollected, What: "the network namespace of " + who}))
			return
		}
		f := s.forwards()
		if g := gapOf(f); g != nil {
			out = append(out, s.mark(unknown(sub, *g))...)
			return
		}
		switch {
		case !f.Or(false):
			out = append(out, s.mark(stop(who, fail(sub, who+" announces this host as a router, and the namespace does not forward IPv6: what neighbours send it is lost.", ev)))...)
		case !c.IsRouter():
			out = append(out, s.mark(stop(who, fail(sub, who+" announces this host as a router; its role is "+c.Role.Name+".", ev)))...)
		default:
			out = append(out, s.mark(pass(sub, who+" announces this host as a router, which is its role ("+c.Role.Name+").", ev))...)
		}
	}
	ps, known := c.Snap.Host.Processes.Get()
	for i := range ps {
		exe := ps[i].Exe.Or("")
		if slices.Contains(raSenders, baseName(exe)) {
			id, _ := ps[i].NetNS.Get()
			judge(c.spaceByID(id), "", exe, c.observed("/proc/PID/exe", "executable", exe))
		}
	}
	if g := gapOf(c.Snap.Host.Processes); !known && g != nil {
		out = append(out, unknown(finding.Subject{}, *g))
	}
	for _, s := range c.spaces {
		socks, _ := s.Sockets.Get()
		seen := map[string]bool{}
		for i := range socks {
			if socks[i].Protocol != "raw" || socks[i].Number != protoICMPv6 {
				continue
			}
			exes, _ := c.holders(&socks[i])
			for _, e := range exes {
				if slices.Contains(raSenderSockets, baseName(e)) && !seen[e] {
					seen[e] = true
					judge(s, "", e, c.observed("raw sockets, protocol 58", "executable", e))
				}
			}
		}
	}
	ms, _ := c.Snap.Host.Managers.Get()
	for i := range ms {
		m := &ms[i]
		if !m.Running.Or(false) {
			continue
		}
		links, _ := c.managedLinks(m)
		for _, ml := range links {
			if ml.set != nil && ml.set.SendRA.Or(false) && ml.doubt == nil {
				judge(ml.s, ml.l.Name, m.Name, written(ml.set.Origin, "sends RAs", "true"))
			}
		}
	}
	if g := gapOf(c.Snap.Host.Managers); g != nil {
		out = append(out, unknown(finding.Subject{}, *g))
	}
	if out == nil && c.primary() != nil {
		out = append(out, pass(c.primary().Subject(), "Nothing here sends router advertisements."))
	}
	return dedupe(out)
}

// spaceByID finds a namespace.
func (c *Context) spaceByID(id fact.NamespaceID) *Space {
	for _, s := range c.spaces {
		if s.ID == id {
			return s
		}
	}
	return nil
}

// dedupe keeps one result a subject: the worst one.
func dedupe(rs []Result) []Result {
	rank := map[finding.Status]int{finding.Fail: 3, finding.Unknown: 2, finding.Pass: 1}
	at := make(map[finding.Subject]int, len(rs))
	out := rs[:0]
	for _, r := range rs {
		i, dup := at[r.Subject]
		switch {
		case !dup:
			at[r.Subject] = len(out)
			out = append(out, r)
		case rank[r.Effective] > rank[out[i].Effective] || rank[r.Effective] == rank[out[i].Effective] && r.Severity.Rank() > out[i].Severity.Rank():
			out[i] = r
		}
	}
	return out
}

func dnsFromRA(c *Context) []Result {
	var out []Result
	ms, ok := c.Snap.Host.Managers.Get()
	if !ok {
		if g := gapOf(c.Snap.Host.Managers); g != nil {
			return []Result{unknown(finding.Subject{}, *g)}
		}
	}
	resolver, _ := c.Snap.Host.Files.Resolver.Get()
	for i := range ms {
		m := &ms[i]
		if runs, known := m.Running.Get(); !known || !runs {
			if g := gapOf(m.Running); g != nil && m.Enabled.Or(true) {
				out = append(out, unknown(finding.Subject{Process: m.Name}, *g))
			}
			continue
		}
		links, gap := c.managedLinks(m)
		if gap != nil {
			out = append(out, unknown(finding.Subject{Process: m.Name}, *gap))
		}
		for _, ml := range links {
			out = append(out, ml.s.mark(ml.dns(resolver))...)
		}
	}
	ps, known := c.Snap.Host.Processes.Get()
	if !known {
		if g := gapOf(c.Snap.Host.Processes); g != nil {
			out = append(out, unknown(finding.Subject{}, *g))
		}
	}
	for i := range ps {
		if exe := ps[i].Exe.Or(""); baseName(exe) == "rdnssd" {
			id, _ := ps[i].NetNS.Get()
			s := c.spaceByID(id)
			if s == nil {
				continue
			}
			sub := s.Subject()
			sub.Process = exe
			out = append(out, s.mark(s.behind(rawRA(), "", fail(sub, "rdnssd writes the DNS servers of any router advertisement into resolv.conf.", c.observed("/proc/PID/exe", "executable", exe))))...)
		}
	}
	if out == nil && c.primary() != nil {
		out = append(out, pass(c.primary().Subject(), "No program here takes DNS servers from router advertisements; the kernel does not."))
	}
	return dedupe(out)
}

func (ml managedLink) dns(resolver fact.Resolver) Result {
	sub := ml.s.On(ml.l.Name)
	sub.Process = ml.m.Name
	if why, g := ml.s.hearsNobody(ml.l); why != "" {
		return notApplicable(sub, why)
	} else if g != nil {
		return unknown(sub, *g)
	}
	if ml.set == nil {
		return notApplicable(sub, ml.m.Name+" has no settings for this interface.")
	}
	for _, k := range []fact.Known[bool]{ml.set.AcceptRA, ml.set.UseDNS} {
		if v, ok := k.Get(); ok && !v {
			return pass(sub, ml.m.Name+" takes no DNS servers from router advertisements here.", acceptEvidence(ml.set))
		}
	}
	if ml.doubt != nil {
		return unknown(sub, *ml.doubt)
	}
	if g := gapOf(ml.set.AcceptRA); g != nil {
		return unknown(sub, *g)
	}
	if !ml.set.InUserspace || ml.set.IPv6Disabled {
		return pass(sub, ml.m.Name+" leaves router advertisements to the kernel, which takes no DNS servers from them.", acceptEvidence(ml.set))
	}
	if ml.set.UseDNS.State() != fact.StateValue && gapOf(ml.set.UseDNS) != nil && ml.m.Name != "dhcpcd" && ml.m.Name != "NetworkManager" {
		return unknown(sub, *gapOf(ml.set.UseDNS))
	}
	ev := []finding.Evidence{acceptEvidence(ml.set)}
	for _, rl := range resolver.Links {
		if rl.Index == ml.l.Index && len(rl.Servers) > 0 {
			ev = append(ev, finding.Evidence{Source: rl.Source, Key: "DNS servers of " + ml.l.Name, Value: strings.Join(rl.Servers, " "), At: ml.s.ctx.At()})
		}
	}
	if len(ml.set.RouterAllowList) > 0 {
		return pass(sub, ml.m.Name+" takes DNS servers from listed routers only.", ev...)
	}
	r := fail(sub, fmt.Sprintf("%s would take DNS servers from the router advertisement of any neighbour on %s.", ml.m.Name, ml.l.Name), ev...)
	if a := ml.s.Addressing(ml.l); a == addrSLAAC || a == addrDHCPv6 {
		r.Severity = finding.Medium
	}
	return ml.s.behind(rawRA(), ml.l.Name, r)
}
