// Package files reads the configuration files that decide what boot does to the
// network stack: sysctl.d, modprobe.d, modules-load.d, the resolver's files, ufw's
// defaults and the systemd units that matter to IPv6.
//
// Nothing is copied: every file is read key by key from an allow-list, and a value
// that is no number and no short word is not kept. The order in which boot applies
// things is kept; who wins is decided by logic/bootconf.
package files

import (
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Dump is what was read, not yet interpreted.
type Dump struct {
	sysctl      []confd.File // in the order of application
	sysctlBy    string       // who applies them
	sysctlConf  confd.File   // /etc/sysctl.conf, when no fragment leads to it
	sysctlGaps  []fact.Gap
	ufwDefault  confd.File
	ufwConf     confd.File
	ufwSysctl   confd.File
	modprobe    []confd.File
	modulesLoad []confd.File
	hosts       confd.File
	hostname    confd.File
	resolvConf  confd.File
	resolvLink  fact.Known[string]
	resolvLinks []linkFile
	nsswitch    confd.File
	gai         confd.File
	units       *unitDump
	gaps        []fact.Gap
}

// Read reads files below t.
func Read(t *tree.Tree) *Dump {
	d := &Dump{}
	var b confd.Budget
	d.readSysctl(t, &b)
	var g []fact.Gap
	q := confd.Standard("modprobe.d")
	q.DirsHide = false
	d.modprobe, g = b.Gather(t, q)
	d.gaps = append(d.gaps, g...)
	d.modulesLoad, g = b.Gather(t, confd.Standard("modules-load.d"))
	d.gaps = append(d.gaps, g...)
	if i, ok := t.Readlink("/etc/modules-load.d/modules.conf").Get(); !ok || !strings.HasSuffix(i, "/modules") {
		// Debian links it into modules-load.d; where it does not, init reads it (sysvinit, OpenRC).
		d.modulesLoad = append(d.modulesLoad, b.Read(t, "/etc/modules"))
	}
	d.hosts = b.Read(t, "/etc/hosts")
	d.hostname = b.Read(t, "/etc/hostname")
	d.nsswitch = b.Read(t, "/etc/nsswitch.conf")
	d.gai = b.Read(t, "/etc/gai.conf")
	d.readResolver(t, &b)
	d.units = readUnits(t, &b)
	return d
}

// Decode interprets it.
func (d *Dump) Decode(h *fact.Host) {
	f := &h.Files
	f.UFW = d.decodeUFW()
	d.decodeSysctl(f)
	f.Modprobe = d.decodeModprobe()
	f.ModulesLoad = d.decodeModulesLoad()
	f.Hosts = d.decodeHosts(h.Hostname.Or(""))
	f.Resolver = d.decodeResolver()
	f.GaiConf = d.decodeGai()
	f.NSSHosts = d.decodeNSS()
	f.Units = d.units.decode(d)
	f.Gaps = append(f.Gaps, d.gaps...)
}

// gap notes what could not be read or understood.
func (d *Dump) gap(g fact.Gap) {
	if len(d.gaps) < maxGaps {
		d.gaps = append(d.gaps, g)
	}
}

// maxGaps bounds the list of lines that were not understood; what is beyond it
// adds nothing.
const maxGaps = 256

// lost carries the state of a file over to what it would have said.
func lost[T any](f confd.File) fact.Known[T] {
	if g, ok := f.Content.Gap(); ok {
		return fact.Missing[T](g)
	}
	return fact.Absent[T]()
}

// word keeps only what is a short plain token, so that no secret that strayed
// into a file is carried along.
func word(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune("-_.:+@%/*?,[]{}!^\\", rune(c)) {
			return false
		}
	}
	return true
}

// shellAssign takes a NAME=value line of a sourced shell file apart, as far as
// such files use it: no expansion.
func shellAssign(line string) (name, value string, ok bool) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", "", false
	}
	line = strings.TrimPrefix(line, "export ")
	name, value, ok = strings.Cut(line, "=")
	if !ok || strings.ContainsAny(name, " \t") {
		return "", "", false
	}
	switch {
	case value == "":
	case value[0] == '"' || value[0] == '\'':
		end := strings.IndexByte(value[1:], value[0])
		if end < 0 {
			return "", "", false
		}
		value = value[1 : 1+end]
	default:
		value, _, _ = strings.Cut(value, " ")
		value, _, _ = strings.Cut(value, "\t")
	}
	return name, value, true
}
