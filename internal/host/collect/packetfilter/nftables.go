package packetfilter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

const (
	// tries is how often a ruleset that changes while it is read is read again.
	tries = 5
	// pause grows from try to try: a commit waits for RCU grace periods.
	pause = 4 * time.Millisecond
)

// errMoved means that the ruleset changed under the dump.
var errMoved = errors.New("the ruleset changed while it was read")

// ReadNFTables reads one generation of nf_tables of the calling thread's network
// namespace, and of every set up to so many elements (0: none).
func ReadNFTables(a *ask.Asker, b *ask.Budget, elements int) fact.Known[fact.NFTables] {
	return readNFTables(a, b, elements, "")
}

func readNFTables(a *ask.Asker, b *ask.Budget, elements int, advice string) fact.Known[fact.NFTables] {
	for _, m := range []string{"nfnetlink", "nf_tables"} {
		if a.Present(m) {
			continue
		}
		if g := a.Doubt(m); g != nil {
			return fact.Missing[fact.NFTables](*g)
		}
		return fact.Absent[fact.NFTables]() // nothing is there that could hold a table
	}
	a.Note("netlink", "socket NETLINK_NETFILTER")
	w, err := dialWire(b)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return fact.Unsupported[fact.NFTables]()
	}
	if err != nil {
		return fact.Missing[fact.NFTables](gapOf(err, "nf_tables"))
	}
	r := nftReader{wire: w, a: a, b: b, elementsMax: elements, advice: advice}
	defer func() {
		r.wire.c.Close()
		if r.second != nil {
			r.second.c.Close()
		}
	}()
	for try := range tries {
		n, err := r.generation()
		switch {
		case errors.Is(err, errMoved):
			time.Sleep(time.Duration(try+1) * pause)
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
			return fact.Unsupported[fact.NFTables]() // nfnetlink knows no such subsystem
		case err != nil && r.full == nil:
			return fact.Missing[fact.NFTables](gapOf(err, "nf_tables"))
		}
		if r.full == nil && len(n.Tables) == 0 {
			return fact.Absent[fact.NFTables]()
		}
		n.Truncated = r.full
		return fact.Value(n)
	}
	return fact.Missing[fact.NFTables](fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("nf_tables: %v, %d times", errMoved, tries)})
}

func dial(b *ask.Budget) (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err == nil {
		_ = c.SetDeadline(b.Deadline())
	}
	return c, err
}

type nftReader struct {
	wire *wire
	// second is another socket, for dumps at the same time; nil until it is needed.
	second *wire
	a      *ask.Asker
	b      *ask.Budget
	full   *fact.Gap // the budget is spent
	// elementsMax is how many elements of one set are read; 0: none of any.
	elementsMax int
	// advice ends the reason why a set was not read.
	advice string
}

// part is one kind of object: how it is asked for, and which attributes name one
// of them (with the family, the first byte of nfgenmsg).
type part struct {
	name string
	get  uint16
	key  []uint16
}

var (
	partTables  = part{"NFT_MSG_GETTABLE", unix.NFT_MSG_GETTABLE, []uint16{unix.NFTA_TABLE_NAME}}
	partChains  = part{"NFT_MSG_GETCHAIN", unix.NFT_MSG_GETCHAIN, []uint16{unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME}}
	partSets    = part{"NFT_MSG_GETSET", unix.NFT_MSG_GETSET, []uint16{unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME}}
	partRules   = part{"NFT_MSG_GETRULE", unix.NFT_MSG_GETRULE, []uint16{unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_HANDLE}}
	partObjects = part{"NFT_MSG_GETOBJ", unix.NFT_MSG_GETOBJ, []uint16{unix.NFTA_OBJ_TABLE, unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE}}
)

// generation reads everything once, between two looks at the generation.
//
// The number alone does not prove one generation. A commit raises it before the new
// objects become visible, so that a dump in that moment sees both; and while it
// takes the old ones out of their lists, which can last milliseconds, a dump in
// several parts repeats entries (both seen). So nothing may come twice, and
// tables and chains are read a second time.
func (r *nftReader) generation() (fact.NFTables, error) {
	var n fact.NFTables
	before, err := r.genID()
	if err != nil {
		return n, err
	}
	n.Generation = before
	var again [2][][]byte
	for _, p := range []struct {
		part
		to *[][]byte
	}{
		{partTables, &n.Tables},
		{partChains, &n.Chains},
		{partSets, &n.Sets},
		{partRules, &n.Rules},
		{partObjects, &n.Objects},
		{partTables, &again[0]},
		{partChains, &again[1]},
	} {
		if p.get == partRules.get {
			*p.to, err = r.rules(n.Chains)
		} else {
			*p.to, err = r.dump(p.part)
		}
		if err != nil {
			return n, err
		}
		if r.full != nil {
			return n, nil
		}
		if repeats(*p.to, p.key) {
			return n, errMoved
		}
		if len(n.Tables) == 0 {
			break // everything else lives in a table
		}
	}
	if r.elementsMax > 0 {
		if err := r.elements(&n); err != nil || r.full != nil {
			return n, err
		}
		n.ElementsRead = true
	}
	after, err := r.genID()
	if err != nil {
		return n, err
	}
	if after != before || len(n.Tables) > 0 && (!same(n.Tables, again[0]) || !same(n.Chains, again[1])) {
		return n, errMoved
	}
	return n, nil
}

// repeats tells whether an object comes twice. A message without its key is no
// reason to read again: the decoder will say what is wrong with it.
func repeats(msgs [][]byte, key []uint16) bool {
	if len(msgs) < 2 {
		return false
	}
	seen := make(map[uint64]struct{}, len(msgs))
	var id []byte
	for _, m := range msgs {
		if len(m) < 4 {
			continue
		}
		id = append(id[:0], m[0])
		found := 0
		attributes(m, func(t uint16, v []byte) bool {
			if slices.Contains(key, t) {
				found++
				id = append(append(id, byte(t), byte(len(v))), v...)
			}
			return found < len(key)
		})
		if found < len(key) {
			continue
		}
		h := maphash.Bytes(seed, id)
		if _, twice := seen[h]; twice {
			return true
		}
		seen[h] = struct{}{}
	}
	return false
}

var seed = maphash.MakeSeed()

// same compares two dumps, but for the packet counters of chains.
func same(a, b [][]byte) bool {
	return slices.EqualFunc(a, b, func(x, y []byte) bool {
		return bytes.Equal(x, y) || bytes.Equal(withoutCounters(x), withoutCounters(y))
	})
}

// withoutCounters leaves NFTA_CHAIN_COUNTERS out; tables have no such attribute.
func withoutCounters(m []byte) []byte {
	if len(m) < 4 {
		return m
	}
	ad, err := netlink.NewAttributeDecoder(m[4:])
	if err != nil {
		return m
	}
	out := append([]byte(nil), m[:4]...)
	for ad.Next() {
		if ad.Type() != unix.NFTA_CHAIN_COUNTERS {
			out = append(append(out, byte(ad.Type())), ad.Bytes()...)
		}
	}
	return out
}

func request(get uint16, flags netlink.HeaderFlags) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | get), Flags: netlink.Request | flags},
		Data:   []byte{unix.AF_UNSPEC, 0, 0, 0}, // struct nfgenmsg: every family
	}
}

// genID asks for the number of the ruleset's generation (NFTA_GEN_ID).
func (r *nftReader) genID() (uint32, error) {
	r.a.Note("netlink", "NFT_MSG_GETGEN")
	msgs, err := r.wire.c.Execute(request(unix.NFT_MSG_GETGEN, 0))
	if err != nil {
		return 0, fmt.Errorf("read nf_tables generation: %w", err)
	}
	for _, m := range msgs {
		if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN || len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, fmt.Errorf("read nf_tables generation: %w", err)
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				id := ad.Uint32()
				return id, ad.Err()
			}
		}
	}
	return 0, fmt.Errorf("read nf_tables generation: no answer")
}

// dump reads one kind of object. When the budget ends it stops at once, with
// what there is and r.full set.
func (r *nftReader) dump(p part) ([][]byte, error) {
	r.a.Note("netlink", p.name)
	out, full, err := r.list(r.wire, p.name, request(p.get, netlink.Dump))
	r.full = full
	return out, err
}

// list reads the answer to a request.
func (r *nftReader) list(w *wire, what string, req netlink.Message) (out [][]byte, full *fact.Gap, err error) {
	moved, err := w.dump(req, func(m []byte) bool {
		if full = r.b.Take("packet filter", 1, len(m)); full != nil {
			w.abandon() // the rest would be read and thrown away
			return false
		}
		out = append(out, m)
		return true
	})
	switch {
	case full != nil:
		return out, full, nil
	case moved, errors.Is(err, unix.EINTR):
		return nil, nil, errMoved
	case err != nil:
		return nil, nil, fmt.Errorf("read %s: %w", what, err)
	}
	return out, nil, nil
}
