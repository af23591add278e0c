package rtnl

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// decodeMembership decodes struct ifaddrmsg with IFA_MULTICAST.
func decodeMembership(b []byte) (fact.Membership, verdict) {
	if len(b) < unix.SizeofIfAddrmsg {
		return fact.Membership{}, malformed
	}
	if b[0] != unix.AF_INET6 {
		return fact.Membership{}, skip
	}
	out := fact.Membership{Index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	a := attrs{rest: b[unix.SizeofIfAddrmsg:]}
	for a.next() {
		if a.typ == unix.IFA_MULTICAST {
			out.Group = a.addr()
		}
	}
	if a.bad || !out.Group.IsValid() || out.Group.Is4() {
		return fact.Membership{}, malformed
	}
	return out, keep
}

// igmp6Path lists the same memberships as text, for kernels that do not answer
// RTM_GETMULTICAST.
const igmp6Path = "/proc/thread-self/net/igmp6"

// fileAnswer is a file of /proc, or why it was not read.
type fileAnswer struct {
	data []byte
	err  error
	gap  *fact.Gap
}

func readIGMP6(a *ask.Asker, b *ask.Budget) (ans fileAnswer) {
	a.Note("open", igmp6Path)
	f, err := os.Open(igmp6Path)
	if err != nil {
		return fileAnswer{err: err}
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if gap := b.Take("multicast memberships", n/64+1, n); gap != nil {
				return fileAnswer{gap: gap}
			}
			ans.data = append(ans.data, buf[:n]...)
		}
		if err == io.EOF {
			return ans
		}
		if err != nil {
			return fileAnswer{err: err}
		}
	}
}

// decode reads lines of "index name group users source-filter timer"
// (igmp6_mc_seq_show, net/ipv6/mcast.c). The name may hold no white space.
func (f *fileAnswer) decode(at string) fact.Known[[]fact.Membership] {
	const what = "multicast memberships"
	switch {
	case f.gap != nil:
		return fact.Missing[[]fact.Membership](*f.gap)
	case os.IsNotExist(f.err):
		return fact.Unsupported[[]fact.Membership]()
	case os.IsPermission(f.err):
		return fact.Missing[[]fact.Membership](fact.Gap{Reason: fact.Permission, What: what + at})
	case f.err != nil:
		return fact.Missing[[]fact.Membership](fact.Gap{Reason: fact.NotCollected, What: what + at})
	}
	out := []fact.Membership{}
	for line := range strings.Lines(string(f.data)) {
		m, ok := decodeIGMP6(strings.Fields(line))
		if !ok {
			return fact.Missing[[]fact.Membership](fact.Gap{Reason: fact.ParseGap, What: what + at})
		}
		out = append(out, m)
	}
	return fact.Value(out)
}

func decodeIGMP6(f []string) (m fact.Membership, ok bool) {
	if len(f) < 5 {
		return m, false
	}
	// The name may hold control bytes that strings.Fields takes for white space:
	// count the other columns from the end.
	group, users := f[len(f)-4], f[len(f)-3]
	var err error
	if m.Index, err = strconv.Atoi(f[0]); err != nil {
		return m, false
	}
	b, err := hex.DecodeString(group)
	if err != nil || len(b) != 16 {
		return m, false
	}
	m.Group = netip.AddrFrom16([16]byte(b))
	m.Users, err = strconv.Atoi(users)
	return m, err == nil
}
