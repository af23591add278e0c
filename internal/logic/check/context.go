package check

import (
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// Role names, as in the intent file.
const (
	RoleServer      = "server"
	RoleRouter      = "router"
	RoleKubeNode    = "kubernetes-node"
	RoleHypervisor  = "hypervisor"
	RoleWorkstation = "workstation"
)

// Roles lists the valid role names.
func Roles() []string {
	return []string{RoleServer, RoleRouter, RoleKubeNode, RoleHypervisor, RoleWorkstation}
}

// Context is what a control may look at: the Snapshot, indexed, and the role.
type Context struct {
	Snap *fact.Snapshot
	Role finding.Role
	Now  time.Time // when the Snapshot was taken

	spaces []*Space
	procs  map[int]*fact.Process
}

// Space is a network namespace with the indexes controls need.
type Space struct {
	*fact.Namespace
	ctx     *Context
	links   []fact.Link
	byIndex map[int]*fact.Link
	inbound map[string]inboundFilter
	heard   *ears      // listening() fills it
	rules   *reachable // reach() fills it
	// Filled on first use, because each is one pass over a list that may be long.
	byIf   map[int]*ifIndex
	global *ifIndex
	ra     map[int]raState

	forwarding *fact.Known[bool] // forwards() fills it
}

// ifIndex is what the address and route lists say about one interface.
type ifIndex struct {
	addrs    []fact.Address
	defaults []*fact.Route // IPv6 default routes
	learned  []*fact.Route // IPv6 routes with protocol ra
	prefixes []*fact.Route // on-link prefixes that no address accounts for: an RA declared them
	redirect bool          // an IPv6 route through a link-local router leads out here
}

// index reads the address and route lists once.
func (s *Space) index() {
	if s.byIf != nil {
		return
	}
	s.byIf, s.global = map[int]*ifIndex{}, &ifIndex{}
	at := func(i int) *ifIndex {
		if s.byIf[i] == nil {
			s.byIf[i] = &ifIndex{}
		}
		return s.byIf[i]
	}
	addrs, _ := s.Addresses.Get()
	for _, a := range addrs {
		x := at(a.Index)
		x.addrs = append(x.addrs, a)
	}
	routes, _ := s.Routes.Get()
	tables := s.commonTables()
	for i := range routes {
		r := &routes[i]
		if r.Family != "ipv6" || r.Type != rtnUnicast {
			continue
		}
		usual := r.Protocol == fact.ProtoRA || slices.Contains(tables, r.Table) || slices.ContainsFunc(r.NextHops, func(h fact.NextHop) bool {
			l := s.byIndex[h.Index]
			return l != nil && l.SlaveKind == "vrf"
		})
		s.global.note(r, r.NextHops, usual)
		for j := range r.NextHops {
			x := at(r.NextHops[j].Index)
			x.note(r, r.NextHops[j:j+1], usual)
			if _, known := s.Addresses.Get(); known && len(r.NextHops) == 1 && x.declared(r) {
				x.prefixes = append(x.prefixes, r)
			}
		}
	}
}

// commonTables are the routing tables that every packet may be looked up in: those
// of rules without a condition, or main where the rules could not be read. A
// default route anywhere else serves a part of the traffic.
func (s *Space) commonTables() []uint32 {
	rules, ok := s.Rules.Get()
	if !ok {
		return []uint32{tableMain}
	}
	var out []uint32
	for _, r := range rules {
		if r.Family == "ipv6" && r.Action == frActToTable && r.Src.Bits() <= 0 && r.Dst.Bits() <= 0 && r.IIF == "" && r.OIF == "" && r.Mark == 0 && r.Mask == 0 && !r.Invert && len(r.Conditions) == 0 {
			out = append(out, r.Table)
		}
	}
	return out
}

// RT_TABLE_MAIN and FR_ACT_TO_TBL.
const (
	tableMain    = 254
	frActToTable = 1
)

// declared tells whether a prefix is on-link because a router advertisement said
// so: the kernel's own prefix routes belong to an address, those of a prefix
// option without autoconfiguration (addrconf_prefix_rcv) do not.
func (x *ifIndex) declared(r *fact.Route) bool {
	d := r.Dst
	if r.Protocol != fact.ProtoKernel || r.Table != tableMain || d.Bits() == 0 || !d.Addr().IsGlobalUnicast() || r.NextHops[0].Via.IsValid() {
		return false
	}
	return !slices.ContainsFunc(x.addrs, func(a fact.Address) bool { return d.Contains(a.Prefix.Addr()) || d.Contains(a.Peer) })
}

// rtnUnicast is RTN_UNICAST: a route that leads somewhere.
const rtnUnicast = 1

func (x *ifIndex) note(r *fact.Route, hops []fact.NextHop, usual bool) {
	if usual && r.Dst.Bits() == 0 && (!r.Src.IsValid() || r.Src.Bits() == 0) {
		x.defaults = append(x.defaults, r)
	}
	if r.Protocol == fact.ProtoRA {
		x.learned = append(x.learned, r)
	}
	for _, h := range hops {
		// Redirects come from link-local addresses only (ndisc_redirect_rcv).
		x.redirect = x.redirect || h.Via.IsLinkLocalUnicast()
	}
}

// on is the index of one interface; never nil.
func (s *Space) on(ifindex int) *ifIndex {
	s.index()
	if x := s.byIf[ifindex]; x != nil {
		return x
	}
	return &ifIndex{}
}

// anywhere is the index of all interfaces together.
func (s *Space) anywhere() *ifIndex {
	s.index()
	return s.global
}

// NewContext indexes a Snapshot. Role is inferred when role is empty.
func NewContext(s *fact.Snapshot, role string) *Context {
	c := &Context{Snap: s, Now: s.Host.CollectedAt, procs: map[int]*fact.Process{}}
	if ps, ok := s.Host.Processes.Get(); ok {
		for i := range ps {
			c.procs[ps[i].PID] = &ps[i]
		}
	}
	for i := range s.Namespaces {
		sp := &Space{Namespace: &s.Namespaces[i], ctx: c, byIndex: map[int]*fact.Link{}}
		sp.links, _ = sp.Namespace.Links.Get()
		for j := range sp.links {
			sp.byIndex[sp.links[j].Index] = &sp.links[j]
		}
		c.spaces = append(c.spaces, sp)
	}
	c.Role = inferRole(c, role)
	return c
}

// Spaces are the network namespaces: the initial (or our own) first.
func (c *Context) Spaces() []*Space { return c.spaces }

// Process returns the process with this pid, or nil.
func (c *Context) Process(pid int) *fact.Process { return c.procs[pid] }

// IsRouter tells whether the role forwards packets by purpose.
func (c *Context) IsRouter() bool {
	switch c.Role.Name {
	case RoleRouter, RoleKubeNode, RoleHypervisor:
		return true
	}
	return false
}

// Link returns the interface with this index, or nil.
func (s *Space) Link(index int) *fact.Link { return s.byIndex[index] }

// IfName is the interface's name, or "" when the index is unknown.
func (s *Space) IfName(index int) string {
	if l := s.byIndex[index]; l != nil {
		return l.Name
	}
	return ""
}

// Sysctl returns a setting below /proc/sys, e.g. "net/ipv6/conf/all/forwarding".
func (s *Space) Sysctl(path string) fact.Known[string] {
	t, ok := s.Sysctls.Get()
	if !ok {
		switch s.Sysctls.State() {
		case fact.StateUnsupported, fact.StateAbsent:
			return fact.Unsupported[string]()
		}
		g, _ := s.Sysctls.Gap()
		if g.What == "" {
			g.What = "/proc/sys/net of netns " + s.Name
		}
		return fact.Missing[string](g)
	}
	return t.Get(path)
}

// Conf returns net.ipv6.conf.IF.KEY, from /proc/sys or, when that could not be
// read, from IFLA_INET6_CONF. ifname may be "all" or "default".
func (s *Space) Conf(ifname, key string) fact.Known[string] {
	k := s.Sysctl("net/ipv6/conf/" + ifname + "/" + key)
	if _, gap := k.Gap(); !gap {
		return k
	}
	for i := range s.links {
		if s.links[i].Name != ifname {
			continue
		}
		m, ok := s.links[i].Inet6.Get()
		if !ok {
			continue
		}
		if v, ok := m[key]; ok {
			return fact.Value(itoa(int64(v)))
		}
	}
	return k
}

// ConfInt is Conf as a number. Text that is no number is a Gap.
func (s *Space) ConfInt(ifname, key string) fact.Known[int64] {
	return number(s.Conf(ifname, key), "net.ipv6.conf."+ifname+"."+key)
}

// SysctlInt is Sysctl as a number.
func (s *Space) SysctlInt(p string) fact.Known[int64] { return number(s.Sysctl(p), "/proc/sys/"+p) }

// Subject starts a subject in this namespace.
func (s *Space) Subject() finding.Subject { return finding.Subject{NetNS: s.Name} }

// On starts a subject for an interface of this namespace.
func (s *Space) On(ifname string) finding.Subject {
	return finding.Subject{NetNS: s.Name, Interface: ifname}
}

// At is the evidence time of live facts.
func (c *Context) At() string {
	if c.Now.IsZero() {
		return ""
	}
	return c.Now.UTC().Format(time.RFC3339)
}

// confEvidence is net.ipv6.conf.IF.KEY as evidence, from where Conf had it.
func (s *Space) confEvidence(ifname, key string) finding.Evidence {
	p := "net/ipv6/conf/" + ifname + "/" + key
	v, ok := s.Conf(ifname, key).Get()
	if !ok {
		v = s.Conf(ifname, key).State().String()
	}
	e := s.sysctlEvidence(p, v)
	if _, ok := s.Sysctl(p).Get(); !ok {
		e.Source = "IFLA_INET6_CONF of " + ifname
	}
	return e
}

// Sysctl evidence for a key below /proc/sys.
func (s *Space) sysctlEvidence(p, value string) finding.Evidence {
	return finding.Evidence{Source: "/proc/sys/" + p, Key: strings.ReplaceAll(path.Base(p), "/", "."), Value: value, At: s.ctx.At()}
}

// Addrs returns the addresses of an interface (0 = all) of one family ("" = both).
func (s *Space) Addrs(index int, family string) []fact.Address {
	all, _ := s.Addresses.Get()
	if index != 0 {
		all = s.on(index).addrs
	}
	var out []fact.Address
	for _, a := range all {
		if family != "" && family != FamilyOf(a.Prefix.Addr()) {
			continue
		}
		out = append(out, a)
	}
	return out
}

// FamilyOf is "ipv4" or "ipv6".
func FamilyOf(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}
