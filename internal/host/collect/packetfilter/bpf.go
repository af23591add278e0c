package packetfilter

import (
	"encoding/binary"
	"errors"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

const (
	// maxLinks and maxLinkTime bound the walk over BPF links, which anybody with
	// BPF rights may make many of.
	maxLinks    = 65536
	maxLinkTime = 2 * time.Second
)

// BPFDump is what was read about BPF programs outside any namespace.
type BPFDump struct {
	links fact.Known[[]fact.NetfilterLink]
}

// Decode fills the host's part.
func (d *BPFDump) Decode(h *fact.Host) { h.BPF.NetfilterLinks = d.links }

// ReadBPF looks at every BPF link for programs on netfilter hooks. The kernel does
// not say to which network namespace such a link belongs.
func ReadBPF(a *ask.Asker) *BPFDump { return &BPFDump{links: readLinks(a)} }

func readLinks(a *ask.Asker) fact.Known[[]fact.NetfilterLink] {
	if !a.Present("bpf") {
		if g := a.Doubt("bpf"); g != nil {
			return fact.Missing[[]fact.NetfilterLink](*g)
		}
		return fact.Absent[[]fact.NetfilterLink]()
	}
	a.Note("bpf", "BPF_LINK_GET_NEXT_ID")
	var out []fact.NetfilterLink
	end := time.Now().Add(maxLinkTime)
	var id uint32
	for n := 0; ; n++ {
		if n >= maxLinks || time.Now().After(end) {
			return fact.Missing[[]fact.NetfilterLink](fact.Gap{Reason: fact.Truncated, What: "BPF netfilter links: too many BPF links"})
		}
		next, err := nextLink(id)
		switch {
		case errors.Is(err, unix.ENOENT):
			if len(out) == 0 {
				return fact.Absent[[]fact.NetfilterLink]()
			}
			return fact.Value(out)
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			// Before Linux 5.8, or without the bpf system call: links on netfilter
			// hooks came with 6.4.
			return fact.Absent[[]fact.NetfilterLink]()
		case err != nil:
			return fact.Missing[[]fact.NetfilterLink](gapOf(err, "BPF netfilter links"))
		}
		id = next
		l, ok, err := linkInfo(id)
		if err != nil {
			return fact.Missing[[]fact.NetfilterLink](gapOf(err, "BPF netfilter links"))
		}
		if ok {
			out = append(out, l)
		}
	}
}

// bpf makes the system call with a zero-padded attribute union.
func bpf(cmd uintptr, attr *[64]byte) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// nextLink returns the id of the BPF link after id.
func nextLink(id uint32) (uint32, error) {
	var attr [64]byte // start_id, next_id, open_flags
	binary.NativeEndian.PutUint32(attr[0:], id)
	_, err := bpf(unix.BPF_LINK_GET_NEXT_ID, &attr)
	return binary.NativeEndian.Uint32(attr[4:]), err
}

// linkInfo looks at one link. A link that is gone, or of another type, is not ok.
func linkInfo(id uint32) (l fact.NetfilterLink, ok bool, err error) {
	var attr [64]byte // link_id
	binary.NativeEndian.PutUint32(attr[0:], id)
	fd, err := bpf(unix.BPF_LINK_GET_FD_BY_ID, &attr)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAGAIN) {
		return l, false, nil // it went, or is not made to the end (and attached to nothing)
	}
	if err != nil {
		return l, false, err
	}
	defer unix.Close(fd)
	// struct bpf_link_info: type, id, prog_id, and at 16 the union of the types.
	info := new([64]byte)
	var pin runtime.Pinner // the kernel writes through an address that Go does not see
	pin.Pin(info)
	defer pin.Unpin()
	attr = [64]byte{} // bpf_fd, info_len, info
	binary.NativeEndian.PutUint32(attr[0:], uint32(fd))
	binary.NativeEndian.PutUint32(attr[4:], uint32(len(info)))
	binary.NativeEndian.PutUint64(attr[8:], uint64(uintptr(unsafe.Pointer(info))))
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, &attr); err != nil {
		return l, false, err
	}
	word := func(off int) uint32 { return binary.NativeEndian.Uint32(info[off:]) }
	if word(0) != unix.BPF_LINK_TYPE_NETFILTER {
		return l, false, nil
	}
	return fact.NetfilterLink{ID: id, Family: uint8(word(16)), Hook: word(20), Priority: int32(word(24))}, true, nil
}
