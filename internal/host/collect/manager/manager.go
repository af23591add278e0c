// Package manager reads what the network managers of a host are told to do about
// IPv6: who takes router advertisements, who asks for DHCPv6, who sends
// advertisements, on which interfaces.
//
// Managers decide in userspace what the kernel's accept_ra=0 seems to forbid, so
// the audit cannot do without them. Their files hold keys of WireGuard, Wi-Fi,
// 802.1X and PPP as well: each file is read key by key from an allow-list, and an
// unknown key leaves no trace but its line number when it cannot be parsed.
//
// systemd-networkd, dhcpcd and ifupdown are modelled after their source and
// proved against the programs themselves; NetworkManager and netplan are parsed
// and marked ParsedNotRun. Container and virtualisation runtimes are read from
// files and cgroups too, never from a daemon's socket.
package manager

import (
	"fmt"
	"slices"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Process is a running manager or runtime daemon.
type Process struct {
	PID     int
	Name    string           // base name of the executable
	NetNS   fact.NamespaceID // zero when it could not be read
	OwnRoot bool             // read its files through /proc/PID/root
}

// source is what was read of one manager's configuration.
type source interface {
	// present tells whether there is any configuration.
	present() bool
	decode(m *fact.Manager)
}

// kind is a network manager this package knows.
type kind struct {
	name  string
	exes  []string // base names of its daemon
	units []string // any of them enabled means enabled
	notRun,
	unitless bool // notRun: parsed, not run; unitless: a file is all it takes
	read func(t *tree.Tree, b *confd.Budget) source
}

// kinds in the order of the report.
var kinds = []kind{
	{name: "systemd-networkd", exes: []string{"systemd-networkd"}, units: []string{"systemd-networkd.service"}, read: readNetworkd},
	{name: "dhcpcd", exes: []string{"dhcpcd", "dhcpcd5"}, units: []string{"dhcpcd.service", "dhcpcd5.service", "dhcpcd"}, read: readDHCPCD},
	{name: "ifupdown", units: []string{"networking.service", "networking"}, read: readIfupdown},
	{name: "NetworkManager", exes: []string{"NetworkManager"}, units: []string{"NetworkManager.service", "NetworkManager"}, notRun: true, read: readNM},
	{name: "netplan", notRun: true, unitless: true, read: readNetplan},
	{name: "connman", exes: []string{"connmand"}, units: []string{"connman.service", "connman"}, notRun: true, read: readNothing},
	{name: "dhclient", exes: []string{"dhclient"}, notRun: true, read: readNothing},
}

// instance is one manager: its files, and its process when it runs.
type instance struct {
	kind    *kind
	process *Process
	files   source
	gaps    []fact.Gap
}

// Dump is what was read, not yet interpreted.
type Dump struct {
	live      bool
	known     bool // the process list was read
	init      fact.NamespaceID
	enabled   map[string]bool
	enableGap *fact.Gap
	instances []instance
	runtimes  *runtimes
}

// Read reads the managers' files below t, and those of running managers with
// a root of their own. init is the namespace that managers without a process
// would manage. A nil list of running processes means that it is not known which
// run; an empty one that none does.
func Read(t *tree.Tree, running []Process, init fact.NamespaceID) *Dump {
	d := &Dump{live: t.Live(), known: running != nil, init: init}
	d.enabled, d.enableGap = enabledUnits(t)
	running, hidden := placed(running, init)
	var b confd.Budget
	for i := range kinds {
		k := &kinds[i]
		host := k.read(t, &b)
		groups := byNamespace(running, k.exes)
		for _, g := range groups {
			in := readRunning(k, g, host, init)
			if hidden[g[0].PID] {
				in.gaps = append(in.gaps, fact.Gap{Reason: fact.Permission, What: fmt.Sprintf("network namespace of %s (process %d)", k.name, g[0].PID)})
			}
			d.instances = append(d.instances, in)
		}
		if len(groups) == 0 {
			d.instances = append(d.instances, instance{kind: k, files: host})
		}
	}
	d.runtimes = readRuntimes(t, &b, running)
	return d
}

// placed takes a process whose namespace could not be read for one of the initial
// namespace: it must not vanish from the namespace where it most likely works.
func placed(running []Process, init fact.NamespaceID) ([]Process, map[int]bool) {
	hidden := map[int]bool{}
	out := slices.Clone(running)
	for i := range out {
		if out[i].NetNS == (fact.NamespaceID{}) && init != (fact.NamespaceID{}) {
			out[i].NetNS = init
			hidden[out[i].PID] = true
		}
	}
	return out, hidden
}

// byNamespace groups the processes of a manager by network namespace: one
// instance often has several (dhcpcd separates privileges).
func byNamespace(running []Process, exes []string) [][]Process {
	var out [][]Process
	at := map[fact.NamespaceID]int{}
	for _, p := range running {
		if !slices.Contains(exes, p.Name) {
			continue
		}
		i, ok := at[p.NetNS]
		if !ok {
			i = len(out)
			at[p.NetNS] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], p)
	}
	for _, g := range out {
		slices.SortFunc(g, func(a, b Process) int {
			if a.OwnRoot != b.OwnRoot {
				if a.OwnRoot {
					return 1
				}
				return -1
			}
			return a.PID - b.PID
		})
	}
	return out
}

// foreignTries is how many processes of one instance are tried.
const foreignTries = 8

// readRunning reads the files that a running instance sees.
func readRunning(k *kind, group []Process, host source, init fact.NamespaceID) instance {
	in := instance{kind: k, process: &group[0], files: host}
	if !group[0].OwnRoot {
		return in
	}
	var gap *fact.Gap
	for i := range group {
		if i == foreignTries {
			break
		}
		src, g := readForeign(k, group[i].PID)
		if g != nil {
			gap = g
			continue
		}
		// A part of a daemon that locked itself into an empty directory sees nothing.
		if src.present() || i == len(group)-1 {
			in.process, in.files = &group[i], src
			return in
		}
	}
	if gap != nil {
		in.gaps = append(in.gaps, *gap)
	}
	if group[0].NetNS != init {
		in.files = nil // another namespace's manager surely has files of its own
	}
	return in
}

// Decode interprets it and sets Host.Managers and Host.Runtimes.
func (d *Dump) Decode(h *fact.Host) {
	out := []fact.Manager{}
	for _, in := range d.instances {
		enabled := d.isEnabled(in.kind)
		on := enabled.Or(false)
		if in.process == nil && (!on || in.kind.unitless) && (in.files == nil || !in.files.present()) {
			continue
		}
		m := fact.Manager{Name: in.kind.name, ParsedNotRun: in.kind.notRun, Enabled: enabled, NetNS: d.init, Gaps: in.gaps}
		switch {
		case in.process != nil:
			m.Running, m.PID, m.NetNS = fact.Value(true), in.process.PID, in.process.NetNS
		case d.known || !d.live || len(in.kind.exes) == 0:
			m.Running = fact.Value(false)
		default:
			m.Running = fact.Missing[bool](fact.Gap{Reason: fact.NotCollected, What: "whether " + m.Name + " runs"})
		}
		if in.files != nil {
			in.files.decode(&m)
		}
		if len(m.Gaps) > maxGaps {
			m.Gaps = append(m.Gaps[:maxGaps], fact.Gap{Reason: fact.Truncated, What: "more gaps of " + m.Name})
		}
		out = append(out, m)
	}
	h.Managers = fact.Value(out)
	d.runtimes.decode(h)
}

const maxGaps = 128

// maxInterfaces bounds what one manager may say.
const maxInterfaces = 4096

func (d *Dump) isEnabled(k *kind) fact.Known[bool] {
	if k.unitless {
		return fact.Value(true)
	}
	for _, u := range k.units {
		if d.enabled[u] {
			return fact.Value(true)
		}
	}
	if d.enableGap != nil && len(k.units) > 0 {
		return fact.Missing[bool](*d.enableGap)
	}
	return fact.Value(false)
}

// nothing is a manager known by presence only.
type nothing struct{}

func readNothing(*tree.Tree, *confd.Budget) source { return nothing{} }

func (nothing) present() bool { return false }

func (nothing) decode(m *fact.Manager) {
	m.Gaps = append(m.Gaps, fact.Gap{Reason: fact.UnsupportedGap, What: "configuration of " + m.Name})
}
