package corpus_test

import (
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab/corpus"
)

func TestProbe(t *testing.T) {
	for _, name := range corpus.Names() {
		h, err := corpus.Open(name)
		if err != nil {
			t.Error(err)
			continue
		}
		start := time.Now()
		sum, bad := h.Probe(50)
		t.Logf("%-22s %7d questions, %6d accepted (%d limited), %6d blocked, %5d unknown (%.2f %%), %v %v", name, sum.Questions, sum.Accept, sum.Limited, sum.Block, sum.Unknown, 100*float64(sum.Unknown)/float64(sum.Questions), time.Since(start).Round(time.Millisecond), sum.Why)
		for _, b := range bad[:min(len(bad), 3)] {
			t.Errorf("%s: %s", name, b)
		}
		for _, g := range h.Space.Gaps() {
			t.Logf("   gap %+v", g)
		}
	}
}
