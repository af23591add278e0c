package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// kept boots a machine and hardens it.
func kept(t *testing.T, intent string) *bootLab {
	t.Helper()
	l := newBootLab(t, intent)
	l.Boot()
	l.harden()
	return l
}

func (l *bootLab) harden() {
	l.t.Helper()
	l.sixfence(0, "harden", "plan", "-o", "/root/plan.json")
	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
	l.sixfence(0, "harden", "confirm")
}

func (l *bootLab) active(unit string) func() bool {
	return func() bool { return l.Show(unit, "ActiveState") == "active" }
}

// restored are the objects that were brought back so far, with who undid them.
func (l *bootLab) restored() (why []string) {
	l.t.Helper()
	for _, r := range l.history() {
		if r.Event == "restored" {
			why = append(why, r.Why)
		}
	}
	return why
}

// With drift: restore a service brings back what others undo, unless they do it again and
// again.
func TestSystemdRestores(t *testing.T) {
	t.Parallel()
	l := newBootLab(t, bootIntent+"drift: restore\n")
	l.Boot()
	before := l.state()
	l.harden()
	if s := l.sixfence(0, "harden", "plan"); !strings.HasPrefix(s, "Nothing to do") {
		t.Errorf("plan is not empty:\n%s", s)
	}
	l.within(30*time.Second, "the service to run", l.active("sixfence-keep.service"))
	l.within(30*time.Second, "our unit to be active", l.active("sixfence-firewall.service"))
	l.Run("nft", "add", "table", "ip6", "foreign")
	undo := func(what string, back func() bool, args ...string) {
		t.Helper()
		n := len(l.restored())
		l.Run(args[0], args[1:]...)
		begun := time.Now()
		l.within(10*time.Second, what, back)
		t.Logf("%v: back after %v", args, time.Since(begun).Round(time.Millisecond))
		if args[0] != "systemctl" {
			l.within(10*time.Second, "the history to have it", func() bool { return len(l.restored()) > n })
		}
		l.within(10*time.Second, "status to be content", func() bool { return l.Command("sixfence", "harden", "status").Run() == nil })
	}
	undo("our rules after nft delete table", l.ours, "nft", "delete", "table", "inet", "sixfence")
	if by := l.restored(); len(by) != 1 || !strings.Contains(by[0], "nft (process ") {
		t.Errorf("who deleted the table: %q", by)
	}
	undo("our rules after systemctl restart nftables", l.ours, "systemctl", "restart", "nftables.service")
	if l.Command("nft", "list", "table", "ip6", "foreign").Run() == nil {
		t.Error("Debian's nftables.service did not flush: nothing was tried")
	}
	l.Run("nft", "add", "table", "ip6", "foreign")
	redirects := func() bool { return l.Run("cat", "/proc/sys/net/ipv6/conf/eth0/accept_redirects") == "0\n" }
	undo("the value after sysctl -w", redirects, "sysctl", "-w", "net.ipv6.conf.eth0.accept_redirects=1")
	undo("our rules after a rule was added to them", func() bool {
		return !strings.Contains(l.Run("nft", "list", "table", "inet", "sixfence"), "tcp dport 4444")
	},
		"nft", "insert", "rule", "inet", "sixfence", "input", "tcp", "dport", "4444", "accept")
	l.Run("nft", "list", "table", "ip6", "foreign") // is others', and stays
	if log := l.Run("journalctl", "--no-pager", "-b", "-t", "sixfence", "-o", "cat"); !strings.Contains(log, "restored table:inet sixfence; undone by nft (process ") {
		t.Errorf("the journal does not say what was restored:\n%s", log)
	}
	// Never while a change waits.
	l.Write("/etc/sixfence/sixfence.yaml", strings.Replace(bootIntent, "tcp/22", "tcp/22, tcp/2222", 1)+"drift: restore\n")
	l.sixfence(0, "harden", "plan", "-o", "/root/second.json")
	l.sixfence(0, "harden", "apply", "--unproven", "/root/second.json")
	l.Run("nft", "delete", "table", "inet", "sixfence")
	time.Sleep(5 * time.Second)
	if l.ours() {
		t.Error("it was restored while a change waited")
	}
	l.sixfence(0, "harden", "rollback")
	l.within(10*time.Second, "what was kept before", l.ours)
	if strings.Contains(l.Run("nft", "list", "table", "inet", "sixfence"), "2222") {
		t.Error("what was never confirmed was restored")
	}
	l.within(10*time.Second, "status to be content", func() bool { return l.Command("sixfence", "harden", "status").Run() == nil })
	// Somebody who does not stop.
	l.Run("systemd-run", "--quiet", "--unit=fighter", "sh", "-c", "while :; do nft delete table inet sixfence 2>/dev/null; sleep 0.2; done")
	status := ""
	l.within(60*time.Second, "the fight to be reported", func() bool {
		c := l.Command("sixfence", "harden", "status")
		out, _ := c.CombinedOutput()
		status = string(out)
		return c.ProcessState.ExitCode() == 5 && strings.Contains(status, "FIGHT: table:inet sixfence")
	})
	if !strings.Contains(status, "undone by nft (process ") {
		t.Errorf("the fighter is not named:\n%s", status)
	}
	l.Run("systemctl", "stop", "fighter.service")
	n := len(l.restored())
	l.Run("sysctl", "-w", "net.ipv6.conf.eth0.accept_redirects=1") // what nobody fights over is restored further on
	l.within(10*time.Second, "the value after sysctl -w", redirects)
	if l.ours() || len(l.restored()) != n+1 {
		t.Error("it was fought on for the table")
	}
	if log := l.Run("journalctl", "--no-pager", "-b", "-t", "sixfence", "-p", "crit", "-o", "cat"); !strings.Contains(log, "somebody keeps undoing table:inet sixfence") {
		t.Errorf("the journal does not report the fight:\n%s", log)
	}
	l.sixfence(5, "harden", "status")
	l.sixfence(1, "harden", "status", "--acknowledge")
	l.within(10*time.Second, "our rules, once a person has seen it", l.ours)
	l.Run("nft", "delete", "table", "ip6", "foreign")
	// Killed in the middle of anything, it comes again.
	l.Run("systemctl", "kill", "--signal=KILL", "sixfence-keep.service")
	l.within(30*time.Second, "the service to come again", l.active("sixfence-keep.service"))
	// And it goes as it came.
	l.Write("/etc/sixfence/sixfence.yaml", bootIntent+"drift: restore\n")
	l.sixfence(0, "harden", "rollback")
	l.sixfence(0, "harden", "confirm")
	l.within(30*time.Second, "our units to go", func() bool { return !strings.Contains(strings.Join(l.state(), "\n"), "sixfence-") })
	l.same("taken back", before)
}

// Without it status says who it was, as far as can be known, and that it is not known
// otherwise.
func TestSystemdStatusNamesWho(t *testing.T) {
	t.Parallel()
	l := kept(t, bootIntent)
	l.within(30*time.Second, "our unit to be active", l.active("sixfence-firewall.service"))
	drift := func(want ...string) {
		t.Helper()
		s := l.sixfence(1, "harden", "status")
		for _, w := range append(want, "DRIFT (kernel)") {
			if !strings.Contains(s, w) {
				t.Errorf("status does not say %q:\n%s", w, s)
			}
		}
	}
	l.Run("nft", "delete", "table", "inet", "sixfence")
	drift("table:inet sixfence: is absent", "unknown: ")
	l.Run("systemctl", "stop", "nftables.service")
	drift("perhaps by nftables.service, which was started, stopped or reloaded at ", "/etc/nftables.conf flushes every table")
	l.Run("systemctl", "start", "nftables.service", "sixfence-firewall.service")
	l.sixfence(0, "harden", "status")
	// A person, by sudo: its line in the journal has the name of the program.
	logger, err := os.ReadFile("/usr/bin/logger")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.Path("/usr/local/bin/sudo"), logger, 0o755); err != nil {
		t.Fatal(err)
	}
	l.Run("sleep", "1.1")                                                                                                                             // times of the journal's --since are whole seconds
	l.sh(`{ echo "alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/sbin/nft flush ruleset"; nft flush ruleset; sleep 2; } | /usr/local/bin/sudo`) // it lives as long as what it runs
	l.within(10*time.Second, "the journal to have the line", func() bool {
		out, _ := l.Command("sixfence", "harden", "status").Output()
		return strings.Contains(string(out), "perhaps by sudo at ") && strings.Contains(string(out), "alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/sbin/nft flush ruleset")
	})
	l.Run("systemctl", "restart", "nftables.service")
	l.within(10*time.Second, "our rules", l.ours)
	// A file of somebody else's.
	l.Write("/etc/sysctl.d/zzz-other.conf", "net.ipv6.conf.all.accept_redirects = 1\n")
	l.Run("sysctl", "--quiet", "-p", "/etc/sysctl.d/zzz-other.conf")
	drift("sysctl:net/ipv6/conf/all/accept_redirects: is = 1, was left = 0", "perhaps by a run of sysctl that read /etc/sysctl.d/zzz-other.conf")
}
