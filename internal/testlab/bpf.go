package testlab

import (
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bpf makes the system call with an attribute union laid out by hand.
func bpf(cmd uintptr, attr *[128]byte) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// attachBPF attaches "return verdict" to something in the calling thread's namespace:
// target is an ifindex or 0, rest is what struct bpf_attr has after link_create.flags.
func attachBPF(progType, attachType uint32, verdict byte, target int, flags uint32, rest ...uint32) (int, error) {
	insns := &[16]byte{
		0xb7, 0, 0, 0, verdict, 0, 0, 0, // r0 = verdict
		0x95, 0, 0, 0, 0, 0, 0, 0, // exit
	}
	license := &[4]byte{'G', 'P', 'L', 0}
	var pin runtime.Pinner // the kernel reads through addresses that Go does not see
	pin.Pin(insns)
	pin.Pin(license)
	defer pin.Unpin()
	ne := binary.NativeEndian
	var load [128]byte
	ne.PutUint32(load[0:], progType)
	ne.PutUint32(load[4:], 2)
	ne.PutUint64(load[8:], uint64(uintptr(unsafe.Pointer(insns))))
	ne.PutUint64(load[16:], uint64(uintptr(unsafe.Pointer(license))))
	ne.PutUint32(load[68:], attachType) // expected_attach_type
	prog, err := bpf(unix.BPF_PROG_LOAD, &load)
	if err != nil {
		return -1, fmt.Errorf("load BPF program: %w", err)
	}
	defer unix.Close(prog)
	var create [128]byte
	ne.PutUint32(create[0:], uint32(prog))
	ne.PutUint32(create[4:], uint32(target))
	ne.PutUint32(create[8:], attachType)
	ne.PutUint32(create[12:], flags)
	for i, v := range rest {
		ne.PutUint32(create[16+4*i:], v)
	}
	link, err := bpf(unix.BPF_LINK_CREATE, &create)
	if err != nil {
		return -1, fmt.Errorf("create BPF link: %w", err)
	}
	return link, nil
}

// attach attaches inside the namespace until the test ends.
func (n *NS) attach(what string, f func() (int, error)) {
	n.t.Helper()
	n.Do(func() {
		fd, err := f()
		if err != nil {
			CannotRun(n.t, "%s: %v", what, err)
		}
		n.t.Cleanup(func() { unix.Close(fd) })
	})
}

// BPFNetfilter attaches a program to a netfilter hook (NFPROTO_*, NF_INET_*) that
// drops (0) or accepts (1) everything. Own the host first: every audit sees it.
func (n *NS) BPFNetfilter(family uint8, hook uint32, priority int32, verdict byte) {
	n.t.Helper()
	n.attach("BPF netfilter link", func() (int, error) {
		return attachBPF(unix.BPF_PROG_TYPE_NETFILTER, unix.BPF_NETFILTER, verdict, 0, 0, uint32(family), hook, uint32(priority), 0)
	})
}

// XDP attaches a generic XDP program with this verdict: 1 drops, 2 passes.
func (n *NS) XDP(ifname string, verdict byte) {
	n.t.Helper()
	n.attach("XDP", func() (int, error) {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			return -1, err
		}
		return attachBPF(unix.BPF_PROG_TYPE_XDP, unix.BPF_XDP, verdict, i.Index, unix.XDP_FLAGS_SKB_MODE)
	})
}

// TCX attaches a program to the interface's ingress: verdict 2 drops, 0 passes.
func (n *NS) TCX(ifname string, verdict byte) {
	n.t.Helper()
	n.attach("TCX", func() (int, error) {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			return -1, err
		}
		return attachBPF(unix.BPF_PROG_TYPE_SCHED_CLS, unix.BPF_TCX_INGRESS, verdict, i.Index, 0)
	})
}
