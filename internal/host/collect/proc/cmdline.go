package proc

import (
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Bounds of reading command lines. The pages are the process's own memory, so a
// reader may be kept waiting (see the package comment): it is abandoned then,
// with its goroutine and descriptor, and so there are few.
const (
	maxCommandLines = 32
	lineTimeout     = 250 * time.Millisecond
	maxLine         = 64 << 10
	maxFlagValue    = 512
)

// daemons are the executables that take part in IPv6 configuration: network
// managers, DHCP and RA software, and runtimes that make namespaces.
var daemons = map[string]bool{
	"systemd-networkd": true, "dhcpcd": true, "NetworkManager": true, "connmand": true,
	"dhclient": true, "udhcpc": true, "udhcpc6": true, "dhcp6c": true, "odhcp6c": true, "netplan": true,
	"wicked": true, "wickedd": true, "wickedd-dhcp6": true, "wickedd-nanny": true, "iwd": true,
	"systemd-resolved": true, "radvd": true, "dnsmasq": true, "rdisc6": true, "rdnssd": true,
	"dhcpd": true, "kea-dhcp6": true, "odhcpd": true, "corerad": true, "bird": true, "bird6": true, "zebra": true, "ndppd": true,
	"dockerd": true, "containerd": true, "podman": true, "crio": true, "lxd": true, "incusd": true,
	"kubelet": true, "kube-proxy": true, "k3s": true, "k3s-server": true, "k3s-agent": true, "rke2": true, "k0s": true, "microk8s": true,
	"libvirtd": true, "virtqemud": true, "virtnetworkd": true,
	"openvpn": true, "miredo": true, "miredo-server": true, "aiccu": true, "gogoc": true, "tayga": true,
}

func interesting(base string) bool {
	return daemons[base] || strings.HasPrefix(base, "qemu-system-")
}

// flagsOf lists the flags that are read from a daemon's command line; true
// marks a switch, which takes its value only after "=".
func flagsOf(base string) map[string]bool {
	switch base {
	case "dockerd":
		return map[string]bool{"ipv6": true, "ip6tables": true, "iptables": true, "userland-proxy": true, "config-file": false, "ip": false, "fixed-cidr-v6": false}
	case "kubelet":
		return map[string]bool{"node-ip": false, "address": false, "bind-address": false, "config": false, "hostname-override": false}
	case "kube-proxy":
		return map[string]bool{"proxy-mode": false, "nodeport-addresses": false, "bind-address": false, "config": false, "cluster-cidr": false, "healthz-bind-address": false, "metrics-bind-address": false}
	case "k3s", "k3s-server", "k3s-agent", "rke2", "k0s":
		return map[string]bool{"node-ip": false, "bind-address": false, "cluster-cidr": false, "service-cidr": false, "flannel-ipv6-masq": true}
	}
	return nil
}

// commandLine reads the wanted flags of a process, or nothing.
func (s *scanner) commandLine(pid int, want map[string]bool) map[string]string {
	if s.lines.Add(1) > maxCommandLines {
		s.stuck.Add(1)
		return nil
	}
	raw, ok := patiently(lineTimeout, func() []byte { return readLine("/proc/" + itoa(pid) + "/cmdline") })
	if !ok {
		s.stuck.Add(1)
		return nil
	}
	return parseFlags(raw, want)
}

// patiently runs f on a goroutine of its own and stops waiting after d.
func patiently(d time.Duration, f func() []byte) ([]byte, bool) {
	c := make(chan []byte, 1)
	go func() { c <- f() }()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case b := <-c:
		return b, true
	case <-t.C:
		return nil, false
	}
}

func readLine(name string) []byte {
	buf := make([]byte, maxLine)
	b, err := readSmall(unix.AT_FDCWD, name, buf)
	if err != nil {
		return nil
	}
	return b
}

// parseFlags picks the wanted flags out of NUL-separated arguments; the last
// one of a name counts. Whatever is not wanted is not kept.
func parseFlags(raw []byte, want map[string]bool) map[string]string {
	var out map[string]string
	args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	for i := 1; i < len(args); i++ {
		a, ok := strings.CutPrefix(args[i], "-")
		if !ok {
			continue
		}
		if a == "-" {
			break // end of options
		}
		a = strings.TrimPrefix(a, "-")
		name, value, given := strings.Cut(a, "=")
		isSwitch, wanted := want[name]
		if !wanted {
			continue
		}
		switch {
		case given:
		case isSwitch:
			value = "true"
		case i+1 < len(args):
			i++
			value = args[i]
		}
		if len(value) > maxFlagValue || !utf8.ValidString(value) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = value
	}
	return out
}
