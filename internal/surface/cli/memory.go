package cli

import (
	"runtime/debug"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Bounds of what was read, in bytes, from which on memory is saved at the cost of time.
const (
	muchElements = 2 << 20
	muchRules    = 16 << 20
)

// spare makes the collector of garbage run more often where a ruleset is large: half of
// the memory would be garbage otherwise. Elements hold few pointers, so that looking
// for them costs little.
func spare(snap *fact.Snapshot) {
	rules, elements := 0, 0
	for i := range snap.Namespaces {
		if nft, ok := snap.Namespaces[i].PacketFilter.NFTables.Get(); ok {
			rules, elements = rules+size(nft.Rules), elements+size(nft.Elements)
		}
	}
	switch {
	case elements > muchElements && elements > rules:
		debug.SetGCPercent(30)
	case rules > muchRules:
		debug.SetGCPercent(50)
	}
}

func size(msgs [][]byte) int {
	n := 0
	for _, m := range msgs {
		n += len(m)
	}
	return n
}
