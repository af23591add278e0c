package oracle

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab/corpus"
)

// TestCorpus sends a part of the published probe set to every recorded host
// (CORPUS_SAMPLE packets each, all of it with 0) and compares.
func TestCorpus(t *testing.T) {
	t.Parallel()
	sample := 1000
	if v, err := strconv.Atoi(os.Getenv("CORPUS_SAMPLE")); err == nil {
		sample = v
	}
	for _, name := range corpus.Names() {
		t.Run(name, func(t *testing.T) { fireCorpus(t, name, sample) })
	}
}

// fired is a packet with the answer of the model.
type fired struct {
	packet reach.Packet
	hook   rs.Hook
	must   bool
	may    bool
	limit  bool
}

// wrong tells whether the kernel's verdict contradicts the answer.
func (a *fired) wrong(accepted bool) bool {
	return accepted && !a.may || !accepted && a.must && !a.limit
}

func (a *fired) explain(h *corpus.Host, accepted bool) string {
	q := corpus.Question{Packet: a.packet, Hook: a.hook}
	text := fmt.Sprintf("%s from %v: the kernel accepts %v, the model says must %v, may %v", corpus.Describe(&q), a.packet.Saddr.V, accepted, a.must, a.may)
	for _, s := range h.Space.Model.Explain(a.packet, a.hook, false).Path {
		if s.Result != "no match" {
			text += fmt.Sprintf("\n   %s %s: %s => %s", s.Table, s.Chain, s.Rule, s.Result)
		}
	}
	return text
}

func fireCorpus(t *testing.T, name string, sample int) {
	h, err := corpus.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	l := NewHostLab(t, h.Space.Namespace)
	qs := h.Questions()
	r := rand.New(rand.NewPCG(1, uint64(len(name))))
	r.Shuffle(len(qs), func(i, j int) { qs[i], qs[j] = qs[j], qs[i] })
	const round = 20000
	var shapes []Shape
	var probes []Probe
	var asked []fired
	verdicts, wrong, unknown := 0, 0, 0
	fire := func(probes []Probe) []bool {
		acc, err := l.Fire(shapes, probes)
		if err != nil {
			t.Fatalf("fire: %v", err)
		}
		if err := l.flushSeen(); err != nil {
			t.Fatal(err)
		}
		return acc
	}
	flush := func() {
		if len(probes) == 0 {
			return
		}
		var again []int
		for i, ok := range fire(probes) {
			switch a := asked[i]; {
			case a.must == a.may && ok == a.must:
			case a.wrong(ok):
				again = append(again, i)
			default:
				unknown++
			}
		}
		verdicts += len(probes)
		if len(again) > 0 { // a packet may have been late
			var second []Probe
			for _, i := range again {
				second = append(second, probes[i])
			}
			for j, ok := range fire(second) {
				if a := asked[again[j]]; a.wrong(ok) {
					if wrong++; wrong <= 5 {
						t.Error(a.explain(h, ok))
					}
				}
			}
		}
		shapes, probes, asked = nil, nil, nil
	}
	for _, q := range qs {
		if sample > 0 && verdicts+len(probes) >= sample {
			break
		}
		s, ok := l.shapeOf(&q.Packet, q.Hook)
		if !ok {
			continue
		}
		open := h.Space.Model.Ask(q.Packet, q.Hook, false)
		sources := h.Sources(&q, open)
		if sample > 0 {
			r.Shuffle(len(sources), func(i, j int) { sources[i], sources[j] = sources[j], sources[i] })
			sources = sources[:min(len(sources), 5)]
		}
		shapes = append(shapes, s)
		for _, src := range sources {
			if !arrives(src, q.Hook) {
				continue
			}
			p := q.Packet
			p.Saddr = reach.Some(src)
			p.SrcMAC = reach.Some(s.mac(uint32(len(probes))))
			a := h.Space.Model.Ask(p, q.Hook, false)
			probes = append(probes, Probe{Shape: len(shapes) - 1, Src: src})
			asked = append(asked, fired{p, q.Hook, len(a.Must()) > 0, len(a.May()) > 0, !a.Limited.Empty()})
		}
		if len(probes) >= round {
			flush()
		}
	}
	flush()
	t.Logf("%s: %d verdicts, %d wrong, %d limited or unknown", name, verdicts, wrong, unknown)
	if verdicts == 0 {
		t.Error("no packet was sent")
	}
}
