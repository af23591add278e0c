package packetfilter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// maxElements is how many elements of one set are read. A million-element rbtree
// takes the kernel a minute to list.
const maxElements = 65536

// elements reads the elements of every set. A set that is too large is listed
// as unexpanded, and questions that depend on it stay open.
func (r *nftReader) elements(n *fact.NFTables) error {
	for _, m := range n.Sets {
		if len(m) < 4 {
			continue
		}
		s, ok := setName(m)
		if !ok {
			continue
		}
		msgs, full, err := r.elementsOf(m[0], s.Table, s.Name)
		if err != nil {
			return err
		}
		n.Elements = append(n.Elements, msgs...)
		if full {
			s.Gap = fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("set %s: more than %d elements", s.Name, r.elementsMax)}
			n.Unexpanded = append(n.Unexpanded, s)
		}
		if r.full != nil {
			return nil
		}
	}
	return nil
}

func setName(m []byte) (fact.UnexpandedSet, bool) {
	s := fact.UnexpandedSet{Family: m[0]}
	ad, err := netlink.NewAttributeDecoder(m[4:])
	if err != nil {
		return s, false
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_TABLE:
			s.Table = ad.String()
		case unix.NFTA_SET_NAME:
			s.Name = ad.String()
		}
	}
	return s, ad.Err() == nil && s.Name != ""
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
	sent, err := r.c.Send(req)
	if err != nil {
		return nil, false, fmt.Errorf("ask for elements of %s: %w", name, err)
	}
	count, moved := 0, false
	for m, err := range r.c.ReceiveIter() {
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			return nil, false, errMoved
		}
		if err != nil {
			return nil, false, fmt.Errorf("receive elements of %s: %w", name, err)
		}
		if m.Header.Sequence != sent.Header.Sequence {
			continue
		}
		moved = moved || m.Header.Flags&netlink.DumpInterrupted != 0
		if full {
			continue // the dump must be read to its end to keep the socket usable
		}
		count += countElements(m.Data)
		if count > r.elementsMax {
			full, msgs = true, nil
			continue
		}
		if r.full = r.b.Take("packet filter", 1, len(m.Data)); r.full != nil {
			return msgs, true, nil
		}
		msgs = append(msgs, m.Data)
	}
	if moved {
		return nil, false, errMoved
	}
	return msgs, full, nil
}

// countElements counts NFTA_LIST_ELEM without decoding them.
func countElements(m []byte) int {
	if len(m) < 4 {
		return 0
	}
	n := 0
	ad, err := netlink.NewAttributeDecoder(m[4:])
	if err != nil {
		return 0
	}
	for ad.Next() {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for b := ad.Bytes(); len(b) >= 4; {
			l := (int(binary.NativeEndian.Uint16(b)) + 3) &^ 3
			if l < 4 || l > len(b) {
				break
			}
			b = b[l:]
			n++
		}
	}
	return n
}
