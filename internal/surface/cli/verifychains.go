package cli

import (
	"bufio"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/surface/report"
)

func chainWords() (out []string) {
	for _, c := range probe.Chains() {
		out = append(out, string(c.Name))
	}
	return out
}

// wrappings reads --variants. Some are asked of every port, and all are held against the
// plain probe where something answers.
func (o *verifyOptions) wrappings() (variants, chains []probe.Variant, err error) {
	words := append([]string{"all"}, chainWords()...)
	for _, v := range o.variants {
		if err := oneOf("--variants", v, words...); err != nil {
			return nil, nil, err
		}
	}
	variants = []probe.Variant{probe.Plain}
	for _, c := range probe.Chains() {
		if slices.Contains(o.variants, "all") || slices.Contains(o.variants, string(c.Name)) {
			chains = append(chains, c.Name)
			if slices.Contains(probe.Variants(), c.Name) {
				variants = append(variants, c.Name)
			}
		}
	}
	return variants, chains, nil
}

// fateWords are the rows of the table, the worst first.
var fateWords = []struct {
	fate  probe.Fate
	words string
}{
	{probe.FateFurther, "gets further than without"},
	{probe.FateTaken, "is answered, and must not be"},
	{probe.FateLess, "gets less far"},
	{probe.FateUnknown, "could not be told"},
	{probe.FateRefused, "is not answered, as it must be"},
	{probe.FateSame, "as without"},
}

// verifyChains writes what became of the header chains of each address.
func verifyChains(b *bufio.Writer, j *expect.Judge, width int) {
	byAddress(b, j, "Header chains, beside plain packets", func(a *probe.Address) bool { return len(a.Chains) > 0 }, func(a *probe.Address) {
		said := false
		for _, f := range fateWords {
			if parts := chainParts(a, f.fate); len(parts) > 0 {
				said = true
				words := f.words
				for _, line := range wrapText(strings.Join(parts, ", "), max(width-36, 20)) {
					fmt.Fprintf(b, "    %-31s %s\n", words, line)
					words = ""
				}
			}
		}
		if !said {
			fmt.Fprintln(b, "    nothing answers, behind any of them")
		}
	})
}

// chainParts are the chains with a fate, with the ports where those that answer do not agree.
func chainParts(a *probe.Address, fate probe.Fate) (out []string) {
	for _, c := range probe.Chains() {
		var eaten []string
		ports := map[string]*probe.Ports{}
		all := true
		for _, x := range a.Chains {
			answers := x.Plain == probe.Open || x.Plain == probe.Closed
			switch {
			case x.Chain != c.Name, !answers && x.Fate != probe.FateFurther && x.Fate != probe.FateUnknown:
				continue
			case x.Fate != fate:
				all = all && !answers
				continue
			}
			all = all && answers
			if ports[x.Proto] == nil {
				ports[x.Proto] = &probe.Ports{}
			}
			_ = ports[x.Proto].AddList(x.Ports) // our own words, or checked as a claim
			if w := eatenWords(x.Eaten); w != "" && !slices.Contains(eaten, w) {
				eaten = append(eaten, w)
			}
		}
		if len(ports) == 0 {
			continue
		}
		text := string(c.Name)
		if !all {
			var names []string
			for _, p := range slices.Sorted(maps.Keys(ports)) {
				names = append(names, portName(p, probe.Plain, ports[p].List(), ports[p].Len()))
			}
			text += " (" + strings.Join(names, " ") + ")"
		}
		if len(eaten) > 0 {
			text += " [" + strings.Join(eaten, "; ") + "]"
		}
		out = append(out, report.Clean(text))
	}
	return out
}

// eatenWords say where a chain gets lost.
func eatenWords(e *probe.Eaten) string {
	switch {
	case e == nil:
		return ""
	case e.Target && e.Hop > 0:
		return fmt.Sprintf("by the target, or behind hop %d, %s", e.Hop, e.Last)
	case e.Target:
		return "by the target"
	case e.Hop == 0:
		return fmt.Sprintf("by the first hop, %s", e.Next)
	case e.Next.IsValid():
		return fmt.Sprintf("by hop %d, %s, or by %s", e.Hop, e.Last, e.Next)
	}
	return fmt.Sprintf("behind hop %d, %s", e.Hop, e.Last)
}
