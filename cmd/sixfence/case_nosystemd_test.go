package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab"
)

// shellInit is the whole init of a machine without systemd: it loads Debian's rules, brings
// the network up, reads sysctl.d as OpenRC does on a host with busybox, and waits.
const shellInit = `#!/bin/sh
mkdir -p /run/network
nft -f /etc/nftables.conf
ifup -a
for f in /etc/sysctl.d/*.conf; do [ ! -e $f ] || busybox sysctl -p $f >/run/sysctl.log 2>&1; done
: >/run/booted
while :; do sleep 3600 & wait; done
`

// No systemd, no OpenRC, no sysvinit: the change is of the running kernel. The plan says so
// before, confirm and status afterwards, and the boot that ends it is named.
func TestNoSystemd(t *testing.T) {
	t.Parallel()
	testlab.RequireTool(t, "busybox")
	l := newBootLab(t, bootIntent)
	l.Script(shellInit, "/usr/bin/systemctl", "/usr/bin/systemd-run", "/usr/lib/systemd/systemd")
	l.Boot()
	before := l.state()
	plan := l.sixfence(0, "harden", "plan", "-o", "/root/plan.json")
	if !strings.Contains(plan, "The rules hold until this host starts again: it has no systemd to load them") || strings.Contains(plan, "/etc/systemd/system/") {
		t.Errorf("plan:\n%s", plan)
	}

	// The session ends, with every process of it.
	c := l.Command("setsid", "--wait", "sh", "-c", "sixfence harden apply --unproven --timeout 15s /root/plan.json >/run/said 2>&1; echo $? >/run/code; exec sleep 1000")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	l.within(2*time.Minute, "apply to return", func() bool { return l.Command("test", "-s", "/run/code").Run() == nil })
	if said := l.sh("cat /run/said /run/code"); !strings.HasSuffix(said, "\n0\n") || !strings.Contains(said, "(armed: process ") {
		t.Fatalf("apply: %s", said)
	}
	if !l.ours() {
		t.Fatal("apply did not load the rules")
	}
	l.sh(`for s in $(ps -o sid= -C sleep | sort -u); do [ "$s" = "$(ps -o sid= -p 1)" ] || pkill -HUP -s "$s"; done; for s in $(ps -o sid= -C sleep | sort -u); do [ "$s" = "$(ps -o sid= -p 1)" ] || pkill -KILL -s "$s"; done; :`)
	_ = c.Wait()
	l.within(90*time.Second, "the process that waits to undo", func() bool {
		return !l.ours() && l.Command("test", "-e", "/var/lib/sixfence/harden/pending").Run() != nil
	})
	l.same("after the undo", before)
	h := l.history()
	if len(h) != 2 || h[1].Event != "rolled-back" || !strings.Contains(h[1].Why, "nobody confirmed it in time") || h[1].At.Sub(h[0].At) < 14*time.Second {
		t.Fatalf("history: %+v", h)
	}
	l.sixfence(5, "harden", "status")
	l.sixfence(0, "harden", "status", "--acknowledge")

	// A reboot before confirm.
	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
	l.PowerCut()
	l.Boot()
	if s := l.sixfence(5, "harden", "status"); !strings.Contains(s, "started again before the change was confirmed") {
		t.Errorf("status: %s", s)
	}
	l.same("after a reboot before confirm", before)
	l.sixfence(0, "harden", "status", "--acknowledge")

	// Kept.
	const until = "UNTIL THE NEXT BOOT ONLY: the rules (table:inet sixfence): no systemd loads them when this host starts"
	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
	if s := l.sixfence(0, "harden", "confirm"); !strings.Contains(s, until) || strings.Contains(s, "now and after a reboot") {
		t.Errorf("confirm: %s", s)
	}
	if s := l.sixfence(0, "harden", "status"); !strings.Contains(s, until) {
		t.Errorf("status: %s", s)
	}
	if s := l.sixfence(0, "harden", "plan"); !strings.HasPrefix(s, "Nothing to do") {
		t.Errorf("plan is not empty:\n%s", s)
	}
	l.PowerCut()
	l.Boot()
	if l.ours() {
		t.Error("something loaded the rules: what was promised is wrong")
	}
	s := l.sixfence(1, "harden", "status")
	if strings.Contains(s, "DRIFT (kernel) sysctl") {
		t.Errorf("busybox' sysctl did not bring the settings: %s\n%s", s, l.sh("cat /run/sysctl.log"))
	}
	if !strings.Contains(s, "DRIFT (kernel) table:inet sixfence: is absent") || !strings.Contains(s, "perhaps by the start of this host at ") || strings.Contains(s, "UNTIL THE NEXT BOOT") {
		t.Errorf("status after the boot: %s", s)
	}
	// The way back to what was kept is a plan, and so is the way out.
	l.sixfence(0, "harden", "plan", "-o", "/root/again.json")
	l.sixfence(0, "harden", "apply", "--unproven", "/root/again.json")
	l.sixfence(0, "harden", "confirm")
	l.sixfence(0, "harden", "status")
	for range 2 {
		l.sixfence(0, "harden", "rollback")
		l.sixfence(0, "harden", "confirm")
	}
	l.same("taken back", before)
}

// systemctl beside another init loads nothing at boot: Debian keeps it there.
func TestSystemctlBesideAnotherInit(t *testing.T) {
	t.Parallel()
	l := newBootLab(t, bootIntent)
	l.Script(shellInit, "/usr/lib/systemd/systemd") // what /sbin/init leads to here
	l.Boot()
	l.Run("systemctl", "--version")
	if plan := l.sixfence(0, "harden", "plan"); !strings.Contains(plan, "The rules hold until this host starts again: it has no systemd to load them") || strings.Contains(plan, "sixfence-firewall.service will") {
		t.Errorf("plan:\n%s", plan)
	}
}
