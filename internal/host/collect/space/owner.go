package space

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ownerUID is NS_GET_OWNER_UID: who made the user namespace, as our user
// namespace knows him.
func ownerUID(fd int) (uint32, error) {
	var uid uint32
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetOwnerUID, uintptr(unsafe.Pointer(&uid)))
	if e != 0 {
		return 0, e
	}
	return uid, nil
}
