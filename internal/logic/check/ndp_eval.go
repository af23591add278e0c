package check

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// Kernel defaults of neighbour discovery (net/ipv6/ndisc.c nd_tbl).
const (
	defaultReachableMs = 30000
	defaultRetransMs   = 1000
	defaultQueueBytes  = 212992 // SK_WMEM_MAX
	defaultThresh3     = 1024
)

const (
	iffPointToPoint = 0x10
	routeUnicast    = 1 // RTN_UNICAST
	tableLocal      = 255
)

// onNeighbourTable runs f once: the table's limits and statistics are the same
// from every namespace.
func (c *Context) onNeighbourTable(f func(finding.Subject, fact.NeighbourTable) []Result) []Result {
	p := c.primary()
	if p == nil {
		return nil
	}
	subject := p.Subject()
	subject.Key = "ndisc_cache"
	var gap *fact.Gap
	stack := false
	for _, s := range append([]*Space{p}, c.spaces...) {
		if on, ok := s.IPv6.Get(); ok && !on || s.IPv6.State() == fact.StateAbsent || s.IPv6.State() == fact.StateUnsupported {
			continue
		}
		stack = true
		if t, ok := s.NeighbourTable.Get(); ok {
			return f(subject, t)
		}
		if g := gapOf(s.NeighbourTable); g != nil && gap == nil {
			gap = g
		}
	}
	switch {
	case !stack:
		return []Result{notApplicable(subject, "There is no IPv6 stack, hence no neighbour table.")}
	case gap != nil:
		return []Result{unknown(subject, *gap)}
	}
	return []Result{notApplicable(subject, "The kernel lists no IPv6 neighbour table.")}
}

func neighbourLimits(c *Context) []Result {
	return c.onNeighbourTable(func(sub finding.Subject, t fact.NeighbourTable) []Result {
		ev := []finding.Evidence{
			c.observed("RTM_GETNEIGHTBL ndisc_cache", "gc_thresh1/2/3", fmt.Sprintf("%d/%d/%d", t.GCThresh1, t.GCThresh2, t.GCThresh3)),
			c.passing("RTM_GETNEIGHTBL ndisc_cache", "entries", itoa(int64(t.Entries))),
		}
		holds := fmt.Sprintf("The IPv6 neighbour table of this machine may hold %d entries over all network namespaces and holds %d now", t.GCThresh3, t.Entries)
		switch {
		case t.GCThresh1 > t.GCThresh2 || t.GCThresh2 > t.GCThresh3:
			return []Result{fail(sub, fmt.Sprintf("The limits do not ascend (gc_thresh1=%d, gc_thresh2=%d, gc_thresh3=%d): collection starts after the table is full.", t.GCThresh1, t.GCThresh2, t.GCThresh3), ev...)}
		case uint64(t.Entries)*4 > uint64(t.GCThresh3):
			return []Result{fail(sub, holds+": less than four times what is in use.", ev...)}
		case c.IsRouter() && t.GCThresh3 <= defaultThresh3:
			r := fail(sub, holds+": the kernel's default, made for a host, on a machine that forwards for others (role "+c.Role.Name+").", ev...)
			r.Severity = finding.Low
			return []Result{r}
		}
		return []Result{pass(sub, holds+".", ev...)}
	})
}

func neighbourOverflow(c *Context) []Result {
	return c.onNeighbourTable(func(sub finding.Subject, t fact.NeighbourTable) []Result {
		n, ok := t.TableFulls.Get()
		if !ok {
			if g := gapOf(t.TableFulls); g != nil {
				return []Result{unknown(sub, *g)}
			}
			return []Result{unknown(sub, fact.Gap{Reason: fact.UnsupportedGap, What: "table_fulls of the neighbour table (this kernel does not count it)"})}
		}
		ev := []finding.Evidence{
			c.passing("RTM_GETNEIGHTBL ndisc_cache", "table_fulls", fmt.Sprint(n)),
			c.passing("RTM_GETNEIGHTBL ndisc_cache", "entries", itoa(int64(t.Entries))),
			c.observed("RTM_GETNEIGHTBL ndisc_cache", "gc_thresh3", itoa(int64(t.GCThresh3))),
		}
		if n == 0 {
			return []Result{pass(sub, "No neighbour entry was refused since boot.", ev...)}
		}
		r := fail(sub, fmt.Sprintf("Since boot the kernel refused %d neighbour entries because the table was full (%d entries now, limit %d). The table is shared by all network namespaces; the flood need not have come through this one.", n, t.Entries, t.GCThresh3), ev...)
		if t.Entries < t.GCThresh2 {
			r.Severity = finding.Medium
			r.Message += " It is not full at this moment; the counter goes back to 0 at a reboot only."
		}
		if !slices.ContainsFunc(c.spaces, func(s *Space) bool { return s.IsInit }) {
			r.Remediation = []finding.Remediation{
				advice("The table belongs to the host, and its limits can be set in the initial network namespace only: ask who runs the host for `sysctl -w net.ipv6.neigh.default.gc_thresh3=8192`, and to find the flood (NDP-04 there)."),
			}
		}
		return []Result{r}
	})
}

func neighbourSigns(c *Context) []Result {
	return c.onNeighbourTable(func(sub finding.Subject, t fact.NeighbourTable) []Result {
		ev := []finding.Evidence{
			c.passing("RTM_GETNEIGHTBL ndisc_cache", "forced_gc_runs", fmt.Sprint(t.ForcedGCRuns)),
			c.passing("RTM_GETNEIGHTBL ndisc_cache", "res_failed/allocs", fmt.Sprintf("%d/%d", t.ResFailed, t.Allocs)),
		}
		var seen []string
		if t.ForcedGCRuns > 0 {
			seen = append(seen, fmt.Sprintf("collection was forced %d times, because more than gc_thresh2 (%d) entries were in use", t.ForcedGCRuns, t.GCThresh2))
		}
		if t.Allocs >= 1000 && t.ResFailed*2 > t.Allocs {
			seen = append(seen, fmt.Sprintf("%d of %d neighbours that were looked for did not answer", t.ResFailed, t.Allocs))
		}
		if len(seen) == 0 {
			return []Result{pass(sub, "Neither forced collection nor a high share of failed resolutions since boot.", ev...)}
		}
		return []Result{fail(sub, "Since boot "+strings.Join(seen, ", and ")+".", ev...)}
	})
}

// stateCounts are the neighbour entries of one interface by kind of state.
type stateCounts struct{ unresolved, probing int }

// tally counts the entries of every interface of a namespace.
func (s *Space) tally() map[int]stateCounts {
	out := map[int]stateCounts{}
	ns, _ := s.Neighbours.Get()
	for _, n := range ns {
		k := out[n.Index]
		switch {
		case n.State&(fact.NUDIncomplete|fact.NUDFailed) != 0:
			k.unresolved++
		case n.State&(fact.NUDDelay|fact.NUDProbe) != 0:
			k.probing++
		}
		out[n.Index] = k
	}
	return out
}

// crowded compares one kind of neighbour state of every interface with gc_thresh2.
func crowded(c *Context, states string, pick func(stateCounts) int) []Result {
	tallies := map[*Space]map[int]stateCounts{}
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		if g := gapOf(s.Neighbours); g != nil {
			return []Result{unknown(s.On(l.Name), *g)}
		}
		t, ok := s.NeighbourTable.Get()
		if !ok {
			if g := gapOf(s.NeighbourTable); g != nil {
				return []Result{unknown(s.On(l.Name), *g)}
			}
			return []Result{notApplicable(s.On(l.Name), "The kernel lists no IPv6 neighbour table.")}
		}
		if tallies[s] == nil {
			tallies[s] = s.tally()
		}
		n := pick(tallies[s][l.Index])
		ev := []finding.Evidence{
			c.passing("RTM_GETNEIGH", "entries in "+states, itoa(int64(n))),
			c.observed("RTM_GETNEIGHTBL ndisc_cache", "gc_thresh2", itoa(int64(t.GCThresh2))),
		}
		msg := fmt.Sprintf("%d neighbour entries of %s are %s; half of gc_thresh2 is %d.", n, l.Name, states, t.GCThresh2/2)
		if n > 0 && uint64(n)*2 > uint64(t.GCThresh2) {
			return []Result{fail(s.On(l.Name), msg, ev...)}
		}
		return []Result{pass(s.On(l.Name), msg, ev...)}
	})
}

func neighbourStates(c *Context) []Result {
	return crowded(c, "INCOMPLETE or FAILED", func(k stateCounts) int { return k.unresolved })
}

func neighbourProbing(c *Context) []Result {
	return crowded(c, "DELAY or PROBE", func(k stateCounts) int { return k.probing })
}

// forwards tells whether a namespace forwards IPv6 at all: all.forwarding, or
// force_forwarding on an interface packets come in by.
func (s *Space) forwards() fact.Known[bool] {
	if s.forwarding == nil {
		k := s.lookForwards()
		s.forwarding = &k
	}
	return *s.forwarding
}

func (s *Space) lookForwards() fact.Known[bool] {
	all := s.ConfInt("all", "forwarding")
	v, ok := all.Get()
	if ok && v != 0 {
		return fact.Value(true)
	}
	var gap *fact.Gap
	if !ok {
		if g := gapOf(all); g != nil {
			gap = g
		}
	}
	for i := range s.links {
		k := s.ConfInt(s.links[i].Name, "force_forwarding")
		if v, ok := k.Get(); ok && v != 0 {
			return fact.Value(true)
		} else if g := gapOf(k); g != nil && gap == nil {
			gap = g
		}
	}
	if gap != nil {
		return fact.Missing[bool](*gap)
	}
	return fact.Value(false)
}

// nftChains decodes what can be decoded; Inbound reports what cannot.
func (s *Space) nftChains() ([]pfdecode.Chain, bool) {
	nft, ok := s.PacketFilter.NFTables.Get()
	if !ok {
		return nil, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if s.ctx.Snap.Host.ByteOrder == "big" {
		order = binary.BigEndian
	}
	cs, err := pfdecode.ActiveChains(nft.Tables, nft.Chains, order)
	return cs, err == nil || len(cs) > 0
}

func routedPrefix(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		sub := s.On(l.Name)
		f := s.forwards()
		if g := gapOf(f); g != nil {
			return []Result{unknown(sub, *g)}
		}
		if !f.Or(false) {
			return []Result{notApplicable(sub, "This network namespace does not forward IPv6.")}
		}
		if l.Flags&iffNoARP != 0 {
			return []Result{notApplicable(sub, "Nothing is resolved on this interface.")}
		}
		if g := gapOf(s.Routes); g != nil {
			return []Result{unknown(sub, *g)}
		}
		rs, _ := s.Routes.Get()
		var out []Result
		seen := map[netip.Prefix]bool{}
		for _, r := range rs {
			d := r.Dst
			if r.Family != "ipv6" || r.Type != routeUnicast || r.Table == tableLocal || !d.Addr().IsGlobalUnicast() || d.Bits() == 0 || seen[d] {
				continue
			}
			if !slices.ContainsFunc(r.NextHops, func(h fact.NextHop) bool { return h.Index == l.Index && !h.Via.IsValid() }) {
				continue
			}
			seen[d] = true
			one := sub
			one.Address = d.String()
			ev := c.observed("RTM_GETROUTE", "on-link prefix", d.String()+" dev "+l.Name)
			if d.Bits() >= 120 {
				out = append(out, pass(one, fmt.Sprintf("%s on %s has at most %d addresses to look for.", d, l.Name, 1<<(128-d.Bits())), ev))
				continue
			}
			r := fail(one, fmt.Sprintf("This namespace forwards, %s is on-link on %s, and nothing filters forwarded packets: one packet an address makes it look for neighbours until the table is full.", d, l.Name), ev)
			r.Remediation = []finding.Remediation{
				command("%s", s.Run(nft("add table inet guard; add chain inet guard forward { type filter hook forward priority 0; }; add rule inet guard forward ct state established,related accept; add rule inet guard forward oifname "+quotedNames([]string{l.Name})+" iifname != "+quotedNames([]string{l.Name})+" meta nfproto ipv6 drop"))),
				advice("Then accept what is meant to come in, service by service, before the drop."),
				intent("role: router"),
			}
			r = s.behindScan(r, l, d)
			out = append(out, r)
		}
		if out == nil {
			out = append(out, pass(sub, "No on-link prefix with global addresses here."))
		}
		return out
	})
}

// behindScan settles a failed result that packets to absent neighbours cause.
func (s *Space) behindScan(r Result, l *fact.Link, on netip.Prefix) Result {
	var ins []string
	for _, n := range s.reach().Interfaces("ipv6") {
		if n != l.Name {
			ins = append(ins, n)
		}
	}
	if ins == nil {
		ins = []string{l.Name}
	}
	a, asked := s.through(absent(on), ins, []string{l.Name})
	if !asked {
		return r
	}
	r.Evidence = append(slices.Clone(r.Evidence), s.fateEvidence(&a.by)...)
	at := fmt.Sprintf("This namespace forwards and %s is on-link on %s.", on, l.Name)
	switch a.fateKind {
	case in, pinned:
		r.Message = fmt.Sprintf("%s The packet filter lets %s pass from %s: one packet an address makes it look for neighbours until the table is full.", at, a.by.Kind.Name, a.by.Interface)
	case out:
		r.Effective, r.Message = finding.Pass, at+" The packet filter lets no packet pass to an address there that did not ask for it."
	default:
		r.Effective, r.Gaps = finding.Unknown, append(r.Gaps, a.gaps...)
		r.Message = at + " Whether a packet to an absent address gets that far is not known: " + because(a.gaps) + "."
	}
	return r
}

func dadFailed(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		if g := gapOf(s.Addresses); g != nil {
			return []Result{unknown(s.On(l.Name), *g)}
		}
		var out []Result
		for _, a := range s.Addrs(l.Index, "ipv6") {
			if a.Flags&fact.AddrDADFailed == 0 {
				continue
			}
			sub := s.On(l.Name)
			if a.Flags&fact.AddrTemporary == 0 {
				sub.Address = a.Prefix.Addr().String()
			}
			r := fail(sub, fmt.Sprintf("%s on %s failed duplicate address detection: somebody on the link answered for it, and the host does not use it.", a.Prefix.Addr(), l.Name),
				c.observed("RTM_GETADDR", "flags", a.Prefix.String()+" tentative dadfailed"))
			r.Remediation = []finding.Remediation{
				command("%s", s.Run(fmt.Sprintf("ip -6 addr del %s dev %s", a.Prefix, shellWord(l.Name)))),
				command("%s", s.Run(fmt.Sprintf("ip -6 addr add %s dev %s", a.Prefix, shellWord(l.Name)))),
				advice("First find who answers: tcpdump -eni %s 'icmp6 and ip6[40] == 136'.", shellWord(l.Name)),
			}
			out = append(out, r)
		}
		if out == nil {
			out = append(out, pass(s.On(l.Name), "No address on "+l.Name+" failed duplicate address detection."))
		}
		return out
	})
}

func dadSwitchedOff(c *Context) []Result {
	files, filesKnown := c.Snap.Host.Files.Sysctl.Get()
	boot := bootconf.New(files)
	return c.eachSpace(func(s *Space) []Result {
		if g := gapOf(s.Links); g != nil {
			return []Result{unknown(s.Subject(), *g)}
		}
		var out []Result
		for i := range s.links {
			l := &s.links[i]
			if l.Flags&iffLoopback != 0 {
				continue
			}
			out = append(out, s.switchedOffByDAD(l, boot, filesKnown))
		}
		return out
	})
}

func (s *Space) switchedOffByDAD(l *fact.Link, boot *bootconf.Config, filesKnown bool) Result {
	sub := s.On(l.Name)
	off := s.ConfInt(l.Name, "disable_ipv6")
	if g := gapOf(off); g != nil {
		return unknown(sub, *g)
	}
	v, ok := off.Get()
	if !ok {
		return notApplicable(sub, "The interface has no IPv6 settings.")
	}
	if v == 0 {
		return pass(sub, "IPv6 is on.", s.sysctlEvidence("net/ipv6/conf/"+l.Name+"/disable_ipv6", "0"))
	}
	for _, scope := range []string{"all", "default"} {
		k := s.ConfInt(scope, "disable_ipv6")
		if g := gapOf(k); g != nil {
			return unknown(sub, *g)
		}
		if k.Or(0) != 0 {
			return notApplicable(sub, "IPv6 is switched off for all or for new interfaces ("+scope+".disable_ipv6=1), so this one was not singled out.")
		}
	}
	var dad int64
	for _, scope := range []string{"all", l.Name} {
		k := s.ConfInt(scope, "accept_dad")
		if g := gapOf(k); g != nil {
			return unknown(sub, *g)
		}
		dad = max(dad, k.Or(0))
	}
	if dad < 2 {
		return pass(sub, fmt.Sprintf("IPv6 is off on %s, but not by DAD: the larger accept_dad of all and %s is %d, and only 2 switches interfaces off.", l.Name, l.Name, dad),
			s.sysctlEvidence("net/ipv6/conf/"+l.Name+"/accept_dad", itoa(dad)))
	}
	if !filesKnown {
		if g := gapOf(s.ctx.Snap.Host.Files.Sysctl); g != nil {
			return unknown(sub, *g)
		}
	}
	if o, ok := boot.Sysctl("net/ipv6/conf/" + l.Name + "/disable_ipv6"); ok && o.Value != "0" {
		return notApplicable(sub, "A boot-time setting switches IPv6 off here ("+o.Setting.Origin.File+").")
	}
	r := fail(sub, fmt.Sprintf("IPv6 is off on %s, no boot-time file says so, and accept_dad=2 lets one answer to the DAD probe of its link-local address do that. (An administrator who switched it off by hand leaves the same trace.)", l.Name),
		s.sysctlEvidence("net/ipv6/conf/"+l.Name+"/disable_ipv6", itoa(v)),
		s.sysctlEvidence("net/ipv6/conf/"+l.Name+"/accept_dad", "2 (larger of all and "+l.Name+")"))
	r.Remediation = append(s.SetConf(l.Name, "accept_dad", "1"), s.SetNow("net/ipv6/conf/all/accept_dad", "0"), s.SetNow("net/ipv6/conf/"+l.Name+"/disable_ipv6", "0"))
	return r
}

// neighParm is a neighbour parameter of an interface (index 0: default), from
// RTM_GETNEIGHTBL, else from /proc/sys.
func (s *Space) neighParm(index int, name, key string, pick func(fact.NeighbourParms) uint64) fact.Known[int64] {
	if t, ok := s.NeighbourTable.Get(); ok {
		for _, p := range t.Parms {
			if p.Index == index {
				return fact.Value(int64(min(pick(p), 1<<62)))
			}
		}
	}
	return s.SysctlInt("net/ipv6/neigh/" + name + "/" + key)
}

func neighbourQueue(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		sub := s.On(l.Name)
		k := s.neighParm(l.Index, l.Name, "unres_qlen_bytes", func(p fact.NeighbourParms) uint64 { return uint64(p.QueueBytes) })
		v, ok := k.Get()
		if !ok {
			if g := gapOf(k); g != nil {
				return []Result{unknown(sub, *g)}
			}
			return []Result{notApplicable(sub, "The kernel has no such limit here.")}
		}
		ev := s.sysctlEvidence("net/ipv6/neigh/"+l.Name+"/unres_qlen_bytes", itoa(v))
		if v > defaultQueueBytes {
			return []Result{fail(sub, fmt.Sprintf("Each unresolved neighbour on %s may hold %d bytes of packets; the kernel's default is %d.", l.Name, v, defaultQueueBytes), ev)}
		}
		return []Result{pass(sub, fmt.Sprintf("At most %d bytes wait for an unresolved neighbour.", v), ev)}
	})
}

func neighbourTimers(c *Context) []Result {
	files, filesKnown := c.Snap.Host.Files.Sysctl.Get()
	boot := bootconf.New(files)
	timers := []struct {
		key  string
		def  int64
		pick func(fact.NeighbourParms) uint64
	}{
		{"base_reachable_time_ms", defaultReachableMs, func(p fact.NeighbourParms) uint64 { return p.BaseReachableMs }},
		{"retrans_time_ms", defaultRetransMs, func(p fact.NeighbourParms) uint64 { return p.RetransMs }},
	}
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		var out []Result
		for _, t := range timers {
			sub := s.On(l.Name)
			sub.Key = t.key
			k := s.neighParm(l.Index, l.Name, t.key, t.pick)
			v, ok := k.Get()
			if !ok {
				if g := gapOf(k); g != nil {
					out = append(out, unknown(sub, *g))
				} else {
					out = append(out, notApplicable(sub, "The kernel has no such timer here."))
				}
				continue
			}
			ev := s.sysctlEvidence("net/ipv6/neigh/"+l.Name+"/"+t.key, itoa(v))
			own := s.neighParm(0, "default", t.key, t.pick)
			o, said := boot.Sysctl("net/ipv6/neigh/" + l.Name + "/" + t.key)
			switch {
			case v == t.def:
				out = append(out, pass(sub, fmt.Sprintf("%s is the kernel's default, %d ms.", t.key, v), ev))
			case own.Or(-1) == v:
				out = append(out, pass(sub, fmt.Sprintf("%s is %d ms, the default of this machine.", t.key, v), ev))
			case said && o.Value == itoa(v):
				out = append(out, pass(sub, fmt.Sprintf("%s is %d ms, as %s says.", t.key, v, o.Setting.Origin.File), ev))
			case !filesKnown && gapOf(c.Snap.Host.Files.Sysctl) != nil:
				out = append(out, unknown(sub, *gapOf(c.Snap.Host.Files.Sysctl)))
			case gapOf(own) != nil:
				out = append(out, unknown(sub, *gapOf(own)))
			default:
				r := fail(sub, fmt.Sprintf("%s of %s is %d ms; the default is %d ms and no boot-time file sets it. An RA that was taken leaves this trace (so does somebody who wrote it by hand).", t.key, l.Name, v, t.def), ev)
				r.Remediation = []finding.Remediation{s.SetNow("net/ipv6/neigh/"+l.Name+"/"+t.key, itoa(t.def))}
				out = append(out, r)
			}
		}
		return out
	})
}
