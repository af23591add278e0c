package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// Addressing words, as in the intent file.
const (
	addrStatic = "static"
	addrSLAAC  = "slaac"
	addrDHCPv6 = "dhcpv6"
	addrNone   = "none"
)

// primary is the namespace the role is about.
func (c *Context) primary() *Space {
	home := c.Snap.Home()
	for _, s := range c.spaces {
		if s.Namespace == home {
			return s
		}
	}
	return nil
}

// routerDaemons are programs that only a router runs.
var routerDaemons = []string{"radvd", "corerad", "bird", "bird6", "zebra", "bgpd", "ospf6d", "isisd", "babeld", "holod"}

// inferRole guesses what the host is for, and says why. Forwarding by itself
// says nothing: a host that forwards by mistake would excuse itself. Only
// programs from system directories in the host's own namespace count, because
// any user can name a program radvd.
func inferRole(c *Context, named string) finding.Role {
	r := finding.Role{Name: named, Addressing: map[string]string{}}
	p := c.primary()
	if p != nil {
		for i := range p.links {
			if l := &p.links[i]; l.Flags&iffLoopback == 0 {
				if a := p.Addressing(l); a != addrNone {
					r.Addressing[l.Name] = a
				}
			}
		}
	}
	if named != "" {
		r.Because = []string{"given with --role"}
		return r
	}
	r.Inferred = true
	because := func(role, f string, a ...any) {
		if r.Name == "" {
			r.Name = role
		}
		why := fmt.Sprintf(f, a...)
		if r.Name == role && !slices.Contains(r.Because, why) {
			r.Because = append(r.Because, why)
		}
	}
	h := &c.Snap.Host
	if k, ok := h.Runtimes.Kubelet.Get(); ok && (k.Running || k.Pods > 0) {
		if k.Running {
			because(RoleKubeNode, "a kubelet runs here")
		}
		if k.Pods > 0 {
			because(RoleKubeNode, "there are %d pod cgroups", k.Pods)
		}
	}
	if l, ok := h.Runtimes.Libvirt.Get(); ok && l.Guests > 0 {
		because(RoleHypervisor, "libvirt runs %d guests", l.Guests)
	}
	ps, _ := h.Processes.Get()
	for i := range ps {
		exe, _ := ps[i].Exe.Get()
		base := exe[strings.LastIndexByte(exe, '/')+1:]
		if slices.Contains(routerDaemons, base) && c.systemProcess(&ps[i]) {
			because(RoleRouter, "%s is running", base)
		}
	}
	if r.Name == "" {
		r.Name = RoleServer
		r.Because = []string{"nothing says that this host routes, runs pods or guests"}
	}
	return r
}

// systemProcess tells whether a process is one of the host's own programs:
// installed where users cannot write, in the primary namespace, with our root.
func (c *Context) systemProcess(p *fact.Process) bool {
	exe, ok := p.Exe.Get()
	if !ok || p.Root || p.Container != "" {
		return false
	}
	if ns, ok := p.NetNS.Get(); ok && c.primary() != nil && ns != c.primary().ID {
		return false
	}
	for _, dir := range []string{"/usr/", "/sbin/", "/bin/", "/lib/", "/opt/"} {
		if strings.HasPrefix(exe, dir) {
			return true
		}
	}
	return false
}

// Addressing tells how an interface gets its global IPv6 addresses, from the
// addresses it has now. A permanent one wins: an interface with a static address
// that also has a dynamic one is static, and the dynamic one is a finding.
func (s *Space) Addressing(l *fact.Link) string {
	out := addrNone
	for _, a := range s.Addrs(l.Index, "ipv6") {
		ip := a.Prefix.Addr()
		if !ip.IsGlobalUnicast() || a.Flags&fact.AddrTemporary != 0 {
			continue
		}
		switch {
		case a.Flags&fact.AddrPermanent != 0 && a.Valid == fact.Forever:
			return addrStatic
		case a.Prefix.Bits() == 128 && a.Protocol != 2:
			out = addrDHCPv6
		case out == addrNone:
			out = addrSLAAC
		}
	}
	return out
}
