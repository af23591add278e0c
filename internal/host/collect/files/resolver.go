package files

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// maxLinks bounds the per-link files below /run/systemd that are read.
const maxLinks = 4096

type linkFile struct {
	index int
	file  confd.File
}

// readResolver reads resolv.conf and what networkd and resolved say per link.
func (d *Dump) readResolver(t *tree.Tree, b *confd.Budget) {
	d.resolvConf = b.Read(t, "/etc/resolv.conf")
	d.resolvLink = t.Readlink("/etc/resolv.conf")
	for _, dir := range []string{"/run/systemd/netif/links", "/run/systemd/resolve/netif"} {
		k := t.List(dir)
		if g, gap := k.Gap(); gap {
			d.gap(g)
		}
		for _, name := range k.Or(nil) {
			index, err := strconv.Atoi(name)
			if err != nil || index <= 0 {
				continue
			}
			if len(d.resolvLinks) >= maxLinks {
				d.gap(fact.Gap{Reason: fact.Truncated, What: dir + " has too many entries"})
				return
			}
			f := b.Read(t, dir+"/"+name)
			if g, gap := f.Content.Gap(); gap {
				d.gap(g)
			}
			d.resolvLinks = append(d.resolvLinks, linkFile{index, f})
		}
	}
	if _, ok := t.Stat("/run/systemd/resolve/resolv.conf").Get(); ok {
		d.resolvLinks = append(d.resolvLinks, linkFile{0, b.Read(t, "/run/systemd/resolve/resolv.conf")})
	}
}

func (d *Dump) decodeResolver() fact.Known[fact.Resolver] {
	b, ok := d.resolvConf.Content.Get()
	target := d.resolvLink.Or("")
	if !ok && len(d.resolvLinks) == 0 && target == "" {
		return lost[fact.Resolver](d.resolvConf)
	}
	if g, gap := d.resolvConf.Content.Gap(); gap {
		d.gap(g)
	}
	r := fact.Resolver{Target: bounded(target, 512), Nameservers: nameservers(b)}
	for _, l := range d.resolvLinks {
		c, ok := l.file.Content.Get()
		if !ok {
			continue
		}
		var servers []string
		if l.index == 0 {
			servers = nameservers(c)
		} else {
			for _, line := range confd.Lines(c, false) {
				key, value, _ := strings.Cut(line.Text, "=")
				if key == "DNS" || key == "SERVERS" {
					for _, s := range strings.Fields(value) {
						if a, ok := serverAddr(s); ok && len(servers) < 64 {
							servers = append(servers, a)
						}
					}
				}
			}
		}
		if len(servers) > 0 {
			r.Links = append(r.Links, fact.ResolverLink{Index: l.index, Servers: servers, Source: l.file.Path})
		}
	}
	return fact.Value(r)
}

// nameservers reads the nameserver lines of resolv.conf(5).
func nameservers(b []byte) []string {
	var out []string
	for _, l := range confd.Lines(b, false) {
		f := strings.Fields(l.Text)
		if len(f) >= 2 && f[0] == "nameserver" && len(out) < 64 {
			if a, ok := serverAddr(f[1]); ok {
				out = append(out, a)
			}
		}
	}
	return out
}

// serverAddr takes the address out of systemd's "address[:port][%if][#name]".
func serverAddr(s string) (string, bool) {
	s, _, _ = strings.Cut(s, "#")
	if len(s) > 128 {
		return "", false
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return a.String(), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().String(), true
	}
	// [address]:port%ifname
	if host, zone, ok := strings.Cut(s, "%"); ok {
		if ap, err := netip.ParseAddrPort(host); err == nil && word(zone) {
			return ap.Addr().String() + "%" + zone, true
		}
	}
	return "", false
}

// localNames are the names whose address decides what "localhost" means.
var localNames = []string{"localhost", "localhost.localdomain", "localhost4", "localhost6", "localhost4.localdomain4", "localhost6.localdomain6", "ip6-localhost", "ip6-loopback"}

// decodeHosts keeps the lines that name localhost or this host, and of their
// names only those.
func (d *Dump) decodeHosts(hostname string) fact.Known[[]fact.HostsEntry] {
	b, ok := d.hosts.Content.Get()
	if !ok {
		return lost[[]fact.HostsEntry](d.hosts)
	}
	own := map[string]bool{}
	file, _ := d.hostname.Content.Get()
	for _, l := range append(confd.Lines(file, false), confd.Line{Text: hostname}) {
		if n := strings.ToLower(strings.TrimSpace(l.Text)); n != "" && n[0] != '#' && word(n) {
			own[n] = true
			short, _, _ := strings.Cut(n, ".")
			own[short] = true
		}
	}
	out := []fact.HostsEntry{}
	for _, l := range confd.Lines(b, false) {
		text, _, _ := strings.Cut(l.Text, "#")
		f := strings.Fields(text)
		if len(f) < 2 {
			continue
		}
		if len(out) >= 1024 {
			d.gap(fact.Gap{Reason: fact.Truncated, What: d.hosts.Path + " names this host too often"})
			break
		}
		var names []string
		for _, n := range f[1:] {
			low := strings.ToLower(n)
			short, _, _ := strings.Cut(low, ".")
			if slices.Contains(localNames, low) || own[low] || own[short] && word(low) {
				names = append(names, low)
			}
		}
		if len(names) == 0 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			d.gap(confd.ParseGap(d.hosts.Path, l.Number))
			continue
		}
		out = append(out, fact.HostsEntry{Address: a.String(), Names: names, Origin: fact.Origin{File: d.hosts.Path, Line: l.Number}})
	}
	return fact.Value(out)
}

// decodeGai tells whether gai.conf changes the sorting of RFC 6724.
func (d *Dump) decodeGai() fact.Known[bool] {
	b, ok := d.gai.Content.Get()
	if !ok {
		return lost[bool](d.gai)
	}
	for _, l := range confd.Lines(b, false) {
		text, _, _ := strings.Cut(l.Text, "#")
		if f := strings.Fields(text); len(f) > 0 && (f[0] == "precedence" || f[0] == "label" || f[0] == "scopev4") {
			return fact.Value(true)
		}
	}
	return fact.Value(false)
}

// decodeNSS keeps the services of the hosts: line, actions in brackets included.
func (d *Dump) decodeNSS() fact.Known[[]string] {
	b, ok := d.nsswitch.Content.Get()
	if !ok {
		return lost[[]string](d.nsswitch)
	}
	for _, l := range confd.Lines(b, false) {
		text, _, _ := strings.Cut(l.Text, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(text), "hosts:")
		if !ok {
			continue
		}
		out := []string{}
		for _, s := range strings.Fields(rest) {
			if len(s) <= 64 && len(out) < 32 {
				out = append(out, strings.ToValidUTF8(s, "?"))
			}
		}
		return fact.Value(out)
	}
	return fact.Absent[[]string]()
}

func bounded(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}
