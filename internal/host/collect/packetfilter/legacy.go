package packetfilter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// legacyFamily is one kind of x_tables and how it is asked.
type legacyFamily struct {
	name   string // as in fact.LegacyTable
	module string
	list   string // the tables of the namespace that exist
	domain int    // of the socket
	level  int
	info   int // IPT_SO_GET_INFO; the entries are the next option
	hooks  int // array size in struct ipt_getinfo
}

// The numbers are from include/uapi/linux/netfilter_{ipv4/ip,ipv6/ip6,arp/arp}_tables.h.
var legacyFamilies = []legacyFamily{
	{"ipv4", "ip_tables", "/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, 64, 5},
	{"ipv6", "ip6_tables", "/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, 64, 5},
	{"arp", "arp_tables", "/proc/thread-self/net/arp_tables_names", unix.AF_INET, unix.IPPROTO_IP, 96, 3},
}

// maxTables bounds the tables of a family; the kernel knows five.
const maxTables = 32

// readLegacy reads the tables that exist. A table that is not listed is not
// asked for: the question would create it.
func readLegacy(a *ask.Asker, b *ask.Budget) fact.Known[[]fact.LegacyTable] {
	var out []fact.LegacyTable
	for _, f := range legacyFamilies {
		a.Note("open", f.list)
		names, err := os.ReadFile(f.list)
		if errors.Is(err, os.ErrNotExist) {
			if _, err := os.Stat("/proc/thread-self/net/dev"); err != nil {
				return fact.Missing[[]fact.LegacyTable](gapOf(err, f.list))
			}
			continue // the module makes the file: it is not there
		}
		if err != nil {
			return fact.Missing[[]fact.LegacyTable](gapOf(err, f.list))
		}
		n := 0
		for name := range bytes.FieldsSeq(names) {
			if n++; n > maxTables {
				return fact.Missing[[]fact.LegacyTable](fact.Gap{Reason: fact.Truncated, What: f.list})
			}
			t := fact.LegacyTable{Family: f.name, Name: string(name)}
			if g := b.Take("packet filter", 1, 0); g != nil {
				return fact.Missing[[]fact.LegacyTable](*g)
			}
			f.table(a, b, &t)
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return fact.Absent[[]fact.LegacyTable]()
	}
	return fact.Value(out)
}

// table asks for a table that is listed. What cannot be read leaves Hooks 0
// (unknown) and a Gap in Blob.
func (f *legacyFamily) table(a *ask.Asker, b *ask.Budget, t *fact.LegacyTable) {
	what := "x_tables " + f.name + " " + t.Name
	if !a.Present(f.module) {
		t.Blob = fact.Missing[[]byte](fact.Gap{Reason: fact.NotCollected, What: what + ": " + f.module + " is not known to be there"})
		return
	}
	// Any socket of the family answers, and a datagram socket needs no capability.
	fd, err := unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Blob = fact.Missing[[]byte](gapOf(err, what))
		return
	}
	defer unix.Close(fd)
	for range tries {
		var g *fact.Gap
		if g, err = f.entries(a, b, fd, t); g != nil {
			t.Blob = fact.Missing[[]byte](*g)
			return
		}
		if !errors.Is(err, unix.EAGAIN) {
			break // EAGAIN: it was replaced by one of another size
		}
	}
	if err != nil {
		t.Blob = fact.Missing[[]byte](gapOf(err, what))
	}
}

// struct ipt_getinfo and struct ipt_get_entries: name, then 32-bit words.
const (
	nameLen    = 32                // XT_TABLE_MAXNAMELEN
	entriesOff = (nameLen + 4) + 4 // entrytable is aligned to 8
)

func (f *legacyFamily) entries(a *ask.Asker, b *ask.Budget, fd int, t *fact.LegacyTable) (*fact.Gap, error) {
	if len(t.Name) >= nameLen {
		return nil, fmt.Errorf("read table: name of %d bytes", len(t.Name))
	}
	info := make([]byte, nameLen+4+8*f.hooks+8)
	copy(info, t.Name)
	a.Note("getsockopt", fmt.Sprintf("GET_INFO %s %s", f.module, t.Name))
	if err := getsockopt(fd, f.level, f.info, info); err != nil {
		return nil, fmt.Errorf("read table info: %w", err)
	}
	word := binary.NativeEndian.Uint32
	hooks, size := word(info[nameLen:]), word(info[len(info)-4:])
	if g := b.Take("packet filter", 1, int(size)); g != nil {
		t.Hooks = hooks
		return g, nil
	}
	buf := make([]byte, entriesOff+int(size))
	copy(buf, t.Name)
	binary.NativeEndian.PutUint32(buf[nameLen:], size)
	a.Note("getsockopt", fmt.Sprintf("GET_ENTRIES %s %s", f.module, t.Name))
	if err := getsockopt(fd, f.level, f.info+1, buf); err != nil {
		return nil, fmt.Errorf("read table entries: %w", err)
	}
	t.Hooks, t.Entries = hooks, word(info[len(info)-8:])
	t.HookEntry, t.Underflow = nil, nil
	for i := range f.hooks {
		t.HookEntry = append(t.HookEntry, word(info[nameLen+4+4*i:]))
		t.Underflow = append(t.Underflow, word(info[nameLen+4+4*(f.hooks+i):]))
	}
	t.Blob = fact.Value(buf[entriesOff:])
	return nil, nil
}

// getsockopt passes a whole buffer in and out; x/sys has no such call.
func getsockopt(fd, level, opt int, buf []byte) error {
	n := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
