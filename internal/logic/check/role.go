package check

import (
	"fmt"
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

// primary is the namespace the role is about: the initial one, or our own when
// the host's is out of sight.
func (c *Context) primary() *Space {
	for _, s := range c.spaces {
		if s.IsSelf {
			return s
		}
	}
	for _, s := range c.spaces {
		if s.IsInit {
			return s
		}
	}
	if len(c.spaces) > 0 {
		return c.spaces[0]
	}
	return nil
}

// inferRole guesses what the host is for, and says why. A role never turns a
// fail into a pass by itself: controls use it to choose severity and advice.
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
		if r.Name == role {
			r.Because = append(r.Because, fmt.Sprintf(f, a...))
		}
	}
	h := &c.Snap.Host
	if k, ok := h.Runtimes.Kubelet.Get(); ok && (k.Running || k.Pods > 0) {
		because(RoleKubeNode, "a kubelet runs here or pods exist (%d pod cgroups)", k.Pods)
	}
	if l, ok := h.Runtimes.Libvirt.Get(); ok && (l.Guests > 0 || l.Running) {
		because(RoleHypervisor, "libvirt runs here (%d guests)", l.Guests)
	}
	ps, _ := h.Processes.Get()
	for i := range ps {
		exe, _ := ps[i].Exe.Get()
		base := exe[strings.LastIndexByte(exe, '/')+1:]
		switch base {
		case "radvd", "bird", "bird6", "zebra", "frr", "bgpd", "ospf6d", "corerad":
			because(RoleRouter, "%s is running", base)
		}
	}
	if p != nil {
		docker, hasDocker := h.Runtimes.Docker.Get()
		if v, ok := p.SysctlInt("net/ipv6/conf/all/forwarding").Get(); ok && v == 1 && !(hasDocker && docker.Running) {
			because(RoleRouter, "net.ipv6.conf.all.forwarding is 1 and no container runtime explains it")
		}
	}
	if r.Name == "" {
		r.Name = RoleServer
		r.Because = []string{"nothing says that this host routes, runs pods or guests"}
	}
	return r
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
