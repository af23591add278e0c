package files

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// unitDirs are where systemd looks for units, by precedence (systemd.unit(5));
// generated units come between /run and /usr.
var unitDirs = []string{
	"/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator",
	"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
}

// interesting tells whether a unit is of interest. A name with @ covers its
// instances; sockets are looked at whatever their name.
func interesting(name string) bool {
	base, ok := strings.CutSuffix(name, ".service")
	if !ok {
		return strings.HasSuffix(name, ".socket")
	}
	if i := strings.IndexByte(base, '@'); i >= 0 {
		base = base[:i+1]
	}
	return slices.Contains(serviceNames, base)
}

// serviceNames, without ".service".
var serviceNames = []string{
	// firewalls
	"nftables", "ufw", "firewalld", "netfilter-persistent", "iptables", "ip6tables", "shorewall", "shorewall6", "ferm", "foomuuri", "fail2ban",
	// network managers and what sends or takes router advertisements
	"systemd-networkd", "NetworkManager", "dhcpcd", "dhcpcd5", "dhcpcd@", "networking", "network", "connman", "wicked", "netplan-ovs-cleanup", "radvd", "dnsmasq", "frr", "bird", "bird6",
	"systemd-sysctl", "systemd-resolved", "avahi-daemon",
	// tunnels
	"miredo", "miredo-server", "teredo", "aiccu", "gogoc", "gogo6", "tayga", "tayga@", "jool", "openvpn", "openvpn@", "openvpn-client@", "openvpn-server@", "wg-quick@",
	"tailscaled", "zerotier-one", "nebula", "nebula@", "cloudflared", "iodined", "iodine", "xl2tpd", "strongswan", "strongswan-starter", "ipsec", "libreswan",
	// runtimes
	"docker", "containerd", "kubelet", "libvirtd", "virtqemud", "virtnetworkd",
}

type unitFile struct {
	file    confd.File
	masked  bool
	dropins []confd.File
}

type unitDump struct {
	any     bool // a unit directory exists
	units   []unitFile
	enabled map[string]bool // names that a *.wants or *.requires link or an alias leads to
	gaps    []fact.Gap
}

// readUnits reads names and links of all units, and the content of sockets only.
func readUnits(t *tree.Tree, b *confd.Budget) *unitDump {
	d := &unitDump{enabled: map[string]bool{}}
	found := map[string]confd.File{}
	masked := map[string]bool{}
	inUse := map[string]bool{} // instances that something wants
	dropins := map[string]bool{}
	seenDir := map[tree.Info]bool{}
	for _, dir := range unitDirs {
		i, ok := t.Stat(dir).Get()
		if key := (tree.Info{Inode: i.Inode, Dev: i.Dev}); !ok || seenDir[key] {
			continue
		} else {
			seenDir[key] = true
		}
		d.any = true
		k := t.List(dir)
		if g, gap := k.Gap(); gap {
			d.gaps = append(d.gaps, g)
		}
		for _, name := range k.Or(nil) {
			p := dir + "/" + name
			// An alias: a link to a unit of another name enables that one.
			if strings.HasPrefix(dir, "/etc/") {
				if target, ok := t.Readlink(p).Get(); ok {
					if base := path.Base(target); base != name && interesting(base) {
						d.enabled[base] = true
					}
				}
			}
			switch {
			case strings.HasSuffix(name, ".wants"), strings.HasSuffix(name, ".requires"):
				k := t.List(p)
				if g, gap := k.Gap(); gap {
					d.gaps = append(d.gaps, g)
				}
				for _, w := range k.Or(nil) {
					if interesting(w) {
						d.enabled[w] = true
						inUse[w] = true
					}
				}
			case strings.HasSuffix(name, ".socket.d"), name == "socket.d":
				dropins[name] = true
			case interesting(name):
				if _, ok := found[name]; ok || masked[name] {
					continue
				}
				if confd.Masked(t, p) {
					masked[name] = true
					found[name] = confd.File{Name: name, Path: p, Content: fact.Absent[[]byte]()}
					continue
				}
				found[name] = confd.File{Name: name, Path: p}
			}
			if len(found) > confd.MaxFiles {
				d.gaps = append(d.gaps, fact.Gap{Reason: fact.Truncated, What: dir + " has too many units"})
				return d
			}
		}
	}
	// Instances exist by their links only.
	for name := range inUse {
		if _, ok := found[name]; ok {
			continue
		}
		if at := strings.IndexByte(name, '@'); at >= 0 {
			template := name[:at+1] + name[strings.LastIndexByte(name, '.'):]
			if f, ok := found[template]; ok {
				found[name] = confd.File{Name: name, Path: f.Path}
			}
		}
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		u := unitFile{file: found[name], masked: masked[name]}
		if strings.HasSuffix(name, ".socket") && !u.masked {
			p := u.file.Path
			u.file = b.Read(t, p)
			u.file.Name = name
			// An empty unit file is a masked one.
			if c, ok := u.file.Content.Get(); ok && len(c) == 0 {
				u.masked = true
			}
			u.dropins = readDropins(t, b, name, dropins, &d.gaps)
		} else if i, ok := t.Stat(u.file.Path).Get(); ok && i.Size == 0 && !i.IsDir() {
			u.masked = true
		}
		d.units = append(d.units, u)
	}
	return d
}

// readDropins reads X.socket.d/*.conf of a unit, of its template, and socket.d.
func readDropins(t *tree.Tree, b *confd.Budget, name string, present map[string]bool, gaps *[]fact.Gap) []confd.File {
	var dirs []string
	for _, n := range []string{name + ".d", "socket.d"} {
		if !present[n] {
			continue
		}
		for _, dir := range unitDirs {
			dirs = append(dirs, dir+"/"+n)
		}
	}
	if at := strings.IndexByte(name, '@'); at >= 0 {
		if n := name[:at+1] + ".socket.d"; present[n] {
			for _, dir := range unitDirs {
				dirs = append(dirs, dir+"/"+n)
			}
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	files, g := b.Gather(t, confd.Query{Dirs: dirs, Suffix: ".conf"})
	*gaps = append(*gaps, g...)
	return files
}

// decode lists the units; sockets only when they listen on a port.
func (u *unitDump) decode(d *Dump) fact.Known[[]fact.Unit] {
	if u == nil || !u.any {
		return fact.Absent[[]fact.Unit]()
	}
	for _, g := range u.gaps {
		d.gap(g)
	}
	out := []fact.Unit{}
	for _, f := range u.units {
		unit := fact.Unit{Name: bounded(f.file.Name, 256), Path: f.file.Path, Enabled: u.enabled[f.file.Name] && !f.masked, Masked: f.masked, Origin: fact.Origin{File: f.file.Path}}
		if strings.HasSuffix(f.file.Name, ".socket") && !f.masked {
			if g, gap := f.file.Content.Gap(); gap {
				d.gap(g)
			}
			for _, g := range confd.Gaps(f.dropins) {
				d.gap(g)
			}
			unit.Listen, unit.BindIPv6Only = sockets(append([]confd.File{f.file}, f.dropins...))
			if len(unit.Listen) == 0 {
				continue
			}
		} else if strings.HasSuffix(f.file.Name, ".socket") && !u.enabled[f.file.Name] {
			continue
		}
		out = append(out, unit)
	}
	return fact.Value(out)
}

// sockets reads the [Socket] sections of a unit and its drop-ins: the ports it
// listens on and how.
func sockets(files []confd.File) (listen []string, bind string) {
	for _, f := range files {
		b, _ := f.Content.Get()
		section := ""
		for _, l := range confd.Lines(b, true) {
			s := strings.TrimSpace(l.Text)
			if s == "" || s[0] == '#' || s[0] == ';' {
				continue
			}
			if s[0] == '[' {
				section = s
				continue
			}
			key, value, ok := strings.Cut(s, "=")
			if !ok || section != "[Socket]" {
				continue
			}
			key, value = strings.TrimSpace(key), strings.TrimSpace(value)
			switch key {
			case "ListenStream", "ListenDatagram":
				if value == "" {
					listen = nil // an empty assignment resets every Listen list
				} else if len(listen) < 256 && isPort(value) {
					listen = append(listen, key[len("Listen"):]+" "+value)
				}
			case "ListenSequentialPacket", "ListenFIFO", "ListenNetlink", "ListenSpecial", "ListenMessageQueue", "ListenUSBFunction":
				if value == "" {
					listen = nil
				}
			case "BindIPv6Only":
				if value == "default" || value == "both" || value == "ipv6-only" || value == "" {
					bind = value
				}
			}
		}
	}
	return listen, bind
}

// isPort tells whether a Listen address is a port, with or without an address: no
// path, no abstract name, no vsock.
func isPort(s string) bool {
	if len(s) > 128 || s[0] == '/' || s[0] == '@' || strings.HasPrefix(s, "vsock:") {
		return false
	}
	s, _, _ = strings.Cut(s, "%")
	port := s[strings.LastIndexByte(s, ':')+1:]
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil
}
