package packetfilter

import (
	"github.com/sixfence/sixfence/internal/host/collect/ask"
)

// Getsockopt lets a test ask what the product never asks.
var Getsockopt = getsockopt

// RulesBothWays reads all rules in one dump, chain by chain, and as the product decides.
func RulesBothWays(a *ask.Asker, b *ask.Budget) (whole, byChain, chosen [][]byte, err error) {
	w, err := dialWire(b)
	if err != nil {
		return nil, nil, nil, err
	}
	defer w.c.Close()
	r := nftReader{wire: w, a: a, b: b}
	chains, err := r.dump(partChains)
	if err != nil {
		return nil, nil, nil, err
	}
	var list []chainName
	for _, m := range chains {
		c, _ := nameOf(m)
		list = append(list, c)
	}
	if whole, err = r.dump(partRules); err != nil {
		return nil, nil, nil, err
	}
	if byChain, err = r.byChain(list); err != nil {
		return nil, nil, nil, err
	}
	defer r.second.c.Close()
	chosen, err = r.rules(chains)
	return whole, byChain, chosen, err
}
