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
	sample := 1500
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
	flush := func() {
		if len(probes) == 0 {
			return
		}
		acc, err := l.Fire(shapes, probes)
		if err != nil {
			t.Fatalf("fire: %v", err)
		}
		for i, a := range asked {
			verdicts++
			switch {
			case acc[i] == a.must && a.must == a.may:
			case acc[i] && !a.may || !acc[i] && a.must && !a.limit:
				if wrong++; wrong <= 5 {
					q := corpus.Question{Packet: a.packet, Hook: a.hook}
					text := ""
					for _, s := range h.Space.Model.Explain(a.packet, a.hook, false).Path {
						if s.Result != "no match" {
							text += fmt.Sprintf("\n   %s %s: %s => %s", s.Table, s.Chain, s.Rule, s.Result)
						}
					}
					t.Errorf("%s from %v: the kernel accepts %v, the model says must %v, may %v%s", corpus.Describe(&q), a.packet.Saddr.V, acc[i], a.must, a.may, text)
				}
			default:
				unknown++
			}
		}
		shapes, probes, asked = nil, nil, nil
		if err := l.flushSeen(); err != nil {
			t.Fatal(err)
		}
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
