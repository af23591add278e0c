package oracle

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Summary is a run in one line.
func (r *Report) Summary() string {
	s, can := r.Coverage.Report()
	return fmt.Sprintf("%d verdicts over %d rulesets: %d mismatches, may %.2f %%; %.1f %% of %d cells met, %.1f %% of %d both ways; %d lossy rounds discarded; %v",
		r.Verdicts, r.Rulesets, len(r.Failures), percent(r.Uncertain, r.Verdicts), percent(s.Met, s.Cells), s.Cells, percent(s.Both, can), can, r.Lossy, r.Elapsed.Round(time.Second))
}

func percent(n, of int) float64 { return 100 * float64(n) / float64(max(of, 1)) }

// Write writes the page docs/reference/oracle.md.
func (r *Report) Write(w io.Writer, kernel, nft string) error {
	s, can := r.Coverage.Report()
	var b strings.Builder
	fmt.Fprintf(&b, `# The kernel as oracle

<!-- Written by `+"`make oracle`"+`; edit internal/testlab/oracle/report.go instead. -->

Every answer of `+"`reach` and `trace`"+` rests on a model of the kernel's packet filter. This page is the last whole run of the
program that tests it: it generates rulesets, loads them in a namespace, sends packets through ingress, prerouting, input, forward,
output and postrouting, and compares what the kernel let pass with what the model says: for the packet alone, for every source at once, and
for questions that leave out some of its other fields.

| | |
|---|---|
| kernel, nft | %s, %s |
| rulesets, rules | %d, %d (%d more refused by nft or the kernel) |
| verdicts | %d (%d accepted), and %d questions with fields left out |
| mismatches | %d |
| *may*, each with its cause | %d (%.2f %%) |
| rounds discarded because packets were lost | %d |
| verdicts per second, everything included | %.0f (load and dump %v, send %v, compare %v) |
| cells met by packets | %.1f %% of %d |
| cells met both by packets that matched and by packets that did not | %.1f %% of the %d that can be |

A cell is (family, hook, field or statement, operator and negation). Packets: TCP with any flags and with options, UDP, SCTP, ICMP and
ICMPv6 of any type, an unknown protocol, to addresses of the host, behind it, to groups and broadcasts, with hop-by-hop, routing and
destination headers, atomic, first and later fragments; flows that are new, established in either direction, invalid and untracked, and
ICMP errors about established ones. Sources sit at the boundaries of the rules.

x_tables and ipsets are tested by themselves in the same run, and so are bridges (ports, br_netfilter, family bridge) and egress chains. Not in it: IPv4 fragments and options, which no question
can ask about. That it convicts bugs that are planted into the model is shown in [Bugs that the oracle must catch](oracle-mutants.md).

## Causes of *may*

A *may* counts as a mismatch unless the answer names one of these causes, which the packet's path has met:

`, kernel, nft, r.Rulesets, r.Rules, r.Refused, r.Verdicts, r.Accepted, r.Parts, len(r.Failures), r.Uncertain, percent(r.Uncertain, r.Verdicts), r.Lossy,
		float64(r.Verdicts)/max(r.Elapsed.Seconds(), 1), r.Load.Round(time.Second), r.Send.Round(time.Second), r.Compare.Round(time.Second),
		percent(s.Met, s.Cells), s.Cells, percent(s.Both, can), can)
	for _, k := range slices.Sorted(maps.Keys(r.Why)) {
		fmt.Fprintf(&b, "* %s: %d (%.2f %%)\n", k, r.Why[k], percent(r.Why[k], r.Verdicts))
	}
	b.WriteString("\n## Cells that no packet met\n\n")
	list(&b, s.Unmet)
	b.WriteString("\n## Cells met one way only\n")
	for _, why := range slices.Sorted(maps.Keys(s.Single)) {
		fmt.Fprintf(&b, "\n### %s%s: %d\n\n", strings.ToUpper(why[:1]), why[1:], len(s.Single[why]))
		list(&b, s.Single[why])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// list writes cells by field: the operators, and at which hooks.
func list(b *strings.Builder, cells []string) {
	if len(cells) == 0 {
		b.WriteString("None.\n")
		return
	}
	by := map[string]map[string][]string{} // field → operator → hooks
	for _, u := range cells {
		p := strings.SplitN(u, "/", 3)
		i := strings.LastIndex(p[2], "/")
		field, op := p[2][:i], p[2][i+1:]
		if by[field] == nil {
			by[field] = map[string][]string{}
		}
		by[field][op] = append(by[field][op], p[0]+" "+p[1])
	}
	for _, field := range slices.Sorted(maps.Keys(by)) {
		same := map[string][]string{} // hooks → operators
		for _, op := range slices.Sorted(maps.Keys(by[field])) {
			slices.Sort(by[field][op])
			k := strings.Join(by[field][op], ", ")
			same[k] = append(same[k], op)
		}
		var parts []string
		for _, where := range slices.Sorted(maps.Keys(same)) {
			parts = append(parts, strings.Join(same[where], " ")+" ("+where+")")
		}
		fmt.Fprintf(b, "* %s: %s\n", field, strings.Join(parts, "; "))
	}
}
