package testlab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Daemon is a network manager that runs inside a namespace of the lab, with a
// mount namespace of its own: what it writes below /run, /var and /etc stays
// there.
type Daemon struct {
	PID int
	log *lockedBuffer
}

// Log is what the daemon printed so far.
func (d *Daemon) Log() string { return d.log.String() }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// daemon runs a shell script that ends in `exec PROGRAM` inside the namespace
// and a private mount namespace. Every step execs the next, so the pid is the
// program's.
func (n *NS) daemon(script string) *Daemon {
	n.t.Helper()
	d := &Daemon{log: &lockedBuffer{}}
	c := n.Command(RequireTool(n.t, "unshare"), "--mount", "--propagation", "private", "sh", "-ec", script)
	c.Stdout, c.Stderr = d.log, d.log
	c.WaitDelay = time.Second
	if err := c.Start(); err != nil {
		n.t.Fatalf("start daemon: %v", err)
	}
	d.PID = c.Process.Pid
	n.t.Cleanup(func() {
		_ = c.Process.Signal(unix.SIGTERM)
		done := make(chan struct{})
		go func() { _ = c.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(3 * time.Second):
			_ = c.Process.Kill()
			<-done
		}
		n.killAll()
		if n.t.Failed() {
			n.t.Logf("output of %s:\n%s", script[strings.LastIndexByte(script, '\n')+1:], tail(d.Log(), 1500))
		}
	})
	return d
}

// killAll ends whatever still runs inside the namespace: only this test put
// processes there, and dhcpcd leaves privilege-separated children behind.
func (n *NS) killAll() {
	out, _ := exec.Command("ip", "netns", "pids", n.Name).Output()
	for _, f := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// tmpfs covers directories with empty ones. udev's stay hidden, so that managers
// do not wait for a udevd that knows nothing of this namespace.
func tmpfs(dirs ...string) string {
	var b strings.Builder
	for _, d := range dirs {
		fmt.Fprintf(&b, "if [ -d %s ] || mkdir -p %s 2>/dev/null; then mount -t tmpfs tmpfs %s; fi\n", d, d, d)
	}
	return b.String()
}

// put writes files inside the mount namespace; contents travel by a
// directory of the test, so nothing has to be quoted.
func (n *NS) put(files map[string]string) string {
	n.t.Helper()
	var b strings.Builder
	dir := n.t.TempDir()
	i := 0
	for name, text := range files {
		src := filepath.Join(dir, strconv.Itoa(i))
		i++
		if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
			n.t.Fatal(err)
		}
		fmt.Fprintf(&b, "mkdir -p '%s'\ncp %s '%s'\n", filepath.Dir(name), src, name)
	}
	return b.String()
}

// Networkd runs systemd-networkd with these files in /etc/systemd/network
// (name → text) and returns when it has opened its ICMPv6 socket or configured
// the link. /sys is read-only, which tells networkd that no udev will come.
func (n *NS) Networkd(files map[string]string) *Daemon {
	n.t.Helper()
	bin := RequireTool(n.t, "systemd-networkd")
	units := map[string]string{}
	for name, text := range files {
		units["/etc/systemd/network/"+name] = text
	}
	script := "mount -o remount,ro /sys 2>/dev/null || mount -t sysfs -o ro sysfs /sys\n" +
		tmpfs("/run/systemd", "/run/udev", "/etc/systemd/network", "/var/lib/systemd") +
		n.put(units) +
		"mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/network\n" +
		"chmod -R a+rwX /run/systemd\nchmod -R a+rX /etc/systemd/network\n" +
		"export SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console\n" +
		"exec " + bin
	d := n.daemon(script)
	Eventually(n.t, 15*time.Second, "networkd to configure a link", func() bool {
		return strings.Contains(d.Log(), "configured") || strings.Contains(d.Log(), "NDISC: Sent Router Solicitation")
	})
	return d
}

// DHCPCD runs dhcpcd for IPv6 on one interface with this dhcpcd.conf and returns
// when it listens for router advertisements, or has read its configuration when
// conf says noipv6rs.
func (n *NS) DHCPCD(ifname, conf string) *Daemon {
	n.t.Helper()
	bin := RequireTool(n.t, "dhcpcd")
	script := tmpfs("/run/udev", "/var/lib/dhcpcd", "/var/lib/dhcpcd5", "/run/dhcpcd") +
		n.put(map[string]string{"/run/dhcpcd/lab.conf": conf}) +
		"if [ -e /etc/dhcpcd.conf ]; then mount --bind /run/dhcpcd/lab.conf /etc/dhcpcd.conf; fi\n" +
		"exec " + bin + " -B -d -6 -f /run/dhcpcd/lab.conf -c /bin/true --nodev " + ifname
	d := n.daemon(script)
	Eventually(n.t, 15*time.Second, "dhcpcd to start", func() bool {
		return strings.Contains(d.Log(), "soliciting") || strings.Contains(d.Log(), "sending Router Solicitation") || strings.Contains(conf, "noipv6rs") && n.holdsRaw(d.PID)
	})
	return d
}

// holdsRaw tells whether the process is past its start-up (it has any socket).
func (n *NS) holdsRaw(pid int) bool {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return err == nil && len(fds) > 4
}

// Inside prepares a command that runs in the daemon's network and mount
// namespaces: what somebody logged in on that host would see.
func (d *Daemon) Inside(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(d.PID), "-n", "-m", "--", name}, args...)...)
}

// NetworkManager runs NetworkManager with these files below /etc/NetworkManager (name →
// text), a message bus of its own, and returns when every one of the interfaces is
// connected: one that waits for an advertisement is not, until it has one. Like networkd, it takes a read-only /sys for a container without udev.
func (n *NS) NetworkManager(files map[string]string, ifaces ...string) *Daemon {
	n.t.Helper()
	bin, bus, cli := RequireTool(n.t, "NetworkManager"), RequireTool(n.t, "dbus-daemon"), RequireTool(n.t, "nmcli")
	all := map[string]string{"/etc/NetworkManager/NetworkManager.conf": "[main]\nplugins=keyfile\ndns=none\nrc-manager=unmanaged\nhostname-mode=none\n[logging]\nlevel=DEBUG\n"}
	for name, text := range files {
		all["/etc/NetworkManager/"+name] = text
	}
	d := n.daemon("mount -o remount,ro /sys 2>/dev/null || mount -t sysfs -o ro sysfs /sys\n" +
		tmpfs("/run/NetworkManager", "/run/dbus", "/run/systemd", "/run/udev", "/etc/NetworkManager", "/var/lib/NetworkManager") +
		n.put(all) +
		"mkdir -p /etc/NetworkManager/system-connections\nchmod -R go-rwx /etc/NetworkManager/system-connections\n" +
		bus + " --system --fork --nopidfile --address=unix:path=/run/dbus/system_bus_socket\n" +
		"exec unshare --uts " + bin + " --debug")
	Eventually(n.t, 60*time.Second, "NetworkManager to connect "+strings.Join(ifaces, ", "), func() bool {
		out, _ := d.Inside(cli, "-t", "-f", "DEVICE,STATE", "device").Output()
		for _, i := range ifaces {
			if !strings.Contains("\n"+string(out), "\n"+i+":connected\n") {
				return false
			}
		}
		return true
	})
	return d
}
