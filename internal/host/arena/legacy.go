package arena

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// legacyFamily is how a kind of x_tables is asked and where the parts of its entries are
// (include/uapi/linux/netfilter_{ipv4/ip,ipv6/ip6,arp/arp}_tables.h).
type legacyFamily struct {
	domain, level int
	option        int // of SET_REPLACE and GET_INFO
	hooks         int // array size in struct ipt_replace
	offsets       int // target_offset, next_offset
	header        int // sizeof(struct ipt_entry)
	tool          string
}

var legacyFamilies = map[string]legacyFamily{
	"ipv4": {unix.AF_INET, unix.IPPROTO_IP, 64, 5, 88, 112, "iptables"},
	"ipv6": {unix.AF_INET6, unix.IPPROTO_IPV6, 64, 5, 140, 168, "ip6tables"},
	"arp":  {unix.AF_INET, unix.IPPROTO_IP, 96, 3, 164, 192, "arptables"},
}

// LegacyName is a table of x_tables in words.
func LegacyName(t *fact.LegacyTable) string {
	f, ok := legacyFamilies[t.Family]
	if !ok {
		f.tool = t.Family
	}
	return f.tool + " (legacy) table " + t.Name
}

const (
	tableName   = 32 // XT_TABLE_MAXNAMELEN
	extHeader   = 32 // struct xt_entry_match, struct xt_entry_target
	extName     = 29
	acceptEntry = -2 // a verdict: -NF_ACCEPT - 1
	queueEntry  = -4 // -NF_QUEUE - 1
)

var errEntries = errors.New("its entries are not understood")

// entry is an entry of a table, with what f is called for: its matches, then its target.
func (l *legacyFamily) entry(b []byte, f func(kind, name string, info []byte) error) (next int, err error) {
	if len(b) < l.header {
		return 0, errEntries
	}
	target, next := int(binary.NativeEndian.Uint16(b[l.offsets:])), int(binary.NativeEndian.Uint16(b[l.offsets+2:]))
	if target < l.header || next > len(b) || target+extHeader > next {
		return 0, errEntries
	}
	for at, kind := l.header, "match"; at < next; {
		if at == target {
			kind = "target"
		}
		if at+extHeader > next {
			return 0, errEntries
		}
		size := int(binary.NativeEndian.Uint16(b[at:]))
		if size < extHeader || at+size > next || kind == "match" && at+size > target {
			return 0, errEntries
		}
		if err := f(kind, cstring(b[at+2:at+2+extName]), b[at+extHeader:at+size]); err != nil {
			return 0, err
		}
		at += size
	}
	return next, nil
}

// LegacyIdle tells whether a table surely does nothing: it has no rule, and its policies
// accept.
func LegacyIdle(t *fact.LegacyTable) bool {
	l, ok := legacyFamilies[t.Family]
	b, read := t.Blob.Get()
	if !ok || !read {
		return false
	}
	for len(b) > 0 {
		idle := true
		next, err := l.entry(b, func(kind, name string, info []byte) error {
			idle = idle && kind == "target" && (name == "ERROR" || name == "" && len(info) >= 4 && int32(binary.NativeEndian.Uint32(info)) == acceptEntry)
			return nil
		})
		if err != nil || !idle {
			return false
		}
		b = b[next:]
	}
	return true
}

// legacy loads a table as the kernel gave it out: the structure that is read is the one
// that is written. Addresses within the kernel are not in it (xt_data_to_user), revisions
// of the extensions are.
func legacy(t *fact.LegacyTable) error {
	l, ok := legacyFamilies[t.Family]
	got, read := t.Blob.Get()
	switch {
	case !ok || len(t.Name) >= tableName:
		return errEntries
	case !read:
		g, _ := t.Blob.Gap()
		return fmt.Errorf("it was not read (%s)", g.What)
	case len(t.HookEntry) != l.hooks || len(t.Underflow) != l.hooks || len(got) == 0:
		return errEntries
	}
	blob := slices.Clone(got)
	for b := blob; len(b) > 0; {
		next, err := l.entry(b, func(kind, name string, info []byte) error {
			if kind == "target" && name == "" && len(info) >= 4 && int32(binary.NativeEndian.Uint32(info)) == queueEntry {
				name = "QUEUE"
			}
			return extension(kind, name, info)
		})
		if err != nil {
			return err
		}
		b = b[next:]
	}
	fd, err := unix.Socket(l.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	// The question makes the table; how many entries it has is asked back.
	info := make([]byte, tableName+4+8*l.hooks+8)
	copy(info, t.Name)
	n := uint32(len(info))
	if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(l.level), uintptr(l.option), uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&n)), 0); e != 0 {
		return fmt.Errorf("make the table: %w", e)
	}
	old := binary.NativeEndian.Uint32(info[len(info)-8:])
	if old > 1<<20 {
		return errEntries
	}
	counters := make([]byte, 16*max(old, 1)) // struct xt_counters of those that go
	word := binary.NativeEndian.AppendUint32
	r := make([]byte, tableName, tableName+4*16+len(blob))
	copy(r, t.Name)
	r = word(word(word(r, t.Hooks), t.Entries), uint32(len(blob)))
	for _, v := range append(slices.Clone(t.HookEntry), t.Underflow...) {
		r = word(r, v)
	}
	r = word(r, old)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&counters[0])
	const pointer = int(unsafe.Sizeof(uintptr(0)))
	for len(r)%pointer != 0 {
		r = append(r, 0)
	}
	at := uint64(uintptr(unsafe.Pointer(&counters[0])))
	if pointer == 8 {
		r = binary.NativeEndian.AppendUint64(r, at)
	} else {
		r = word(r, uint32(at))
	}
	for len(r)%8 != 0 {
		r = append(r, 0)
	}
	if err := unix.SetsockoptString(fd, l.level, l.option, string(append(r, blob...))); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("a set, or another object that it names, is not there (%w)", err)
		}
		return fmt.Errorf("the kernel does not take it: %w", err)
	}
	return nil
}
