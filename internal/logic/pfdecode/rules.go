package pfdecode

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// ruleShare is how many rules are worth a goroutine of their own.
const ruleShare = 2000

// rules decodes the rules of a dump, which are most of it: on several processors, since
// no rule depends on another.
func (d *decoder) rules(msgs [][]byte) error {
	workers := max(1, min(runtime.GOMAXPROCS(0), len(msgs)/ruleShare))
	out := make([]rs.Rule, len(msgs))
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		lo, hi := w*len(msgs)/workers, (w+1)*len(msgs)/workers
		part := *d
		part.cache = make([]cached, min(maxCached, 4*(hi-lo)+1))
		wg.Go(func() {
			for i := lo; i < hi; i++ {
				if err := part.rule(&out[i], msgs[i]); err != nil {
					errs[w] = fmt.Errorf("decode nf_tables rule %d: %w", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := firstErr(errs...); err != nil {
		return err
	}
	list := make([]*rs.Rule, len(out))
	for i := range out {
		list[i] = &out[i]
	}
	for len(list) > 0 {
		c, n := list[0].Chain, 1
		for n < len(list) && list[n].Chain == c {
			n++
		}
		for i, r := range list[:n] {
			r.Index = len(c.Rules) + i + 1
		}
		if c.Rules == nil {
			c.Rules = list[:n:n]
		} else {
			c.Rules = append(c.Rules, list[:n]...)
		}
		list = list[n:]
	}
	return nil
}

// rule decodes one message.
func (d *decoder) rule(r *rs.Rule, m []byte) error {
	if len(m) < 4 {
		return fmt.Errorf("message of %d bytes", len(m))
	}
	var table, chain, handle, list, user []byte
	err := walk(m[4:], d.order, func(t uint16, v []byte) {
		switch t { // NFTA_RULE_*
		case 1:
			table = v
		case 2:
			chain = v
		case 3:
			handle = v
		case 4:
			list = v
		case 7:
			user = v
		}
	})
	if err != nil {
		return err
	}
	c, err := d.chainOf(m[0], table, chain)
	if err != nil {
		return err
	}
	*r = rs.Rule{Chain: c, Handle: be64(handle), Comment: comment(user)}
	d.current, d.comment = c.Table, ""
	d.exprs = d.exprs[:0]
	var bad error
	err = walk(list, d.order, func(_ uint16, v []byte) {
		e, err := d.known(v)
		if err != nil {
			bad = err
			return
		}
		d.exprs = append(d.exprs, e...)
	})
	if err = firstErr(err, bad); err != nil {
		return fmt.Errorf("handle %d: %w", r.Handle, err)
	}
	r.Exprs = d.take(d.exprs)
	if r.Comment == "" {
		r.Comment = d.comment
	}
	return nil
}

// chainOf finds the chain of a rule, most often the one before.
func (d *decoder) chainOf(family uint8, table, chain []byte) (*rs.Chain, error) {
	if l := &d.last; l.chain != nil && l.family == family && bytes.Equal(l.tableName, table) && bytes.Equal(l.chainName, chain) {
		return l.chain, nil
	}
	t, err := d.find(family, cstring(table))
	if err != nil {
		return nil, err
	}
	c := d.chains[chainKey{tableKey{t.Family, t.Name}, cstring(chain)}]
	if c == nil {
		return nil, fmt.Errorf("rule of unknown chain %q", cstring(chain))
	}
	d.last = lastChain{family, table, chain, c}
	return c, nil
}

// lastChain is the chain of the rule before, with the names as they came.
type lastChain struct {
	family               uint8
	tableName, chainName []byte
	chain                *rs.Chain
}

// maxCached is how many expressions of earlier rules are kept to be used again: most
// rules of a large ruleset differ in a number or two.
const maxCached = 4096

// cached is an expression as it came, and what it means.
type cached struct {
	raw   []byte
	exprs []rs.Expr
}

var seed = maphash.MakeSeed()

// known decodes an expression, or remembers one that says the same.
func (d *decoder) known(b []byte) ([]rs.Expr, error) {
	c := &d.cache[maphash.Bytes(seed, b)%uint64(len(d.cache))]
	if c.raw != nil && bytes.Equal(c.raw, b) {
		return c.exprs, nil
	}
	d.compat = false
	e, err := d.expr(b)
	if err == nil && !d.compat { // what x_tables compat means depends on the table, too
		*c = cached{b, e}
	}
	return e, err
}

// take copies expressions to where they stay. Many small slices of their own would cost
// more than they hold.
func (d *decoder) take(list []rs.Expr) []rs.Expr {
	n := len(list)
	if n == 0 {
		return nil
	}
	if len(d.chunk) < n {
		d.chunk = make([]rs.Expr, max(n, 512))
	}
	out := d.chunk[:n:n]
	d.chunk = d.chunk[n:]
	copy(out, list)
	return out
}

// comment reads NFTNL_UDATA_RULE_COMMENT (type 0) from the TLVs that nft keeps with a rule.
func comment(b []byte) string {
	for len(b) >= 2 {
		n := int(b[1])
		if len(b) < 2+n {
			return ""
		}
		if b[0] == 0 {
			return cstring(b[2 : 2+n])
		}
		b = b[2+n:]
	}
	return ""
}
