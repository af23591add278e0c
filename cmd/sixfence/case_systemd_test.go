package main

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab"
)

// debianNftables is what Debian installs as /etc/nftables.conf.
const debianNftables = `#!/usr/sbin/nft -f

flush ruleset

table inet filter {
	chain input {
		type filter hook input priority filter;
	}
	chain forward {
		type filter hook forward priority filter;
	}
	chain output {
		type filter hook output priority filter;
	}
}
`

// witness runs before an interface comes up, and notes what is in force by then.
const witness = `#!/bin/sh
[ "$IFACE" = eth0 ] || exit 0
{ nft list tables; for k in all default eth0; do echo "$k accept_redirects $(cat /proc/sys/net/ipv6/conf/$k/accept_redirects)"; done; } >/run/witness 2>&1
exit 0
`

// bootLab is a machine whose network ifupdown brings up, with Debian's nftables.
type bootLab struct {
	*testlab.Machine
	t *testing.T
}

func newBootLab(t *testing.T, intent string) *bootLab {
	t.Helper()
	for _, tool := range []string{"ifup", "nft", "sysctl"} {
		testlab.RequireTool(t, tool)
	}
	wire := testlab.NewNS(t, "wire")
	m := testlab.NewMachine(t, map[string]string{
		"/etc/nftables.conf":               debianNftables,
		"/etc/network/if-pre-up.d/witness": witness,
		"/etc/network/interfaces":          "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet static\n\taddress 192.0.2.10/24\niface eth0 inet6 static\n\taddress 2001:db8:1::10/64\n\tgateway 2001:db8:1::1\n\tdad-attempts 0\n",
		"/etc/network/if-up.d/none":        "", "/etc/network/if-down.d/none": "", "/etc/network/if-post-down.d/none": "",
		"/etc/sixfence/sixfence.yaml": intent,
	})
	m.Install(binary, "/usr/local/bin/sixfence")
	m.Enable("nftables.service")
	m.Enable("networking.service")
	m.Wire("eth0", wire, "eth0")
	t.Cleanup(func() {
		if t.Failed() && m.Alive() {
			log, _ := m.Command("journalctl", "--no-pager", "-b", "-n", "80").CombinedOutput()
			t.Logf("the journal of the machine ends so:\n%s", log)
		}
	})
	return &bootLab{Machine: m, t: t}
}

const bootIntent = `apiVersion: sixfence/v1
role: server
families: dual-stack
interfaces:
  eth0:
    addressing: static
services:
  - {name: ssh, ports: [tcp/22], from: ["2001:db8:1::/64", "192.0.2.0/24"]}
tunnels: deny
limits: {echoPerSecond: 250, ndPerSecond: 250} # rates are proven elsewhere, on machines that are not busy
`

// sh runs a script in the machine; failure ends the test.
func (l *bootLab) sh(script string) string {
	l.t.Helper()
	return l.Run("sh", "-c", script)
}

// sixfence runs our own program and wants an exit code.
func (l *bootLab) sixfence(code int, args ...string) string {
	l.t.Helper()
	c := l.Command("sixfence", args...)
	out, err := c.CombinedOutput()
	if got := c.ProcessState.ExitCode(); got != code {
		l.t.Fatalf("sixfence %v: exit code %d, not %d (%v)\n%s", args, got, code, err, out)
	}
	return string(out)
}

func (l *bootLab) within(d time.Duration, what string, cond func() bool) {
	l.t.Helper()
	testlab.Eventually(l.t, d, what, cond)
}

// ours tells whether our table is loaded, whole.
func (l *bootLab) ours() bool {
	return l.Command("sh", "-c", "nft list table inet sixfence | grep -q 'hook input'").Run() == nil
}

// state is what a change may touch: rules, settings, addresses, routes, files and units.
func (l *bootLab) state() []string {
	l.t.Helper()
	out := l.sh(`nft -s list ruleset
cd /proc/sys/net; grep -r . ipv6/conf ipv6/icmp ipv4/conf ipv4/ip_forward 2>/dev/null | grep -v -e stable_secret -e mc_forwarding | sort
ip -6 address show scope global | grep inet6; ip -6 route show | grep -v fe80
cd /etc; find . -type f -o -type l | grep -v -e '^./alternatives' | sort | xargs ls -ld --time-style=+; find . -type f | sort | xargs md5sum; find . -type d | sort
[ ! -d /run/systemd/system ] || systemctl list-units --all --no-legend --plain --no-pager '*sixfence*' | cut -c1-40`)
	return slices.DeleteFunc(strings.Split(out, "\n"), func(s string) bool { return strings.HasPrefix(s, "total") })
}

func (l *bootLab) same(when string, before []string, but ...func(string) bool) {
	l.t.Helper()
	now := l.state()
	for _, f := range but {
		before, now = slices.DeleteFunc(slices.Clone(before), f), slices.DeleteFunc(now, f)
	}
	for _, x := range before {
		if !slices.Contains(now, x) {
			l.t.Errorf("%s: missing: %s", when, x)
		}
	}
	for _, x := range now {
		if !slices.Contains(before, x) {
			l.t.Errorf("%s: new: %s", when, x)
		}
	}
}

type historyRecord struct {
	At                      time.Time
	Event, Transaction, Why string
}

func (l *bootLab) history() []historyRecord {
	l.t.Helper()
	var doc struct{ Records []historyRecord }
	if err := json.Unmarshal([]byte(l.Run("sixfence", "harden", "history", "--format", "json")), &doc); err != nil {
		l.t.Fatal(err)
	}
	return doc.Records
}

// The session ends, with every process of it, and our program is gone from the disk. The
// timer takes all back all the same, and not before its time.
func TestSystemdUndoes(t *testing.T) {
	t.Parallel()
	l := newBootLab(t, bootIntent)
	l.Boot()
	before := l.state()
	l.sixfence(0, "harden", "plan", "-o", "/root/plan.json")
	l.Run("systemd-run", "--quiet", "--unit=session", "--property=KillMode=control-group", "sh", "-c",
		"sixfence harden apply --unproven --timeout 15s /root/plan.json >/run/said 2>&1; echo $? >/run/code; exec sleep 1000")
	l.within(120*time.Second, "apply to return", func() bool { return l.Command("test", "-s", "/run/code").Run() == nil })
	if said := l.sh("cat /run/said /run/code"); !strings.HasSuffix(said, "\n0\n") || !strings.Contains(said, "(armed: systemd timer sixfence-undo-") {
		t.Fatalf("apply: %s", said)
	}
	if !l.ours() {
		t.Fatal("apply did not load the rules")
	}
	l.Run("systemctl", "kill", "--signal=KILL", "session.service")
	if err := os.Remove(l.Path("/usr/local/bin/sixfence")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.Path("/usr/local/bin/sixfence"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil { // an upgrade that went wrong
		t.Fatal(err)
	}
	l.within(90*time.Second, "the timer to undo", func() bool {
		return !l.ours() && l.Command("test", "-e", "/var/lib/sixfence/harden/pending").Run() != nil
	})
	l.Run("systemctl", "reset-failed") // the session, which was killed
	l.Install(binary, "/usr/local/bin/sixfence")
	l.within(30*time.Second, "the timer's own unit to go", func() bool { return !strings.Contains(strings.Join(l.state(), "\n"), "sixfence-undo") })
	l.same("after the undo", before)
	h := l.history()
	if len(h) != 2 || h[1].Event != "rolled-back" || !strings.Contains(h[1].Why, "nobody confirmed it in time") {
		t.Fatalf("history: %+v", h)
	}
	if took := h[1].At.Sub(h[0].At); took < 14*time.Second {
		t.Errorf("taken back after %v, 15 s were promised", took)
	} else {
		t.Logf("taken back %v after it was armed for 15s", took)
	}
	// It is loud until a person has seen it.
	for range 2 {
		if s := l.sixfence(5, "harden", "status"); !strings.Contains(s, "TAKEN BACK: change "+h[0].Transaction) {
			t.Errorf("status: %s", s)
		}
	}
	l.sixfence(0, "harden", "status", "--acknowledge")
	l.sixfence(0, "harden", "status")
	log := l.Run("journalctl", "--no-pager", "-b", "-t", "sixfence", "-o", "json")
	for _, event := range []string{"armed", "rolled-back"} {
		if !strings.Contains(log, `"SIXFENCE_EVENT":"`+event+`"`) || !strings.Contains(log, `"SIXFENCE_TRANSACTION":"`+h[0].Transaction+`"`) {
			t.Errorf("the journal of the system does not have %q of %s:\n%s", event, h[0].Transaction, log)
		}
	}
}

// A reboot before confirm is an undo.
func TestSystemdRebootBeforeConfirm(t *testing.T) {
	t.Parallel()
	l := newBootLab(t, bootIntent)
	l.Boot()
	before := l.state()
	l.sixfence(0, "harden", "plan", "-o", "/root/plan.json")
	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
	if !l.ours() {
		t.Fatal("apply did not load the rules")
	}
	l.PowerCut()
	l.Boot()
	l.same("after the reboot", before)
	if s := l.sixfence(5, "harden", "status"); !strings.Contains(s, "started again before the change was confirmed") {
		t.Errorf("status: %s", s)
	}
	l.sixfence(0, "harden", "status", "--acknowledge")
	l.same("after the reboot, and status", before)
	l.sixfence(0, "harden", "plan", "-o", "/root/again.json")
}

// After confirm a boot has the intended state before it has a network; taken back, it
// leaves nothing behind.
func TestSystemdRebootAfterConfirm(t *testing.T) {
	t.Parallel()
	l := newBootLab(t, bootIntent)
	l.Boot()
	before := l.state()
	l.sixfence(0, "harden", "plan", "-o", "/root/plan.json")
	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
	l.sixfence(0, "harden", "confirm")
	l.sixfence(0, "harden", "status")
	l.within(30*time.Second, "our unit to be active", func() bool { return l.Show("sixfence-firewall.service", "ActiveState") == "active" })
	for _, verb := range []string{"restart", "reload"} { // both flush every table
		l.Run("systemctl", verb, "nftables.service")
		l.within(10*time.Second, "our rules to be there again after systemctl "+verb+" nftables", l.ours)
		l.sixfence(0, "harden", "status")
	}
	for boot := range 2 {
		l.PowerCut()
		l.Boot()
		const want = "all accept_redirects 0\ndefault accept_redirects 0\neth0 accept_redirects 0\n"
		if s := l.Run("cat", "/run/witness"); !strings.Contains(s, "table inet sixfence\n") || !strings.HasSuffix(s, want) {
			t.Errorf("boot %d: when eth0 came up there was\n%s", boot, s)
		}
		stamp := func(unit, property string) int {
			n, err := strconv.Atoi(l.Show(unit, property))
			if err != nil || n == 0 {
				t.Errorf("%s of %s: %d, %v", property, unit, n, err)
			}
			return n
		}
		flush, rules := stamp("nftables.service", "ActiveEnterTimestampMonotonic"), stamp("sixfence-firewall.service", "InactiveExitTimestampMonotonic")
		loaded, pre, up := stamp("sixfence-firewall.service", "ActiveEnterTimestampMonotonic"), stamp("network-pre.target", "ActiveEnterTimestampMonotonic"), stamp("networking.service", "InactiveExitTimestampMonotonic")
		if flush > rules || loaded > pre || pre > up {
			t.Errorf("nftables had flushed at %d, our rules were loaded from %d to %d, network-pre was reached at %d, the network came from %d", flush, rules, loaded, pre, up)
		}
		l.sixfence(0, "harden", "status")
		if s := l.sixfence(0, "harden", "plan"); !strings.HasPrefix(s, "Nothing to do") {
			t.Errorf("boot %d: plan is not empty:\n%s", boot, s)
		}
	}
	// Interfaces that come later, and modules.
	l.Run("ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
	for _, k := range []string{"accept_redirects", "accept_ra"} {
		if v := l.Run("cat", "/proc/sys/net/ipv6/conf/late0/"+k); v != "0\n" {
			t.Errorf("%s of a later interface is %q", k, v)
		}
	}
	l.Run("ip", "link", "del", "late0")
	if s := l.Run("modprobe", "--showconfig"); !strings.Contains(s, "install sit /bin/false") || !strings.Contains(s, "blacklist sit") {
		t.Error("modprobe does not know that it shall not load sit")
	}
	l.sixfence(0, "harden", "rollback")
	l.sixfence(0, "harden", "confirm")
	l.within(30*time.Second, "our units to go", func() bool { return !strings.Contains(strings.Join(l.state(), "\n"), "sixfence-") })
	l.same("taken back", before)
	l.PowerCut()
	l.Boot()
	l.same("taken back and rebooted", before)
	l.sixfence(0, "harden", "status")
}
