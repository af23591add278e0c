package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab"
)

const netplanFile = `network:
  version: 2
  renderer: networkd
  ethernets:
    eth0:
      dhcp4: false
      accept-ra: true
      addresses: ["192.0.2.10/24", "2001:db8:1::10/64"]
      routes: [{to: "::/0", via: "2001:db8:1::1"}]
`

func newNetplanLab(t *testing.T, intent string) *bootLab {
	t.Helper()
	for _, tool := range []string{"netplan", "networkctl", "dbus-daemon"} {
		testlab.RequireTool(t, tool)
	}
	wire := testlab.NewNS(t, "wire")
	m := testlab.NewMachine(t, map[string]string{
		"/etc/nftables.conf":          debianNftables,
		"/etc/sixfence/sixfence.yaml": intent,
	})
	m.Write("/etc/netplan/01-eth0.yaml", netplanFile)
	m.Install(binary, "/usr/local/bin/sixfence")
	m.Bus()
	m.Write("/usr/local/bin/udevadm", "#!/bin/sh\nexit 0\n") // no udev runs here, and /sys is read-only
	if err := os.Remove(m.Path("/etc/systemd/system-generators/netplan")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(m.Path("/etc/netplan/01-eth0.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Enable("nftables.service")
	m.Enable("systemd-networkd.service")
	m.Wire("eth0", wire, "eth0")
	return &bootLab{Machine: m, t: t}
}

const slaacIntent = `apiVersion: sixfence/v1
role: server
families: dual-stack
interfaces:
  eth0:
    addressing: slaac
    pinGateway: true
    routers: [{address: "fe80::1", mac: "02:00:00:00:00:01", accepted: true}]
services:
  - {name: ssh, ports: [tcp/22], from: ["2001:db8:1::/64", "192.0.2.0/24"]}
tunnels: deny
`

// netplan and systemd-networkd, as people call them, take nothing away of what was kept.
// Where somebody has taken our file away as well, status names who undid the rest.
func TestSystemdNetplan(t *testing.T) {
	t.Parallel()
	l := newNetplanLab(t, slaacIntent)
	l.Boot()
	l.up()
	before := l.state()
	// netplan refuses what it reads when the change is confirmed: all of it is taken back.
	const broken = "/etc/netplan/90-broken.yaml"
	l.sixfence(0, "harden", "plan", "-o", "/root/plan.json")
	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
	l.sh("umask 077; echo 'network: {version: 2, ethernets: {eth0: {adresses: []}}}' >" + broken)
	if s := l.sixfence(5, "harden", "confirm"); !strings.Contains(s, "unknown key 'adresses'") {
		t.Errorf("confirm: %s", s)
	}
	if err := os.Remove(l.Path(broken)); err != nil {
		t.Fatal(err)
	}
	l.within(30*time.Second, "our units to go", func() bool { return !strings.Contains(strings.Join(l.state(), "\n"), "sixfence-") })
	l.same("after netplan refused", before)
	if s := l.sixfence(5, "harden", "status"); !strings.Contains(s, "it could not be finished: ") {
		t.Errorf("status: %s", s)
	}
	l.sixfence(0, "harden", "status", "--acknowledge")

	// While a change waits.
	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
	l.Run("netplan", "apply")
	l.Run("networkctl", "reconfigure", "eth0")
	l.up()
	l.sixfence(0, "harden", "rollback")
	l.within(30*time.Second, "the timer's units to go", func() bool { return !strings.Contains(strings.Join(l.state(), "\n"), "sixfence-") })
	l.same("after netplan apply while a change waited", before)

	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
	l.sixfence(0, "harden", "confirm")
	pinned := func() bool {
		return strings.Contains(l.Run("ip", "-6", "neigh", "show", "dev", "eth0"), "fe80::1 lladdr 02:00:00:00:00:01 PERMANENT")
	}
	for _, args := range [][]string{{"networkctl", "reload"}, {"networkctl", "reconfigure", "eth0"}, {"netplan", "apply"}, {"systemctl", "restart", "systemd-networkd.service"}} {
		l.Run(args[0], args[1:]...)
		l.up()
		// networkd takes it away for a moment, and sets it again by our drop-in.
		l.within(30*time.Second, "status to be content after "+strings.Join(args, " "), func() bool {
			return pinned() && l.Command("sixfence", "harden", "status").Run() == nil && pinned()
		})
	}
	if err := os.Remove(l.Path("/etc/systemd/network/10-netplan-eth0.network.d/zz-sixfence.conf")); err != nil {
		t.Fatal(err)
	}
	l.Run("sleep", "1.1") // times of the journal's --since are whole seconds
	l.Run("netplan", "apply")
	l.within(30*time.Second, "the pinned gateway to go", func() bool { return !pinned() })
	s := ""
	l.within(30*time.Second, "status to name them", func() bool {
		s = l.sixfence(1, "harden", "status")
		return strings.Contains(s, "onfiguring with /run/systemd/network/10-netplan-eth0.network")
	})
	for _, w := range []string{"DRIFT (kernel) neighbour:eth0 fe80::1: is absent", "perhaps by systemd-networkd.service, which said at ", "perhaps by netplan apply, or another that made netplan write /run/systemd/network/10-netplan-eth0.network at ", "DRIFT (disk) file:/etc/systemd/network/10-netplan-eth0.network.d/zz-sixfence.conf: is absent"} {
		if !strings.Contains(s, w) {
			t.Errorf("status does not say %q:\n%s", w, s)
		}
	}
}

// up waits until networkd has set eth0.
func (l *bootLab) up() {
	l.t.Helper()
	l.within(30*time.Second, "eth0 to have its addresses", func() bool {
		out := l.Run("ip", "-6", "address", "show", "dev", "eth0")
		return strings.Contains(out, "2001:db8:1::10/64") && strings.Contains(out, "fe80:") && !strings.Contains(out, "tentative")
	})
}

// Whoever flushes or overwrites what was kept: it comes back within ten seconds where the
// intent says so, and otherwise status names what it was.
func TestSystemdFlushed(t *testing.T) {
	t.Parallel()
	for _, restore := range []bool{false, true} {
		t.Run(map[bool]string{true: "restored", false: "reported"}[restore], func(t *testing.T) {
			t.Parallel()
			intent := bootIntent
			if restore {
				intent += "drift: restore\n"
			}
			l := kept(t, intent)
			l.within(30*time.Second, "our unit to be active", l.active("sixfence-firewall.service"))
			if restore {
				l.within(30*time.Second, "the service to run", l.active("sixfence-keep.service"))
			}
			l.Write("/etc/sysctl.d/99-zzz-other.conf", "net.ipv6.conf.*.accept_redirects = 1\n")
			redirects := func() bool { return l.Run("cat", "/proc/sys/net/ipv6/conf/eth0/accept_redirects") == "0\n" }
			for _, x := range []struct {
				run  string
				back func() bool
				said []string
			}{
				{"nft flush ruleset", l.ours, []string{"DRIFT (kernel) table:inet sixfence: is absent", "perhaps by nft flush ruleset, or what does the same: no table of anybody is left"}},
				{"sysctl --system >/dev/null 2>&1 || :", redirects, []string{"DRIFT (kernel) sysctl:net/ipv6/conf/eth0/accept_redirects: is = 1", "perhaps by a run of sysctl that read /etc/sysctl.d/99-zzz-other.conf"}},
			} {
				begun := time.Now()
				l.sh(x.run)
				if restore {
					l.within(10*time.Second, "what was kept after "+x.run, x.back)
					l.within(10*time.Second, "status to be content", func() bool { return l.Command("sixfence", "harden", "status").Run() == nil })
					t.Logf("%s: back, and status content, after %v", x.run, time.Since(begun).Round(time.Millisecond))
					continue
				}
				if x.back() {
					t.Fatalf("%s did nothing", x.run)
				}
				s := l.sixfence(1, "harden", "status")
				for _, w := range x.said {
					if !strings.Contains(s, w) {
						t.Errorf("after %s status does not say %q:\n%s", x.run, w, s)
					}
				}
			}
		})
	}
}

// Under a timer of systemd a service listens: a route that its owner has led elsewhere
// and then withdrawn, while the change had it destroyed, stays away. The undo does not
// need the service.
func TestSystemdListens(t *testing.T) {
	t.Parallel()
	for _, deaf := range []bool{false, true} {
		t.Run(map[bool]string{true: "deaf", false: "listening"}[deaf], func(t *testing.T) {
			t.Parallel()
			l := newBootLab(t, strings.Replace(bootIntent, "addressing: static\n", "addressing: static\n  w0: {addressing: none}\n", 1))
			l.Boot()
			l.sh(`ip link add w0 type veth peer name w1; ip link set w1 up; ip link set w0 up; ip -6 address add 2001:db8:2::10/64 dev w0 nodad
for n in 95 96; do ip -6 route add 2001:db8:$n::/64 via 2001:db8:2::1 dev w0 metric 500; done`)
			l.sixfence(0, "harden", "plan", "-o", "/root/plan.json")
			l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
			unit := strings.TrimSpace(l.sh("systemctl list-units --no-legend --plain --no-pager 'sixfence-undo-*-listen.service' | cut -d' ' -f1"))
			if unit == "" || l.Run("ip", "-6", "route", "show", "2001:db8:96::/64") != "" {
				t.Fatalf("unit %q, or nothing was destroyed", unit)
			}
			if deaf {
				l.Run("systemctl", "stop", unit)
			}
			l.sh("ip -6 route add 2001:db8:95::/64 via 2001:db8:1::1 dev eth0 metric 500; ip -6 route del 2001:db8:95::/64 via 2001:db8:1::1 dev eth0 metric 500")
			if !deaf {
				l.within(30*time.Second, "the service to hear of it", func() bool {
					return l.Command("grep", "-q", "touched", "/var/lib/sixfence/harden/pending/progress").Run() == nil
				})
			}
			l.sixfence(0, "harden", "rollback")
			if l.Run("ip", "-6", "route", "show", "2001:db8:96::/64") == "" {
				t.Error("what nobody touched did not come back")
			}
			if there := l.Run("ip", "-6", "route", "show", "2001:db8:95::/64") != ""; there != deaf {
				t.Errorf("the route that was withdrawn is there: %v", there)
			}
			if s := l.sixfence(0, "harden", "history", "--format", "json"); strings.Contains(s, "route 2001:db8:95::/64") == deaf {
				t.Errorf("history: %s", s)
			}
			l.within(30*time.Second, "our units to go", func() bool { return !strings.Contains(strings.Join(l.state(), "\n"), "sixfence-") })
		})
	}
}

func newRHELLab(t *testing.T, intent string) *bootLab {
	t.Helper()
	for _, tool := range []string{"NetworkManager", "nmcli", "dbus-daemon"} {
		testlab.RequireTool(t, tool)
	}
	wire := testlab.NewNS(t, "wire")
	m := testlab.NewMachine(t, map[string]string{
		"/etc/sysconfig/nftables.conf":                             "",
		"/etc/sysconfig/network-scripts/ifcfg-eth1":                "TYPE=Ethernet\nDEVICE=eth1\nBOOTPROTO=none\nONBOOT=yes\nIPV6INIT=yes\nIPV6_AUTOCONF=yes\n",
		"/etc/NetworkManager/NetworkManager.conf":                  "[main]\nplugins=keyfile\ndns=none\nrc-manager=unmanaged\nhostname-mode=none\n[device]\nmatch-device=interface-name:eth1\nmanaged=0\n",
		"/etc/NetworkManager/system-connections/eth0.nmconnection": "[connection]\nid=eth0\nuuid=0f6ad1d2-3b6c-4d5f-8a55-1e0f8f2d9a01\ntype=ethernet\ninterface-name=eth0\n\n[ipv4]\naddress1=192.0.2.10/24\nmethod=manual\n\n[ipv6]\naddress1=2001:db8:1::10/64,2001:db8:1::1\nmethod=auto\n",
		"/etc/sixfence/sixfence.yaml":                              intent,
	})
	m.Write("/etc/os-release.rhel", "NAME=\"Rocky Linux\"\nVERSION=\"9.4\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n")
	if err := os.Rename(m.Path("/etc/os-release.rhel"), m.Path("/etc/os-release")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(m.Path("/etc/NetworkManager/system-connections/eth0.nmconnection"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Install(binary, "/usr/local/bin/sixfence")
	m.Bus()
	m.Enable("NetworkManager.service")
	m.Wire("eth0", wire, "eth0")
	m.Wire("eth1", wire, "eth1")
	return &bootLab{Machine: m, t: t}
}

// A host as RHEL has them: NetworkManager, one profile as a keyfile and one as ifcfg, no
// ifupdown. What is kept outlasts NetworkManager, and whoever changes it by nmcli is named;
// of the ifcfg file nothing is promised.
func TestSystemdNetworkManager(t *testing.T) {
	t.Parallel()
	l := newRHELLab(t, strings.Replace(bootIntent, "addressing: static\n", "addressing: static\n  eth1: {addressing: static}\n", 1))
	l.Boot()
	l.up()
	before := l.state()
	plan := l.sixfence(0, "harden", "plan", "-o", "/root/plan.json")
	for _, w := range []string{"NetworkManager listens to Router Advertisements on eth1 by itself, and is not told otherwise", "ifcfg-eth1 is an ifcfg file: sixfence", "nmcli connection modify CONNECTION ipv6.method link-local"} {
		if !strings.Contains(plan, w) {
			t.Errorf("plan does not say %q:\n%s", w, plan)
		}
	}
	if strings.Contains(plan, "file /etc/network/") || strings.Contains(plan, "file /etc/sysconfig/") || strings.Contains(plan, "file /etc/netplan/") {
		t.Errorf("plan writes what nobody reads there, or what is not ours:\n%s", plan)
	}
	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
	l.Run("systemctl", "restart", "NetworkManager.service") // while it waits
	l.up()
	l.sixfence(0, "harden", "confirm")
	for _, args := range [][]string{{"nmcli", "connection", "reload"}, {"nmcli", "connection", "up", "eth0"}, {"systemctl", "restart", "NetworkManager.service"}} {
		l.Run(args[0], args[1:]...)
		l.up()
		l.sixfence(0, "harden", "status")
	}
	if m := l.Run("nmcli", "-g", "ipv6.method", "connection", "show", "eth0"); m != "manual\n" {
		t.Errorf("NetworkManager has the method %q", m)
	}
	l.PowerCut()
	l.Boot()
	l.up()
	if m := l.Run("nmcli", "-g", "ipv6.method", "connection", "show", "eth0"); m != "manual\n" {
		t.Errorf("after a boot NetworkManager has the method %q", m)
	}
	l.sixfence(0, "harden", "status")
	l.Run("sleep", "1.1") // times of the journal's --since are whole seconds
	l.Run("nmcli", "connection", "modify", "eth0", "ipv6.method", "auto")
	s := ""
	l.within(30*time.Second, "status to name it", func() bool {
		s = l.sixfence(1, "harden", "status")
		return strings.Contains(s, `audit: op="connection-update"`)
	})
	for _, w := range []string{"DRIFT (disk) file:/etc/NetworkManager/system-connections/eth0.nmconnection: is without them, or with others among or below them", "perhaps by NetworkManager.service, which said at ", "ipv6.method"} {
		if !strings.Contains(s, w) {
			t.Errorf("status does not say %q:\n%s", w, s)
		}
	}
	// Taken back, the profile that somebody else has written since is his.
	if s := l.sixfence(0, "harden", "rollback"); !strings.Contains(s, "kept as it is: file:/etc/NetworkManager/system-connections/eth0.nmconnection") {
		t.Errorf("rollback: %s", s)
	}
	l.sixfence(0, "harden", "confirm")
	l.sixfence(0, "harden", "status")
	l.within(30*time.Second, "our units to go", func() bool { return !strings.Contains(strings.Join(l.state(), "\n"), "sixfence-") })
	l.same("taken back", before, func(s string) bool {
		return strings.HasSuffix(s, "eth0.nmconnection") || strings.Contains(s, "/NetworkManager/")
	})
}
