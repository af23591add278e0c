package rtnl

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

func TestLinksAgainstIP(t *testing.T) {
	t.Parallel()
	n, peer := testlab.NewNS(t, "links"), testlab.NewNS(t, "peer")
	testlab.Link(n, "up0", peer, "up1")
	n.IP("link", "add", "br0", "type", "bridge")
	n.IP("link", "set", "up0", "master", "br0")
	n.IP("link", "add", "p0", "type", "veth", "peer", "name", "p1")
	n.IP("link", "set", "p0", "master", "br0")
	n.Run("bridge", "link", "set", "dev", "p0", "isolated", "on")
	n.IP("link", "add", "mv0", "link", "p1", "type", "macvlan", "mode", "bridge")
	n.IP("link", "add", "vx4", "type", "vxlan", "id", "42", "remote", "192.0.2.9", "local", "192.0.2.1", "dstport", "4789", "ttl", "7")
	n.IP("link", "add", "vx6", "type", "vxlan", "id", "43", "group", "ff02::7", "dev", "p1", "dstport", "8472")
	n.IP("link", "add", "vxext", "type", "vxlan", "external", "dstport", "4790")
	n.IP("tuntap", "add", "tap0", "mode", "tap")
	n.IP("link", "add", "eth0.100", "type", "veth", "peer", "name", "q\xff")
	n.IP("link", "property", "add", "dev", "p0", "altname", "a-rather-long-alternative-name")
	n.IP("link", "set", "mv0", "mtu", "1400", "up")
	n.IP("token", "set", "::4711", "dev", "mv0")
	n.IP("link", "set", "vx4", "addrgenmode", "random")
	n.IP("link", "add", "nov6", "type", "veth", "peer", "name", "nov6p")
	n.IP("link", "set", "nov6", "mtu", "1279")

	ns := collect(n)
	line := func(index int, name, kind, slave, mac string, mtu, master int, up bool) string {
		return fmt.Sprintf("%d %s kind=%s slave=%s mac=%s mtu=%d master=%d up=%v", index, name, kind, slave, mac, mtu, master, up)
	}
	index := map[string]int{}
	rows := ipJSON(t, n, "link")
	for _, r := range rows {
		index[str(r, "ifname")] = num(r, "ifindex")
	}
	var got, want []string
	for _, r := range rows {
		info := sub(r, "linkinfo")
		name := str(r, "ifname")
		if name == "q\ufffd" {
			name = `q\xff` // ip(8) writes the byte as it is, which is no JSON
		}
		up := strings.Contains(fmt.Sprint(r["flags"]), "UP")
		want = append(want, line(num(r, "ifindex"), name, str(info, "info_kind"), str(info, "info_slave_kind"), str(r, "address"),
			num(r, "mtu"), index[str(r, "master")], up))
	}
	for _, l := range must(t, "links", ns.Links) {
		got = append(got, line(l.Index, l.Name, l.Kind, l.SlaveKind, l.MAC, int(l.MTU), l.Master, l.Flags&unix.IFF_UP != 0))
	}
	sameLines(t, "links", got, want)

	if l := link(t, ns, "up0"); l.PeerNS == nil || l.BridgePort == nil || l.BridgePort.Isolated || l.OperState != 6 {
		t.Errorf("up0: %+v", l)
	}
	if l := link(t, ns, "p0"); l.BridgePort == nil || !l.BridgePort.Isolated || len(l.AltNames) != 1 || l.AltNames[0] != "a-rather-long-alternative-name" || l.PeerNS != nil {
		t.Errorf("p0: %+v", l)
	}
	if l := link(t, ns, "mv0"); l.Parent != index["p1"] || l.Tunnel != nil {
		t.Errorf("mv0: %+v", l)
	}
	if l := link(t, ns, "nov6"); l.Inet6.State() != fact.StateAbsent || l.AddrGenMode.State() != fact.StateAbsent {
		t.Errorf("nov6 has no IPv6 (MTU below 1280): %v, %v", l.Inet6.State(), l.AddrGenMode.State())
	}
	if l := link(t, ns, "mv0"); l.Token.Or(netip.Addr{}) != netip.MustParseAddr("::4711") {
		t.Errorf("mv0: token %v", l.Token)
	}
	if l := link(t, ns, "vx4"); l.Token.State() != fact.StateAbsent {
		t.Errorf("vx4: token %v", l.Token)
	}
	if l := link(t, ns, "vx4"); l.AddrGenMode.Or(99) != 3 {
		t.Errorf("vx4: addrgenmode %v", l.AddrGenMode.Or(99))
	}
	if l := link(t, ns, "p1"); l.XDP.Or(99) != 0 {
		t.Errorf("p1: XDP %v", l.XDP)
	}
	for name, want := range map[string]fact.Tunnel{
		"vx4":   {Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.9"), TTL: 7, Port: 4789, VNI: 42, Complete: true},
		"vx6":   {Remote: netip.MustParseAddr("ff02::7"), Port: 8472, VNI: 43, Complete: true},
		"vxext": {Port: 4790, CollectMetadata: true, Complete: true},
		"tap0":  {Complete: true},
	} {
		if l := link(t, ns, name); l.Tunnel == nil || *l.Tunnel != want {
			t.Errorf("%s: %+v, want %+v", name, l.Tunnel, want)
		}
	}
}

// notInDevconf are the files that IFLA_INET6_CONF does not carry.
var notInDevconf = map[string]bool{
	"stable_secret": true, "ra_honor_pio_life": true, "ra_honor_pio_pflag": true, "regen_min_advance": true,
}

// TestDevconfAgainstProc gives every setting of an interface a value of its own
// and compares IFLA_INET6_CONF with the files, both ways.
func TestDevconfAgainstProc(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "devconf")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	const dir = "/proc/sys/net/ipv6/conf/v0/"
	set := 0
	files := map[string]string{}
	n.Do(func() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Errorf("list: %v", err)
			return
		}
		for i, e := range entries {
			if e.Name() == "stable_secret" || e.Name() == "disable_ipv6" {
				continue
			}
			// Some settings take a small range only: try the odd value first.
			for _, v := range []string{strconv.Itoa(101 + i), "3", "2", "1"} {
				if os.WriteFile(dir+e.Name(), []byte(v), 0) == nil {
					set++
					break
				}
			}
		}
		for _, e := range entries {
			if b, err := os.ReadFile(dir + e.Name()); err == nil {
				files[e.Name()] = strings.TrimSpace(string(b))
			} else if e.Name() != "stable_secret" {
				t.Errorf("read %s: %v", e.Name(), err)
			}
		}
	})
	if set < 50 {
		t.Fatalf("only %d settings could be changed", set)
	}
	conf := must(t, "inet6", link(t, collect(n), "v0").Inet6)
	distinct := map[int32]bool{}
	for name, v := range conf {
		distinct[v] = true
		want, err := strconv.ParseInt(files[name], 10, 64)
		if err != nil {
			t.Errorf("%s: the file says %q", name, files[name])
			continue
		}
		if want > math.MaxInt32 { // the entry has 32 bits
			want = int64(int32(uint32(want)))
		}
		if int64(v) != want {
			t.Errorf("%s = %d, the file says %d", name, v, want)
		}
	}
	if len(distinct) < 30 {
		t.Errorf("only %d different values: a swapped entry could hide", len(distinct))
	}
	for name := range files {
		if _, ok := conf[name]; !ok && !notInDevconf[name] {
			t.Errorf("%s is not decoded", name)
		}
	}
}

// TestIngress puts real programs on the ingress side.
func TestIngress(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "tc")
	for i := range 4 {
		n.IP("link", "add", fmt.Sprintf("v%d", 2*i), "type", "veth", "peer", "name", fmt.Sprintf("v%d", 2*i+1))
	}
	n.Run("tc", "qdisc", "add", "dev", "v0", "clsact")
	n.Run("tc", "qdisc", "add", "dev", "v1", "clsact")
	n.Run("tc", "filter", "add", "dev", "v1", "ingress", "protocol", "ipv6", "u32", "match", "u32", "0", "0")
	n.Run("tc", "qdisc", "add", "dev", "v2", "ingress")
	n.Run("tc", "filter", "add", "dev", "v2", "parent", "ffff:", "protocol", "all", "u32", "match", "u32", "0", "0")
	n.Run("tc", "qdisc", "add", "dev", "v3", "clsact")
	n.Run("tc", "filter", "add", "dev", "v3", "egress", "protocol", "all", "u32", "match", "u32", "0", "0")
	n.Do(func() {
		cls := loadProgram(t, unix.BPF_PROG_TYPE_SCHED_CLS)
		attachTCX(t, cls, ifindex(t, "v4"))
		xdp := loadProgram(t, unix.BPF_PROG_TYPE_XDP)
		h, err := netlink.NewHandle()
		if err != nil {
			t.Errorf("netlink: %v", err)
			return
		}
		defer h.Close()
		v6, err := h.LinkByName("v6")
		if err == nil {
			err = netlink.LinkSetXdpFdWithFlags(v6, xdp, 1<<1) // XDP_FLAGS_SKB_MODE
		}
		if err != nil {
			t.Errorf("attach XDP: %v", err)
		}
	})
	ns := collect(n)
	for name, want := range map[string]bool{"lo": false, "v0": false, "v1": true, "v2": true, "v3": false, "v4": true, "v5": false} {
		if got, ok := link(t, ns, name).TCIngress.Get(); !ok || got != want {
			t.Errorf("%s: TC ingress %v (known %v), want %v", name, got, ok, want)
		}
	}
	if got := link(t, ns, "v6").XDP.Or(99); got != 2 {
		t.Errorf("v6: XDP %d, want 2 (generic)", got)
	}
	if got := link(t, ns, "v7").XDP.Or(99); got != 0 {
		t.Errorf("v7: XDP %d, want 0", got)
	}

	// An ordinary user may not ask for TCX: true where a filter is enough to
	// know, unknown elsewhere.
	var d *Dump
	n.Do(func() {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			t.Errorf("setresuid: %v", errno)
			return
		}
		d = Read(asker(), budget())
	})
	user := fact.Namespace{Name: "lab"}
	d.Decode(&user)
	if got, ok := link(t, user, "v1").TCIngress.Get(); !ok || !got {
		t.Errorf("unprivileged v1: %v %v", got, ok)
	}
	for _, name := range []string{"v0", "v4"} {
		if g, ok := link(t, user, name).TCIngress.Gap(); !ok || g.Reason != fact.Permission {
			t.Errorf("unprivileged %s: %v", name, g)
		}
	}
}

func ifindex(t *testing.T, name string) int {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Errorf("socket: %v", err)
		return 0
	}
	defer unix.Close(fd)
	req, _ := unix.NewIfreq(name)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		t.Errorf("index of %s: %v", name, err)
	}
	return int(req.Uint32())
}

// loadProgram loads "r0 = 2; exit" (XDP_PASS, or TC_ACT_SHOT).
func loadProgram(t *testing.T, typ uint32) int {
	insns := []byte{0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0}
	license := []byte("GPL\x00")
	attr := struct {
		typ, count              uint32
		insns, license          uint64
		logLevel, logSize       uint32
		log                     uint64
		kernVersion, flags      uint32
		name                    [16]byte
		ifindex, expectedAttach uint32
	}{typ: typ, count: 2, insns: uint64(uintptr(unsafe.Pointer(&insns[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		t.Errorf("load program: %v", errno)
		return -1
	}
	t.Cleanup(func() { unix.Close(int(fd)) })
	return int(fd)
}

func attachTCX(t *testing.T, prog, index int) {
	attr := struct{ target, prog, attachType, flags uint32 }{uint32(index), uint32(prog), unix.BPF_TCX_INGRESS, 0}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); errno != 0 {
		t.Errorf("attach TCX: %v", errno)
	}
}
