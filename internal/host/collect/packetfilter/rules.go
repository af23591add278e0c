package packetfilter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// The kernel forgets between the parts of a dump where it was, and counts from the first
// rule of the first chain again: reading all rules at once costs it their number squared.
// Chain by chain it counts within the chain, at the cost of a request each, and two
// chains can be read at the same time.
//
// A part holds about rulesPerPart of them, and a request costs as much as counting
// requestCost rules (measured on Linux 6.18).
const (
	rulesPerPart = 100
	requestCost  = 1000
	// ruleShare is how many rules are worth a second socket.
	ruleShare = 4000
)

// chainUse is NFTA_CHAIN_USE: the rules of a chain, and those that jump there.
const chainUse = 6

// errIgnored means that the kernel does not know how to dump one chain.
var errIgnored = errors.New("rules of another chain")

// chainName is a chain as its message names it.
type chainName struct {
	family      uint8
	table, name []byte // with the 0 at their end
	use         uint32
}

func nameOf(m []byte) (c chainName, ok bool) {
	if len(m) < 4 {
		return c, false
	}
	c.family = m[0]
	attributes(m, func(t uint16, v []byte) bool {
		switch {
		case t == unix.NFTA_CHAIN_TABLE:
			c.table = v
		case t == unix.NFTA_CHAIN_NAME:
			c.name = v
		case t == chainUse && len(v) == 4:
			c.use = binary.BigEndian.Uint32(v)
		}
		return true
	})
	return c, c.table != nil && c.name != nil
}

// rules reads the rules of all chains, in the order of the chains.
func (r *nftReader) rules(chains [][]byte) ([][]byte, error) {
	list := make([]chainName, 0, len(chains))
	total := 0
	for _, m := range chains {
		c, ok := nameOf(m)
		if !ok {
			return r.dump(partRules)
		}
		list = append(list, c)
		total += int(min(c.use, 1<<24))
	}
	if total < ruleShare || total/rulesPerPart*(total/2) < len(list)*requestCost {
		return r.dump(partRules)
	}
	out, err := r.byChain(list)
	if errors.Is(err, errIgnored) {
		return r.dump(partRules)
	}
	return out, err
}

// byChain reads every chain by itself, two at a time.
func (r *nftReader) byChain(list []chainName) ([][]byte, error) {
	wires := []*wire{r.wire}
	if len(list) > 1 {
		if r.second == nil {
			// A goroutine may run in another namespace: the socket is made here.
			w, err := dialWire(r.b)
			if err != nil {
				return nil, fmt.Errorf("read rules: %w", err)
			}
			r.second = w
		}
		wires = append(wires, r.second)
	}
	parts := make([][][]byte, len(list))
	var next atomic.Int64
	var mu sync.Mutex
	var failed error
	var full *fact.Gap
	var wg sync.WaitGroup
	for _, w := range wires {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(list) {
					return
				}
				part, gap, err := r.chain(w, list[i])
				if parts[i] = part; err == nil && gap == nil {
					continue
				}
				mu.Lock()
				failed = errors.Join(failed, err)
				if gap != nil {
					full = gap
				}
				mu.Unlock()
				next.Store(int64(len(list)))
				return
			}
		})
	}
	wg.Wait()
	if r.full = full; failed != nil && full == nil {
		return nil, failed
	}
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	out := make([][]byte, 0, n)
	for _, p := range parts {
		out = append(out, p...)
	}
	return out, nil
}

// chain reads the rules of one.
func (r *nftReader) chain(w *wire, c chainName) ([][]byte, *fact.Gap, error) {
	r.a.Note("netlink", partRules.name)
	req := request(partRules.get, netlink.Dump)
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: c.table}, {Type: unix.NFTA_RULE_CHAIN, Data: c.name}})
	if err != nil {
		return nil, nil, fmt.Errorf("ask for rules: %w", err)
	}
	req.Data = append([]byte{c.family, 0, 0, 0}, attrs...)
	out, full, err := r.list(w, partRules.name, req)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range out {
		table, name := false, false
		attributes(m, func(t uint16, v []byte) bool {
			table = table || t == unix.NFTA_RULE_TABLE && bytes.Equal(v, c.table)
			name = name || t == unix.NFTA_RULE_CHAIN && bytes.Equal(v, c.name)
			return !table || !name
		})
		if !table || !name || m[0] != c.family {
			return nil, nil, errIgnored
		}
	}
	return out, full, nil
}
