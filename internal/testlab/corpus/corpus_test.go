package corpus_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/testlab/corpus"
)

var update = flag.Bool("update", false, "rewrite docs/reference/corpus.md")

const page = "../../../docs/reference/corpus.md"

// maxUnknown is the share of questions that may stay without an answer, on each
// ruleset by itself.
const maxUnknown = 0.01

// TestProbeSet asks the published questions about every host. Nearly all must have an
// answer, the same whether the source is open or fixed, and none that the page has
// may be lost.
func TestProbeSet(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	total, sums := corpus.Summary{}, map[string]counts{}
	for _, name := range corpus.Names() {
		h, err := corpus.Open(name)
		if err != nil {
			t.Error(err)
			continue
		}
		sum, disagree := h.Probe(50)
		for _, d := range disagree[:min(len(disagree), 3)] {
			t.Errorf("%s: %s", name, d)
		}
		if share := float64(sum.Unknown) / float64(sum.Questions); share >= maxUnknown {
			t.Errorf("%s: %.2f %% of %d questions have no answer: %v", name, 100*share, sum.Questions, sum.Why)
		}
		for _, g := range h.Space.Gaps() {
			t.Errorf("%s: not modelled as a whole: %s", name, g.What)
		}
		rules := 0
		for _, x := range h.Space.Model.Set.Tables {
			for _, c := range x.Chains {
				rules += len(c.Rules)
			}
		}
		fmt.Fprintf(&table, "| [%s](../../internal/testlab/corpus/testdata/%s.rules) | %s | %s | %d | %d | %d | %d | %d | %s |\n",
			name, name, h.What, h.Version, rules, sum.Questions, sum.Accept, sum.Limited, sum.Block, unknown(sum))
		sums[name] = counts{sum.Questions, sum.Accept, sum.Block}
		total.Questions += sum.Questions
		total.Accept += sum.Accept
		total.Limited += sum.Limited
		total.Block += sum.Block
		total.Unknown += sum.Unknown
	}
	got := fmt.Sprintf(text, len(corpus.Names()), len(corpus.Ports), corpus.Sport, table.String(), total.Questions, total.Accept, total.Limited, total.Block, total.Unknown, 100*float64(total.Unknown)/float64(total.Questions))
	if *update {
		if err := os.WriteFile(page, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for name, now := range sums {
		was, ok := published(string(want), name)
		switch {
		case !ok:
			t.Errorf("docs/reference/corpus.md lacks %s: go test ./internal/testlab/corpus -update", name)
		case was.Questions == now.Questions && (now.Accept < was.Accept || now.Block < was.Block):
			t.Errorf("%s: %d accepted and %d blocked, and the page says %d and %d: an answer was lost or turned round", name, now.Accept, now.Block, was.Accept, was.Block)
		case was != now:
			t.Logf("%s answers more than the page says: go test ./internal/testlab/corpus -update", name)
		}
	}
}

// published are the numbers of the page.
func published(page, name string) (s counts, ok bool) {
	for line := range strings.Lines(page) {
		if f := strings.Split(line, "|"); strings.HasPrefix(line, "| ["+name+"]") && len(f) > 9 {
			n, err := fmt.Sscan(f[5]+f[6]+f[8], &s.Questions, &s.Accept, &s.Block)
			return s, n == 3 && err == nil
		}
	}
	return s, false
}

type counts struct{ Questions, Accept, Block int }

func unknown(s corpus.Summary) string {
	if s.Unknown == 0 {
		return "0"
	}
	var why []string
	for k := range s.Why {
		why = append(why, strings.Trim(k, "[]"))
	}
	slices.Sort(why)
	return fmt.Sprintf("%d (%.2f %%): %s", s.Unknown, 100*float64(s.Unknown)/float64(s.Questions), strings.Join(why, "; "))
}

// TestSmall keeps the corpus small enough to be carried by every clone.
func TestSmall(t *testing.T) {
	t.Parallel()
	var size int64
	files, err := filepath.Glob("testdata/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	if size > 3<<20 {
		t.Errorf("%d bytes", size)
	}
	for _, name := range corpus.Names() {
		if _, err := os.Stat("testdata/" + name + ".rules"); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat("recipes/" + name + ".sh"); err != nil {
			t.Error(err)
		}
	}
}

const text = `# The corpus of real rulesets

<!-- Written by go test ./internal/testlab/corpus -update; edit corpus_test.go there instead. -->

%d hosts whose rules were made by the tools themselves, in namespaces (` + "`make corpus`" + ` makes them again; what is hand-written
says so). Each is kept as the kernel's own messages with the host's interfaces, addresses, routes and listeners, and as text for people.

Every host is asked the same questions, by itself, and its answers are compared with the kernel's: a copy of the host is set up, the recorded messages are loaded
back, and the packets are sent. The tests send about 1,000 packets to each, ` + "`make corpus-fire`" + ` all that can be sent. There is no mismatch.

A question is a packet of a new flow: TCP SYN and UDP to the port of every listener and to %d others, from source port %d; every common ICMP and ICMPv6 type in the state that
connection tracking gives it. It comes in by each interface, for each address of the host there and, where the host forwards, for a neighbour in every
other network, a host far away and destinations that rules name; rules for packets of the host itself are asked about those. Sources are the
addresses next to every boundary that a rule draws (at most 64 bounds a question, spread over the ruleset) and eighteen of each family
that filters forget: mapped, NAT64, 6to4, Teredo, unique local, link-local, site-local, documentation, carrier-grade NAT, class E.

*Limited* are those among the accepted that a rate bounds. *Unknown* is what the model answers neither way, and why.

| ruleset | what | made by | rules | questions | accepted | limited | blocked | unknown |
|---|---|---|---:|---:|---:|---:|---:|---|
%s| **all** | | | | %d | %d | %d | %d | %d (%.2f %%) |
`
