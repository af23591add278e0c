package packetfilter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// maxElements and maxExpanded are how many elements of one set are read, without and
// with being asked for whole sets. The kernel counts the end of an interval as one more.
// It lists an rbtree of 500,000 intervals in half a minute.
const (
	maxElements = 65536
	maxExpanded = 4 << 20
)

// setCount is NFTA_SET_COUNT of newer kernels.
const setCount = 20

// elements reads the elements of every set. A set that is too large is listed
// as unexpanded, and questions that depend on it stay open.
func (r *nftReader) elements(n *fact.NFTables) error {
	for _, m := range n.Sets {
		if len(m) < 4 {
			continue
		}
		s, known, ok := setName(m)
		if !ok {
			continue
		}
		var msgs [][]byte
		full := known > r.elementsMax
		if !full {
			var err error
			if msgs, full, err = r.elementsOf(m[0], s.Table, s.Name); err != nil {
				return err
			}
		}
		n.Elements = append(n.Elements, msgs...)
		if full {
			s.Gap = fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("set %s: %s%s", s.Name, size(known, r.elementsMax), r.advice)}
			n.Unexpanded = append(n.Unexpanded, s)
		}
		if r.full != nil {
			return nil
		}
	}
	return nil
}

// size says how many elements a set has, of which the kernel may have told the number.
func size(known, bound int) string {
	if known > bound {
		return fmt.Sprintf("%d elements, more than %d", known, bound)
	}
	return fmt.Sprintf("more than %d elements", bound)
}

// setName reads the name of a set, and how many elements it has where the kernel tells.
func setName(m []byte) (s fact.UnexpandedSet, count int, ok bool) {
	s.Family = m[0]
	ad, err := netlink.NewAttributeDecoder(m[4:])
	if err != nil {
		return s, 0, false
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_TABLE:
			s.Table = ad.String()
		case unix.NFTA_SET_NAME:
			s.Name = ad.String()
		case setCount:
			if b := ad.Bytes(); len(b) == 4 {
				count = int(binary.BigEndian.Uint32(b))
			}
		}
	}
	return s, count, ad.Err() == nil && s.Name != ""
}

// elementsOf reads one set; full tells that there were more than asked for.
func (r *nftReader) elementsOf(family uint8, table, name string) (msgs [][]byte, full bool, err error) {
	r.a.Note("netlink", "NFT_MSG_GETSETELEM")
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	ae.String(unix.NFTA_SET_ELEM_LIST_SET, name)
	attrs, err := ae.Encode()
	if err != nil {
		return nil, false, fmt.Errorf("ask for elements of %s: %w", name, err)
	}
	req := request(unix.NFT_MSG_GETSETELEM, netlink.Dump)
	req.Data = append([]byte{family, 0, 0, 0}, attrs...)
	count := 0
	moved, err := r.wire.dump(req, func(m []byte) bool {
		if count += countElements(m); count > r.elementsMax {
			// The kernel would list the rest, for minutes: a socket that is closed ends that.
			full, msgs = true, nil
			return false
		}
		if r.full = r.b.Take("packet filter", 1, len(m)); r.full != nil {
			return false
		}
		msgs = append(msgs, m)
		return true
	})
	switch {
	case r.full != nil:
		return msgs, true, nil
	case moved, errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
		return nil, false, errMoved
	case err != nil:
		return nil, false, fmt.Errorf("read elements of %s: %w", name, err)
	case full:
		w, err := dialWire(r.b)
		if err != nil {
			return nil, false, fmt.Errorf("ask for elements of %s: %w", name, err)
		}
		r.wire.c.Close()
		r.wire = w
	}
	return msgs, full, nil
}

// countElements counts NFTA_LIST_ELEM without decoding them.
func countElements(m []byte) int {
	if len(m) < 4 {
		return 0
	}
	n := 0
	attributes(m, func(t uint16, v []byte) bool {
		if t == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			n += countList(v)
		}
		return true
	})
	return n
}

// countList counts the attributes of a list.
func countList(b []byte) int {
	n := 0
	for len(b) >= 4 {
		l := (int(binary.NativeEndian.Uint16(b)) + 3) &^ 3
		if l < 4 || l > len(b) {
			break
		}
		b = b[l:]
		n++
	}
	return n
}
