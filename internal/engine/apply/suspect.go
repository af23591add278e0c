package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/change"
)

// sysctlFiles are what people and packages write sysctls in.
var sysctlFiles = []string{"/etc/sysctl.conf", "/etc/sysctl.d/*.conf", "/run/sysctl.d/*.conf", "/usr/local/lib/sysctl.d/*.conf", "/usr/lib/sysctl.d/*.conf", "/etc/ufw/sysctl.conf"}

// nftFiles are what a restart of nftables.service loads.
var nftFiles = []string{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf"}

// flushes finds the statement that takes every table away, ours too.
var flushes = regexp.MustCompile(`(?m)^\s*flush\s+ruleset`)

// actors are units that are known to write what we write.
var actors = map[change.Kind][]string{
	change.Table:     {"nftables", "firewalld", "ufw", "netfilter-persistent", "iptables", "ip6tables", "shorewall", "shorewall6", "ferm", "docker", "libvirtd", "fail2ban", "kubelet", "kube-proxy"},
	change.Sysctl:    {"systemd-sysctl", "procps", "ufw", "systemd-networkd", "NetworkManager", "networking", "dhcpcd", "docker", "kubelet", "tuned", "cloud-init"},
	change.Neighbour: {"systemd-networkd", "NetworkManager", "networking", "dhcpcd"},
}

// unitEvent is the last change of state of a systemd unit.
type unitEvent struct {
	name string
	at   time.Time
}

func (u unitEvent) String() string {
	return u.name + ", which was started, stopped or reloaded at " + u.at.Local().Format(time.TimeOnly)
}

// unitsSince lists the services of systemd that were started, stopped or reloaded since a
// moment, ours left out.
func unitsSince(t time.Time) []unitEvent {
	var out []unitEvent
	for name, at := range unitTimes("StateChangeTimestampMonotonic", "*.service") {
		if at.After(t) && !strings.HasPrefix(name, "sixfence-") && !strings.HasPrefix(name, "systemd-journal") {
			out = append(out, unitEvent{name, at})
		}
	}
	slices.SortFunc(out, func(a, b unitEvent) int { return b.at.Compare(a.at) })
	return out[:min(len(out), 5)]
}

// unitTimes is when something happened to units, as systemd says; empty where it does
// not run.
func unitTimes(property string, units ...string) map[string]time.Time {
	if !mutate.SystemdHere() {
		return nil
	}
	said, err := systemTool("systemctl", append([]string{"show", "--all", "-p", "Id", "-p", property}, units...)...)
	if err != nil {
		return nil
	}
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	now := time.Now()
	out := map[string]time.Time{}
	for block := range strings.SplitSeq(said, "\n\n") {
		var name string
		var µs int64
		for line := range strings.Lines(block) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch k {
			case "Id":
				name = v
			case property:
				µs, _ = strconv.ParseInt(v, 10, 64)
			}
		}
		if name != "" && µs > 0 {
			out[name] = now.Add(-time.Duration(ts.Nano() - µs*1000))
		}
	}
	return out
}

// commands of people that change what we hold.
var commands = regexp.MustCompile(`COMMAND=(\S*/)?(nft|sysctl|netplan|ip6?tables\S*|systemctl|ip|ufw|firewall-cmd|service)( .*)?$`)

// sudone lists what people did with sudo since a moment, as the journal of systemd says.
func sudone(t time.Time) []string {
	return said(t, commands, "sudo at ", 5, "_COMM=sudo")
}

// managerWords are in what a network manager writes into the journal when it sets an interface
// again: nothing is started or reloaded then that systemd would know of.
var managerWords = regexp.MustCompile(`Reconfiguring with|Configuring with|audit: op=|(?i)\breload`)

// managerFiles are those that network managers, or their tools, write as well.
var managerFiles = regexp.MustCompile(`^/etc/(NetworkManager|netplan|systemd/network)/`)

// reconfigured lists what network managers say that they did since a moment, the last things
// of each, and what netplan wrote for them.
func reconfigured(t time.Time) (out []string) {
	if !mutate.SystemdHere() || t.IsZero() {
		return nil
	}
	for _, unit := range []string{"systemd-networkd", "NetworkManager"} {
		out = append(out, said(t, managerWords, unit+".service, which said at ", 2, "-u", unit)...)
	}
	for _, pattern := range []string{"/run/systemd/network/*netplan-*", "/run/NetworkManager/system-connections/netplan-*"} {
		names, _ := filepath.Glob(pattern)
		for _, n := range names {
			if st, err := os.Stat(n); err == nil && st.ModTime().After(t) {
				out = append(out, "netplan apply, or another that made netplan write "+n+" at "+st.ModTime().Local().Format(time.TimeOnly))
				break
			}
		}
	}
	return out
}

// said is what the journal of systemd has, of this boot and since a moment, of those whom
// the arguments choose: the last few messages of a kind, each with who and when before it.
func said(t time.Time, kind *regexp.Regexp, who string, last int, choose ...string) (out []string) {
	if !mutate.SystemdHere() || t.IsZero() {
		return nil
	}
	text, err := systemTool("journalctl", append([]string{"--no-pager", "--quiet", "-b", "-o", "json", "--output-fields=MESSAGE,__REALTIME_TIMESTAMP", fmt.Sprintf("--since=@%d", t.Unix())}, choose...)...)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		if at, message, ok := journalLine(line); ok && at.After(t) && kind.MatchString(message) {
			out = append(out, who+at.Local().Format(time.TimeOnly)+": "+strings.Join(strings.Fields(message), " "))
		}
	}
	return out[max(0, len(out)-last):]
}

// journalLine reads a line of journalctl -o json.
func journalLine(line string) (at time.Time, message string, ok bool) {
	var m struct {
		Message string `json:"MESSAGE"`
		At      string `json:"__REALTIME_TIMESTAMP"`
	}
	if json.Unmarshal([]byte(line), &m) != nil {
		return at, "", false
	}
	µs, err := strconv.ParseInt(m.At, 10, 64)
	return time.UnixMicro(µs), m.Message, err == nil
}

// clues are what systemd and its journal say of the time since all was surely well. They
// are asked once for everything that has drifted.
type clues struct {
	well           time.Time
	units          []unitEvent
	managers, sudo []string
}

func gather(well time.Time) *clues {
	// A boot sets what is kept, and a start of our units.
	for _, at := range unitTimes("ActiveEnterTimestampMonotonic", "sixfence-firewall.service", "sixfence-sysctl.service", "sysinit.target") {
		if at.After(well) {
			well = at
		}
	}
	return &clues{well: well, units: unitsSince(well), managers: reconfigured(well), sudo: sudone(well)}
}

// culprits says who may have undone an object: by the clues, and by what files would do.
// What is not known is said to be unknown.
func (e *Engine) culprits(a astray, c *clues) []string {
	if a.err != nil {
		return nil
	}
	if at := booted(); a.step.Phase == change.Runtime && at.After(c.well) && !SystemdInstalled() {
		return []string{"the start of this host at " + at.Local().Format(time.DateTime) + ": it has no systemd to set again what was kept"}
	}
	var out []string
	for _, u := range c.units {
		if slices.Contains(actors[a.step.Kind], strings.TrimSuffix(u.name, ".service")) {
			out = append(out, u.String())
		}
	}
	if a.step.Kind == change.Sysctl || a.step.Kind == change.Neighbour || a.step.Kind == change.File && managerFiles.MatchString(a.step.Target) {
		out = append(out, c.managers...)
	}
	out = append(out, c.sudo...)
	out = append(out, e.suspects(a.step, a.now, c.well)...)
	if len(out) == 0 {
		out = []string{"unknown: neither systemd, its journal nor a file that is read at boot tells who did it after " + c.well.Local().Format(time.DateTime)}
	}
	return out
}

// suspects names who may have made an object what it is now. It is a hint for a person
// and proves nothing.
func (e *Engine) suspects(s change.Step, now string, well time.Time) []string {
	var out []string
	switch s.Kind {
	case change.Sysctl:
		key := strings.ReplaceAll(s.Target, "/", ".")
		for _, f := range e.glob(sysctlFiles) {
			b, err := os.ReadFile(filepath.Join(e.Host.Root, f))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(b)) {
				k, v, ok := strings.Cut(line, "=")
				k = strings.ReplaceAll(strings.TrimLeft(strings.TrimSpace(k), "-"), "/", ".")
				if ok && (k == key || bootconf.Match(strings.ReplaceAll(k, ".", "/"), s.Target)) && strings.Join(strings.Fields(v), " ") == mutate.Text(now) {
					out = append(out, "a run of sysctl that read "+f)
					break
				}
			}
		}
	case change.Table:
		if now != mutate.Absent {
			return nil
		}
		if e.Host.Root == "" {
			out = append(out, flushed()...)
		}
		if e.Host.Root == "" && mutate.SystemdHere() && !unitTimes("StateChangeTimestampMonotonic", "nftables.service")["nftables.service"].After(well) {
			return out
		}
		for _, f := range e.glob(nftFiles) {
			if b, err := os.ReadFile(filepath.Join(e.Host.Root, f)); err == nil && flushes.Match(b) {
				out = append(out, "a restart or reload of nftables.service: "+f+" flushes every table")
			}
		}
	}
	return out
}

// flushed tells what the tables that are left say of how ours went.
func flushed() []string {
	r, err := run.Run(context.Background(), run.Program{Path: mutate.NFTPath(), Args: []string{"list", "tables"}, Env: []string{"LC_ALL=C"}})
	if err != nil || r.Exit != 0 || strings.TrimSpace(string(r.Stdout)) != "" {
		return nil
	}
	return []string{"nft flush ruleset, or what does the same: no table of anybody is left"}
}

// glob lists files below the root, without it.
func (e *Engine) glob(patterns []string) []string {
	var out []string
	for _, p := range patterns {
		ms, err := filepath.Glob(filepath.Join(e.Host.Root, p))
		if err != nil {
			continue
		}
		for _, m := range ms {
			out = append(out, strings.TrimPrefix(m, e.Host.Root))
		}
	}
	return out
}
