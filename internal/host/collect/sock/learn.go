package sock

import "github.com/sixfence/sixfence/internal/model/fact"

// Options are what only the socket itself tells.
type Options struct {
	V6Only fact.Known[bool]
	Index  fact.Known[int] // interface it is bound to; 0: none
}

// maxLearned bounds how many sockets are asked.
const maxLearned = 4096

// Learn asks, for sockets read from /proc, what that does not show: whether an
// IPv6 socket is IPv6 only, and the interface a socket is bound to. Guessing from
// the neighbours is not safe: an IPv4 wildcard listener on the same port proves
// nothing where SO_REUSEPORT is set. query answers for one inode; wildcard
// IPv6 sockets, whose reach hangs on it, come first.
func (d *Dump) Learn(query func(inode uint64) Options) {
	var first, rest []uint64
	for i := range d.tables {
		t := &d.tables[i]
		if t.source != sourceProc || t.protocol == "packet" {
			continue
		}
		t.each(func(s *fact.Socket) {
			switch {
			case s.Inode == 0:
			case s.Family == "ipv6" && s.Local.IsUnspecified() && s.State != "connected":
				first = append(first, s.Inode)
			default:
				rest = append(rest, s.Inode)
			}
		})
	}
	if len(first)+len(rest) == 0 {
		return
	}
	d.options = map[uint64]Options{}
	for _, inode := range append(first, rest...) {
		if len(d.options) >= maxLearned {
			return
		}
		if _, ok := d.options[inode]; !ok {
			d.options[inode] = query(inode)
		}
	}
}

// complete fills in what Learn found.
func (d *Dump) complete(s *fact.Socket) {
	if s.Source != sourceProc || s.Protocol == "packet" {
		return
	}
	o, asked := d.options[s.Inode]
	if i, ok := o.Index.Get(); ok {
		s.Index, s.IndexUnknown = i, false
	}
	if s.Family != "ipv6" || s.V6Only.State() != fact.StateGap {
		return
	}
	switch {
	case asked:
		s.V6Only = o.V6Only
	default:
		s.V6Only = fact.Missing[bool](fact.Gap{Reason: fact.NotCollected, What: "IPV6_V6ONLY of a socket: inet_diag is not loaded, and the socket was not asked"})
	}
}
