package manager

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// runtimes are the files and cgroups of container and virtualisation runtimes.
type runtimes struct {
	docker     confd.File
	libvirt    []confd.File
	libvirtDir bool
	kubelet    confd.File
	kubeDir    bool
	proxy      confd.File

	containers, guests, pods int
	running                  map[string]bool
	gaps                     []fact.Gap
}

func readRuntimes(t *tree.Tree, b *confd.Budget, running []Process) *runtimes {
	r := &runtimes{running: map[string]bool{}}
	for _, p := range running {
		r.running[p.Name] = true
	}
	r.docker = b.Read(t, "/etc/docker/daemon.json")
	_, r.libvirtDir = t.Stat("/etc/libvirt").Get()
	var gaps []fact.Gap
	r.libvirt, gaps = b.Gather(t, confd.Query{Dirs: []string{"/etc/libvirt/qemu/networks"}, Suffix: ".xml"})
	r.gaps = append(r.gaps, gaps...)
	r.kubelet = b.Read(t, "/var/lib/kubelet/config.yaml")
	if r.kubelet.Content.State() == fact.StateAbsent {
		r.kubelet = b.Read(t, "/etc/kubernetes/kubelet/kubelet-config.json")
	}
	_, r.kubeDir = t.Stat("/etc/kubernetes").Get()
	r.proxy = b.Read(t, "/var/lib/kube-proxy/config.conf")
	if t.Live() {
		r.cgroups(t)
	}
	return r
}

// cgroups counts containers, guests and pods by the names of their cgroups, on
// the unified hierarchy and on the oldest of the split ones.
func (r *runtimes) cgroups(t *tree.Tree) {
	for _, base := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/pids"} {
		list := func(p string) []string {
			k := t.List(base + p)
			if g, ok := k.Gap(); ok {
				r.gaps = append(r.gaps, g)
			}
			return k.Or(nil)
		}
		containers, guests, pods := 0, 0, 0
		for _, n := range list("/system.slice") {
			if strings.HasPrefix(n, "docker-") && strings.HasSuffix(n, ".scope") {
				containers++
			}
		}
		for _, n := range list("/docker") {
			if len(n) == 64 {
				containers++
			}
		}
		for _, n := range list("/machine.slice") {
			if strings.HasPrefix(n, `machine-qemu`) && strings.HasSuffix(n, ".scope") {
				guests++
			}
		}
		for _, top := range []string{"/kubepods", "/kubepods.slice"} {
			dirs := []string{top}
			for _, n := range list(top) {
				if strings.Contains(n, "besteffort") || strings.Contains(n, "burstable") {
					dirs = append(dirs, top+"/"+n)
				}
			}
			for _, d := range dirs {
				for _, n := range list(d) {
					if strings.HasPrefix(n, "pod") || strings.Contains(n, "-pod") {
						pods++
					}
				}
			}
		}
		r.containers, r.guests, r.pods = max(r.containers, containers), max(r.guests, guests), max(r.pods, pods)
	}
}

func (r *runtimes) decode(h *fact.Host) {
	h.Runtimes.Docker = r.decodeDocker()
	h.Runtimes.Libvirt = r.decodeLibvirt()
	h.Runtimes.Kubelet = r.decodeKubelet()
	h.Runtimes.Gaps = append(h.Runtimes.Gaps, r.gaps...)
}

// decodeDocker reads three keys of daemon.json. It may hold registry
// credentials and proxy passwords: the rest is skipped by the decoder.
func (r *runtimes) decodeDocker() fact.Known[fact.Docker] {
	running := r.running["dockerd"]
	b, ok := r.docker.Content.Get()
	g, gap := r.docker.Content.Gap()
	if !ok && !gap && !running && r.containers == 0 {
		return fact.Absent[fact.Docker]()
	}
	d := fact.Docker{Running: running, Containers: r.containers, Origin: fact.Origin{File: r.docker.Path}, IPv6: fact.Absent[bool](), IP6Tables: fact.Absent[bool](), UserlandProxy: fact.Absent[bool](), FixedCIDRv6: fact.Absent[netip.Prefix]()}
	var doc struct {
		IPv6          *bool   `json:"ipv6"`
		IP6Tables     *bool   `json:"ip6tables"`
		UserlandProxy *bool   `json:"userland-proxy"`
		FixedCIDRv6   *string `json:"fixed-cidr-v6"`
	}
	if ok {
		if err := json.Unmarshal(b, &doc); err != nil {
			g, gap = fact.Gap{Reason: fact.ParseGap, What: r.docker.Path}, true
		}
	}
	if gap {
		d.IPv6, d.IP6Tables, d.UserlandProxy, d.FixedCIDRv6 = fact.Missing[bool](g), fact.Missing[bool](g), fact.Missing[bool](g), fact.Missing[netip.Prefix](g)
		return fact.Value(d)
	}
	set := func(to *fact.Known[bool], v *bool) {
		if v != nil {
			*to = fact.Value(*v)
		}
	}
	set(&d.IPv6, doc.IPv6)
	set(&d.IP6Tables, doc.IP6Tables)
	set(&d.UserlandProxy, doc.UserlandProxy)
	if doc.FixedCIDRv6 != nil {
		if p, err := netip.ParsePrefix(*doc.FixedCIDRv6); err == nil {
			d.FixedCIDRv6 = fact.Value(p)
		} else {
			d.FixedCIDRv6 = fact.Missing[netip.Prefix](fact.Gap{Reason: fact.ParseGap, What: r.docker.Path + ": fixed-cidr-v6"})
		}
	}
	return fact.Value(d)
}

// decodeLibvirt lists the networks that give IPv6 to guests.
func (r *runtimes) decodeLibvirt() fact.Known[fact.Libvirt] {
	running := r.running["libvirtd"] || r.running["virtqemud"] || r.running["virtnetworkd"]
	if !r.libvirtDir && !running && r.guests == 0 {
		return fact.Absent[fact.Libvirt]()
	}
	l := fact.Libvirt{Running: running, Guests: r.guests}
	for _, f := range r.libvirt {
		b, ok := f.Content.Get()
		if g, gap := f.Content.Gap(); gap {
			r.gaps = append(r.gaps, g)
		}
		if !ok {
			continue
		}
		name, v6, err := libvirtNetwork(b)
		if err != nil {
			r.gaps = append(r.gaps, fact.Gap{Reason: fact.ParseGap, What: f.Path})
		} else if v6 {
			l.Networks = append(l.Networks, name)
		}
	}
	return fact.Value(l)
}

// libvirtNetwork reads the name and whether there is an <ip family='ipv6'>, or
// ipv6='yes' on the network itself.
func libvirtNetwork(b []byte) (name string, v6 bool, err error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	var stack []string
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			if len(name) > 128 {
				name = name[:128]
			}
			return strings.ToValidUTF8(strings.TrimSpace(name), "?"), v6, nil
		}
		if err != nil {
			return "", false, fmt.Errorf("read network: %w", err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if len(stack) > 64 {
				return "", false, errors.New("read network: nested too deep")
			}
			stack = append(stack, t.Name.Local)
			for _, a := range t.Attr {
				if len(stack) == 2 && t.Name.Local == "ip" && a.Name.Local == "family" && a.Value == "ipv6" ||
					len(stack) == 1 && t.Name.Local == "network" && a.Name.Local == "ipv6" && a.Value == "yes" {
					v6 = true
				}
			}
		case xml.EndElement:
			if len(stack) > 0 {
				stack = stack[:len(stack)-1]
			}
		case xml.CharData:
			if slices.Equal(stack, []string{"network", "name"}) && len(name) < 256 {
				name += string(t)
			}
		}
	}
}

// decodeKubelet reads the node's own settings; kubeconfig files, which hold keys,
// are never opened.
func (r *runtimes) decodeKubelet() fact.Known[fact.Kubelet] {
	running := r.running["kubelet"]
	b, ok := r.kubelet.Content.Get()
	g, gap := r.kubelet.Content.Gap()
	if !ok && !gap && !running && !r.kubeDir && r.pods == 0 {
		return fact.Absent[fact.Kubelet]()
	}
	k := fact.Kubelet{Running: running, Pods: r.pods, Origin: fact.Origin{File: r.kubelet.Path}}
	if gap {
		r.gaps = append(r.gaps, g)
	}
	var doc struct {
		Address string `yaml:"address"`
	}
	if ok {
		if !decodeYAML(b, &doc) {
			r.gaps = append(r.gaps, fact.Gap{Reason: fact.ParseGap, What: r.kubelet.Path})
		}
		k.BindAddress = fact.Absent[netip.Addr]()
		if a, err := netip.ParseAddr(doc.Address); err == nil {
			k.BindAddress = fact.Value(a)
		}
	}
	var proxy struct {
		Mode string `yaml:"mode"`
	}
	if b, ok := r.proxy.Content.Get(); ok {
		if !decodeYAML(b, &proxy) {
			r.gaps = append(r.gaps, fact.Gap{Reason: fact.ParseGap, What: r.proxy.Path})
		}
		if slices.Contains([]string{"iptables", "ipvs", "nftables", "userspace"}, proxy.Mode) {
			k.ProxyMode = proxy.Mode
		}
	}
	return fact.Value(k)
}

// decodeYAML decodes a bounded document without aliases into allow-listed fields.
func decodeYAML(b []byte, to any) (ok bool) {
	if len(b) > maxYAML || !shallow(b) || hasAlias(b) {
		return false
	}
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return yaml.Unmarshal(b, to) == nil
}
