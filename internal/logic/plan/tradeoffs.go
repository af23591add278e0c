package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// fromRA is IFAPROT_KERNEL_RA.
const fromRA = 2

// lifetimes are the addresses and routes that end, because nothing renews them any more,
// and when.
func (b *builder) lifetimes(live []change.Step) {
	if disabled(b.in) {
		return
	}
	as, _ := b.ns.Addresses.Get()
	// Kernels before 5.18 do not say which address is from what.
	told := false
	for _, a := range as {
		told = told || a.Protocol != 0
	}
	var ours, theirs, temporary []string
	for _, a := range as {
		name := b.linkName(a.Index)
		f := b.in.Of(b.sel, name)
		if !a.Prefix.Addr().Is6() || a.Prefix.Addr().IsLinkLocalUnicast() || a.Flags&fact.AddrPermanent != 0 || a.Valid == fact.Forever {
			continue
		}
		text := fmt.Sprintf("%s on %s: in %s", a.Prefix, name, fact.Seconds(int64(a.Valid)))
		switch {
		case a.Flags&fact.AddrTemporary != 0 && b.ends(live, name, "use_tempaddr"):
			temporary = append(temporary, text)
		case f.Addressing == intent.SLAAC || f.Addressing == intent.DHCPv6 || f.Addressing == intent.NoIPv6:
		case told && a.Protocol != fromRA && a.Prefix.Bits() < 128:
			theirs = append(theirs, text)
		default:
			ours = append(ours, text)
		}
	}
	if len(ours) > 0 {
		b.risk(change.Risk{ID: "ra-addresses-expire", Severity: "high", Title: "Addresses that came from Router Advertisements or DHCPv6 end with their lifetime", Evidence: ours, Remedy: "configure them statically, or write addressing: slaac or dhcpv6"})
	}
	if len(theirs) > 0 {
		b.risk(change.Risk{ID: "program-addresses", Severity: "low", Title: "Addresses with a lifetime that no router announced here are left to the program that renews them", Detail: "If that is a DHCPv6 client on another interface (prefix delegation), that interface needs addressing: dhcpv6, or dhcpv6Servers.", Evidence: theirs})
	}
	if len(temporary) > 0 {
		b.risk(change.Risk{ID: "temporary-addresses-end", Severity: "low", Title: "Temporary addresses are made no more: this host begins connections from its stable address", Detail: "Connections from a temporary address last until its lifetime ends, at the latest. Far sides that know this host by address see another one, and can recognise it.", Evidence: temporary, Remedy: "role: workstation leaves them as they are"})
	}
	routes, _ := b.ns.Routes.Get()
	changes := slices.ContainsFunc(b.p.Steps, func(s change.Step) bool {
		return s.Kind == change.Table || strings.Contains(s.Target, "/accept_ra")
	})
	var ended []string
	for _, r := range routes {
		if r.Family != "ipv6" || r.Dst.Bits() == 0 || r.Type != 1 || r.Table == 255 || len(r.NextHops) == 0 {
			continue
		}
		left, ok := r.Expires.Get()
		name := b.linkName(r.NextHops[0].Index)
		f := b.in.Of(b.sel, name)
		believes := f.Addressing == intent.SLAAC || f.Addressing == intent.DHCPv6
		// What a router says of prefixes on the link is believed where it is believed at
		// all, what it says of routes nowhere.
		switch {
		case !ok || f.Addressing == intent.NoIPv6, believes && r.Protocol != fact.ProtoRA, !changes:
			continue
		}
		via := ""
		if v := r.NextHops[0].Via; v.IsValid() {
			via = " via " + v.WithZone("").String()
		}
		ended = append(ended, fmt.Sprintf("%s%s dev %s: in %s", r.Dst, via, name, fact.Seconds(int64(left))))
	}
	if len(ended) > 0 {
		b.risk(change.Risk{ID: "ra-routes-expire", Severity: "medium", Title: "Routes that came from Router Advertisements end with their lifetime", Detail: "The intent believes no routes but the default one, and on interfaces without slaac or dhcpv6 none at all.", Evidence: ended, Remedy: "configure those that are needed"})
	}
}

// believed says what is not known of those who are believed, by who listens to them on
// this host.
func (b *builder) believed() {
	if disabled(b.in) {
		return
	}
	var without, whole, loose []string
	for _, f := range b.ifaces {
		if f.Addressing != intent.SLAAC && f.Addressing != intent.DHCPv6 {
			continue
		}
		for _, n := range f.names {
			for _, l := range b.linksOf(n) {
				who := b.listener(l)
				for _, r := range f.Routers {
					switch {
					case !f.believes(r):
						continue
					case r.MAC == "":
						without = append(without, fmt.Sprintf("%s on %s", r.Address, l.Name))
					default:
						whole = append(whole, fmt.Sprintf("%s (MAC %s) on %s", r.Address, r.MAC, l.Name))
					}
					if len(r.Prefixes) > 0 && who != "systemd-networkd" {
						loose = append(loose, fmt.Sprintf("%s: %s takes any prefix that %s sends", l.Name, who, r.Address))
					}
				}
			}
		}
	}
	if len(without) > 0 {
		b.risk(change.Risk{ID: "router-without-mac", Severity: "medium", Title: "Whoever takes a router's address is believed: its MAC address is not in the intent", Evidence: sortedUnique(without), Remedy: "give routers[].mac, and pinGateway: true"})
	}
	if len(whole) > 0 {
		b.risk(change.Risk{ID: "router-forged", Severity: "low", Title: "Whoever forges a router's address and its MAC address is believed, and takes the default route", Detail: "No host can tell the two apart; a switch with RA guard can.", Evidence: sortedUnique(whole)})
	}
	if len(loose) > 0 {
		b.risk(change.Risk{ID: "prefixes-not-held", Severity: "low", Title: "The prefixes of routers are not held to on this host", Detail: "systemd-networkd alone has a list of prefixes. Rules see an option at a fixed place only, and the sender chooses the places.", Evidence: sortedUnique(loose)})
	}
}

// listener is who takes the RAs of an interface.
func (b *builder) listener(l fact.Link) string {
	who := "the kernel"
	if !b.userspace(l.Name) {
		return who
	}
	for _, m := range b.managers() {
		// netplan writes for others.
		if mi, _ := m.For(&l); mi != nil && mi.InUserspace && works(&m) && (who == "the kernel" || who == "netplan" || m.Name == "systemd-networkd") {
			who = m.Name
		}
	}
	return who
}

// ends tells that a switch of an interface goes from on to off.
func (b *builder) ends(live []change.Step, name, key string) bool {
	for _, s := range live {
		if s.Target == conf6+name+"/"+key {
			return s.After.Text == "0" && s.Before.Text != "0"
		}
	}
	return false
}

// forwardingEnds is what no longer passes through this host.
func (b *builder) forwardingEnds(live []change.Step) {
	var off []string
	for _, s := range live {
		if (s.Target == "net/ipv4/ip_forward" || s.Target == conf6+"all/forwarding") && s.After.Text == "0" {
			off = append(off, s.Target+" = "+s.Before.Text)
		}
	}
	if len(off) > 0 {
		b.risk(change.Risk{ID: "forwarding-ends", Severity: "high", Title: "This host forwards now, and will no longer", Detail: "Whoever reaches others through it does not after this change: containers, guests, networks behind it.", Evidence: off, Remedy: "forwarding: {ipv4: true, ipv6: true, unmanaged: true}, or role: router with what may pass"})
	}
}

// idleFlows are connections that the first rules with a state do not know.
func (b *builder) idleFlows() {
	if b.ours() != nil || !b.hasRules() {
		return
	}
	now, _ := b.ns.Sysctls.Get()
	on4, _ := now.Get("net/ipv4/ip_forward").Get()
	on6, _ := now.Get(conf6 + "all/forwarding").Get()
	r := change.Risk{ID: "idle-flows", Severity: "low", Title: "Connections that are open now are new to connection tracking", Detail: "Those that end on this host are listed when the rules are loaded, and stay. An answer to a datagram that was sent just before may be lost once."}
	if on4 == "1" || on6 == "1" || b.containers() {
		r.Severity = "medium"
		r.Detail = "Those that end on this host are listed when the rules are loaded, and stay. What is only forwarded, and what containers hold open, is cut when the far side speaks first."
		r.Remedy = "let those who are connected through this host know"
	}
	b.risk(r)
}
