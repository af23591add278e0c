package packetfilter

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Getsockopt lets a test ask what the product never asks.
var Getsockopt = getsockopt

// AttachBPF attaches "return verdict" (0 drops, 1 accepts) to a netfilter hook of the
// calling thread's namespace. Closing the returned link detaches it.
func AttachBPF(family uint8, hook uint32, priority int32, verdict byte) (int, error) {
	insns := &[16]byte{
		0xb7, 0, 0, 0, verdict, 0, 0, 0, // r0 = verdict
		0x95, 0, 0, 0, 0, 0, 0, 0, // exit
	}
	license := &[4]byte{'G', 'P', 'L', 0}
	var pin runtime.Pinner
	pin.Pin(insns)
	pin.Pin(license)
	defer pin.Unpin()
	ne := binary.NativeEndian
	var load [128]byte
	ne.PutUint32(load[0:], unix.BPF_PROG_TYPE_NETFILTER)
	ne.PutUint32(load[4:], 2)
	ne.PutUint64(load[8:], uint64(uintptr(unsafe.Pointer(insns))))
	ne.PutUint64(load[16:], uint64(uintptr(unsafe.Pointer(license))))
	ne.PutUint32(load[68:], unix.BPF_NETFILTER) // expected_attach_type
	prog, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		return -1, fmt.Errorf("load program: %w", errno)
	}
	defer unix.Close(int(prog))
	var create [64]byte // prog_fd, target_fd, attach_type, flags, then netfilter{pf, hooknum, priority, flags}
	ne.PutUint32(create[0:], uint32(prog))
	ne.PutUint32(create[8:], unix.BPF_NETFILTER)
	ne.PutUint32(create[16:], uint32(family))
	ne.PutUint32(create[20:], hook)
	ne.PutUint32(create[24:], uint32(priority))
	link, err := bpf(unix.BPF_LINK_CREATE, &create)
	if err != nil {
		return -1, fmt.Errorf("create link: %w", err)
	}
	return link, nil
}
