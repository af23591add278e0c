package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// raState is how one interface stands to router advertisements.
type raState struct {
	accepts            bool // the kernel acts on them
	acceptRA, forwards int64
	gap                *fact.Gap // why that is not known
	// routes and addrs tell that the interface lives by RAs: the host's only IPv6
	// default routes, or the interface's only global addresses, came by one.
	routes, addrs bool
	client        string    // a userspace RA client on this interface, when known
	clientGap     *fact.Gap // why it is not known whether there is one
	evidence      []finding.Evidence
}

// wanted tells whether something here depends on RAs.
func (r raState) wanted() bool { return r.routes || r.addrs }

// acceptsRA is the kernel's ipv6_accept_ra() (include/net/ipv6.h).
func acceptsRA(acceptRA, forwarding int64) bool {
	if forwarding != 0 {
		return acceptRA == 2
	}
	return acceptRA != 0
}

// raOf reads an interface's state once.
func (s *Space) raOf(l *fact.Link) raState {
	if r, ok := s.ra[l.Index]; ok {
		return r
	}
	if s.ra == nil {
		s.ra = map[int]raState{}
	}
	r := s.readRA(l)
	s.ra[l.Index] = r
	return r
}

func (s *Space) readRA(l *fact.Link) raState {
	var r raState
	a, f := s.ConfInt(l.Name, "accept_ra"), s.ConfInt(l.Name, "forwarding")
	r.evidence = []finding.Evidence{s.confEvidence(l.Name, "accept_ra"), s.confEvidence(l.Name, "forwarding")}
	var haveA, haveF bool
	r.acceptRA, haveA = a.Get()
	r.forwards, haveF = f.Get()
	switch {
	case haveA && haveF:
		r.accepts = acceptsRA(r.acceptRA, r.forwards)
	case haveA && r.acceptRA == 0: // whatever forwarding says
	case haveA && r.acceptRA == 2:
		r.accepts = true
	case !haveA:
		r.gap = notRead(a, "accept_ra of "+l.Name)
	default:
		r.gap = notRead(f, "forwarding of "+l.Name)
	}
	here := s.on(l.Index)
	byRA := func(r *fact.Route) bool { return r.Protocol == fact.ProtoRA }
	r.routes = slices.ContainsFunc(here.defaults, byRA) && !slices.ContainsFunc(s.anywhere().defaults, func(r *fact.Route) bool { return !byRA(r) })
	r.addrs = s.Addressing(l) == addrSLAAC
	r.client, r.clientGap = s.userspaceRA(l)
	if r.client == "" {
		if client, gap := s.listensForRA(l); client != "" || r.clientGap == nil {
			r.client, r.clientGap = client, gap
		}
	}
	return r
}

// raInstallers are the raClients that also install the routes and addresses.
var raInstallers = []string{"systemd-networkd", "dhcpcd", "NetworkManager", "connmand", "odhcp6c", "netifd"}

// listensForRA looks for a client by its raw ICMPv6 socket: a manager in this
// namespace may have a configuration that we cannot see.
func (s *Space) listensForRA(l *fact.Link) (string, *fact.Gap) {
	socks, ok := s.Sockets.Get()
	if g := gapOf(s.Sockets); !ok && g != nil {
		return "", g
	}
	var gap *fact.Gap
	for i := range socks {
		k := &socks[i]
		if k.Protocol != "raw" || k.Family != "ipv6" || k.Number != protoICMPv6 || k.Index != 0 && k.Index != l.Index {
			continue
		}
		owners, ok := k.Owners.Get()
		if !ok {
			if g := gapOf(k.Owners); g != nil {
				gap = firstGap(gap, g)
			} else {
				gap = firstGap(gap, &fact.Gap{Reason: fact.NotCollected, What: "who holds a raw ICMPv6 socket in this namespace"})
			}
			continue
		}
		for _, pid := range owners {
			p := s.ctx.Process(pid)
			if p == nil {
				continue
			}
			exe, ok := p.Exe.Get()
			name := baseName(exe)
			switch {
			case !ok:
				gap = firstGap(gap, gapOf(p.Exe))
			case !slices.Contains(raInstallers, name):
			case k.Index == l.Index:
				return name, nil
			default:
				gap = firstGap(gap, &fact.Gap{Reason: fact.NotCollected, What: "whether " + name + " takes router advertisements on " + l.Name})
			}
		}
	}
	return "", gap
}

// notRead is the Gap of a setting that every kernel with IPv6 has: unsupported
// and absent are then no answers either.
func notRead[T any](k fact.Known[T], what string) *fact.Gap {
	if g := gapOf(k); g != nil {
		return g
	}
	return &fact.Gap{Reason: fact.UnsupportedGap, What: what}
}

// userspaceRA names the running program that takes RAs on this interface, by
// its configuration. It is empty when there surely is none.
func (s *Space) userspaceRA(l *fact.Link) (string, *fact.Gap) {
	ms, ok := s.ctx.Snap.Host.Managers.Get()
	if g := gapOf(s.ctx.Snap.Host.Managers); !ok && g != nil {
		return "", g
	}
	var gap *fact.Gap
	for i := range ms {
		m := &ms[i]
		running, known := m.Running.Get()
		if s.ctx.managedSpace(m) != s || known && !running {
			continue
		}
		set, doubt := m.For(l)
		if set == nil && doubt == nil && len(m.Gaps) > 0 {
			doubt = &m.Gaps[0]
		}
		if set != nil && !set.InUserspace || set == nil && doubt == nil {
			continue
		}
		takes, sure := false, false
		if set != nil {
			takes, sure = set.AcceptRA.Get()
		}
		switch {
		case doubt != nil:
			gap = doubt
		case sure && !takes:
		case sure && known:
			return m.Name, nil
		default:
			gap = &fact.Gap{Reason: fact.NotCollected, What: "whether " + m.Name + " takes router advertisements on " + l.Name}
		}
	}
	return "", gap
}

// benchmark is what CIS, STIG and ANSSI read of a key: conf/all and
// conf/default, both of which must hold one of the values in want.
func (s *Space) benchmark(key string, want ...string) finding.Status {
	out := finding.Pass
	for _, f := range []string{"all", "default"} {
		k := s.Conf(f, key)
		v, ok := k.Get()
		switch {
		case ok && !slices.Contains(want, v):
			return finding.Fail
		case ok:
		case k.State() == fact.StateGap:
			out = finding.Unknown
		default:
			return finding.NotApplicable
		}
	}
	return out
}

// expiry says when a route goes, in words and as a moment.
func (c *Context) expiry(r *fact.Route) string {
	if r.Expires.State() == fact.StateAbsent {
		return "never expires"
	}
	sec, ok := r.Expires.Get()
	if !ok {
		return "expires at a moment that is not known"
	}
	if c.Now.IsZero() || sec > int64(100*365*24*time.Hour/time.Second) || sec < 0 {
		return fmt.Sprintf("expires in %d s", sec)
	}
	return fmt.Sprintf("expires in %d s, at %s", sec, c.Now.UTC().Add(time.Duration(sec)*time.Second).Format(time.RFC3339))
}

// routeEvidence is a route as ip(8) prints it.
func (s *Space) routeEvidence(r *fact.Route) finding.Evidence {
	var b strings.Builder
	b.WriteString(r.Dst.String())
	for _, h := range r.NextHops {
		if h.Via.IsValid() {
			b.WriteString(" via " + h.Via.String())
		}
		b.WriteString(" dev " + s.IfName(h.Index))
	}
	fmt.Fprintf(&b, " proto %s metric %d", protoName(r.Protocol), r.Priority)
	return finding.Evidence{Source: "RTM_GETROUTE", Key: "route", Value: b.String(), At: s.ctx.At()}
}

func protoName(p uint8) string {
	switch p {
	case fact.ProtoRedirect:
		return "redirect"
	case fact.ProtoKernel:
		return "kernel"
	case fact.ProtoBoot:
		return "boot"
	case fact.ProtoStatic:
		return "static"
	case fact.ProtoRA:
		return "ra"
	case fact.ProtoDHCP:
		return "dhcp"
	}
	return itoa(int64(p))
}

func (s *Space) addressEvidence(a fact.Address) finding.Evidence {
	v := a.Prefix.String() + " dev " + s.IfName(a.Index)
	if a.Protocol == ifaprotRA {
		v += " proto kernel_ra"
	}
	if a.Flags&fact.AddrPermanent == 0 {
		v += " dynamic"
	}
	return finding.Evidence{Source: "RTM_GETADDR", Key: "address", Value: v, At: s.ctx.At()}
}

// IFAPROT_KERNEL_RA (include/uapi/linux/if_addr.h, 5.18).
const ifaprotRA = 2
