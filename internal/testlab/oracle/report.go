package oracle

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Write writes the page docs/reference/oracle.md.
func (r *Report) Write(w io.Writer, kernel, nft string) error {
	share, can := r.Coverage.Report()
	met, both, uncovered := 100*float64(share.Met)/float64(share.Cells), 100*float64(share.Both)/float64(can), share.Unmet
	var b strings.Builder
	fmt.Fprintf(&b, `# The kernel as oracle

<!-- Written by `+"`make oracle`"+`; edit internal/testlab/oracle/report.go instead. -->

Every answer of `+"`reach` and `trace`"+` rests on a model of the kernel's packet filter. This page is the last whole run of the
program that tests it: it generates rulesets, loads them in a namespace, sends packets through ingress, prerouting, input, forward,
output and postrouting, and compares what the kernel let pass with what the model says, for the packet alone and for every source at once. A
*may* counts as a mismatch unless the model names what the question does not hold: an expression it does not know, a rate,
a dynamic set, a field that was left open.

| | |
|---|---|
| kernel, nft | %s, %s |
| rulesets, rules | %d, %d (%d more refused by nft or the kernel) |
| verdicts | %d (%d accepted) |
| mismatches | %d |
| *may*, with its reason | %d (%.2f %%) |
| rounds discarded because packets were lost | %d |
| verdicts per second, everything included | %.0f (load and dump %v, send %v, compare %v) |
| cells met by packets | %.1f %% of %d |
| cells met both by packets that matched and by packets that did not | %.1f %% |

A cell is (family, hook, field or statement, operator and negation). Packets: TCP with any flags, UDP, ICMP and ICMPv6 of any type, an
unknown protocol, hop-by-hop, routing and destination headers, atomic, first and later fragments, flows that are new, established, invalid
and untracked; sources sit at the boundaries of the rules.

Not in it: related flows, IPv4 fragments and options, bridge, x_tables (tested by themselves), stateful objects.

## Cells that no packet met

`, kernel, nft, r.Rulesets, r.Rules, r.Refused, r.Verdicts, r.Accepted, len(r.Failures), r.Uncertain, 100*float64(r.Uncertain)/float64(max(r.Verdicts, 1)), r.Lossy,
		float64(r.Verdicts)/r.Elapsed.Seconds(), r.Load.Round(time.Second), r.Send.Round(time.Second), r.Compare.Round(time.Second), met, len(r.Coverage.all), both)
	if len(uncovered) == 0 {
		b.WriteString("None.\n")
	}
	// By family and hook, field with its operators.
	groups := map[string][]string{}
	for _, u := range uncovered {
		p := strings.Split(u, "/")
		groups[p[0]+" "+p[1]] = append(groups[p[0]+" "+p[1]], p[2]+" "+p[3])
	}
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		fmt.Fprintf(&b, "* %s: %s\n", k, strings.Join(groups[k], ", "))
	}
	b.WriteString("\n## Why a verdict was *may*\n\n")
	why := map[string]int{}
	for k, n := range r.Why {
		for _, one := range strings.Split(k, ", ") {
			if strings.HasPrefix(one, "set ") {
				one = "a dynamic set"
			}
			why[one] += n
		}
	}
	for _, k := range slices.Sorted(maps.Keys(why)) {
		fmt.Fprintf(&b, "* %s: %d\n", k, why[k])
	}
	_, err := io.WriteString(w, b.String())
	return err
}
