package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
)

func (a *app) reachDiffCommand() *cobra.Command {
	var o reachOptions
	var failOn string
	cmd := &cobra.Command{
		Use:   "diff [BEFORE AFTER]",
		Short: "Show where IPv4 and IPv6 differ, or two rulesets do",
		Long: "diff without files shows the listeners of this host that IPv4 and IPv6 treat\n" +
			"differently. With two files (rulesets or Snapshots) it shows what the second opens\n" +
			"and closes against the first, for reviews and pipelines.\n\n" +
			"It exits 1 when something was opened (without files: when IPv6 lets in more than\n" +
			"IPv4), 3 when it cannot be told whether something was; --fail-on changed also counts\n" +
			"what was closed, --fail-on never exits 0.",
		Example: "  sudo sixfence reach diff\n  sixfence reach diff old.nft new.nft\n  sixfence reach diff monday.json tuesday.json --format json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return &usageError{msg: "reach diff takes no file, or two", hint: "sixfence reach diff BEFORE AFTER"}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			code, err := a.reachDiff(o, args, failOn)
			a.code = code
			return err
		},
	}
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "no notes")
	cmd.Flags().StringVar(&failOn, "fail-on", "opened", "exit 1 for this `CHANGE`: opened, changed or never")
	completeWords(cmd, "fail-on", "opened", "changed", "never")
	o.flags(cmd, "compare the families of")
	return cmd
}

func (a *app) reachDiff(o reachOptions, files []string, failOn string) (int, error) {
	if o.quiet {
		a.logger(slog.LevelError)
	}
	if err := oneOf("--format", o.format, "text", "json"); err != nil {
		return exitUsage, err
	}
	if err := oneOf("--fail-on", failOn, "opened", "changed", "never"); err != nil {
		return exitUsage, err
	}
	stdin := o.rules
	stdin.ruleset = append(slices.Clone(o.rules.ruleset), files...)
	if err := stdin.check(); err != nil {
		return exitUsage, err
	}
	flt, err := o.filter()
	if err != nil {
		return exitUsage, err
	}
	out, err := a.open(o.output)
	if err != nil {
		return exitUsage, err
	}
	var diffs []reach.Difference
	if len(files) == 2 {
		diffs, err = a.beforeAfter(files, o, flt, out)
	} else {
		var sp *spaces
		if sp, err = a.rules(o.rules, out.file, o.quiet); err == nil {
			diffs = families(sp, o.rules.netns, flt)
		}
	}
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	err = out.write(func(w io.Writer) error {
		if o.format == "json" {
			if diffs == nil {
				diffs = []reach.Difference{}
			}
			e := json.NewEncoder(w)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			return e.Encode(reach.DiffDocument{SchemaVersion: reach.DocumentVersion, Differences: diffs})
		}
		return diffText(w, diffs, len(files) == 2, o.quiet)
	})
	if err != nil {
		return exitUsage, err
	}
	return diffCode(diffs, failOn), nil
}

// diffCode is the exit code of differences.
func diffCode(diffs []reach.Difference, failOn string) int {
	code := exitClean
	for _, d := range diffs {
		switch {
		case failOn == "never":
		case d.Change == reach.Opened, d.Change == reach.WiderIPv6, failOn == "changed" && d.Change != reach.Unsure:
			return exitFindings
		case d.Change == reach.Unsure:
			code = exitUnknown
		}
	}
	return code
}

// ports is a port or a range, as people write it.
func diffPorts(d *reach.Difference) string {
	switch {
	case d.Hook == "output" && d.Proto == "icmp":
		return "ping"
	case d.Hook == "output" && d.Port == 0:
		return d.Proto + ", every port not listed"
	case d.Proto == "icmp" || d.Proto == "icmpv6":
		return fmt.Sprintf("%s type %d", d.Proto, d.Port)
	case d.Port == 0:
		return "protocol " + d.Proto
	case d.PortTo > d.Port:
		return fmt.Sprintf("%s/%d-%d", d.Proto, d.Port, d.PortTo)
	}
	return fmt.Sprintf("%s/%d", d.Proto, d.Port)
}

func diffText(w io.Writer, diffs []reach.Difference, files, quiet bool) error {
	var b strings.Builder
	if len(diffs) == 0 {
		b.WriteString(map[bool]string{true: "Nothing is opened or closed.\n", false: "IPv4 and IPv6 let in alike.\n"}[files])
	}
	words := map[reach.Change]string{reach.Opened: "OPENED", reach.Shut: "CLOSED", reach.Unsure: "UNCLEAR", reach.WiderIPv6: "IPv6 IS WIDER", reach.WiderIPv4: "IPv4 IS WIDER"}
	for i, d := range diffs {
		left, right := "IPv4", "IPv6"
		head := words[d.Change] + "  " + diffPorts(&d)
		if d.Family != "" {
			left, right = "before", "after"
			head += " over " + map[string]string{"ipv4": "IPv4", "ipv6": "IPv6"}[d.Family]
		}
		switch d.Hook {
		case "forward":
			head += ", forwarded"
		case "output":
			head += ", sent by this host"
		}
		if d.Interface != "" {
			head += " by " + d.Interface
		}
		if d.Process != "" {
			head += "  " + path.Base(d.Process)
		}
		if d.NetNS != "" && d.NetNS != "init" && d.NetNS != "ruleset" && d.NetNS != "self" {
			head += "  (netns " + d.NetNS + ")"
		}
		if quiet {
			fmt.Fprintln(&b, head)
			continue
		}
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintln(&b, head)
		fmt.Fprintf(&b, "  %-6s  %s\n  %-6s  %s\n", left, d.Before, right, d.After)
		for i, r := range d.DecidedBy {
			if i == 3 {
				fmt.Fprintf(&b, "  and %d more rules\n", len(d.DecidedBy)-i)
				break
			}
			fmt.Fprintf(&b, "  by      %s\n", r)
		}
		if d.Witness != nil {
			fmt.Fprintf(&b, "  packet  %s by %s: %s\n", d.Witness, d.Witness.Interface, d.Witness.Verdict)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// families compares IPv4 and IPv6 listener by listener. Sockets of one port count
// together: the families may be served by different ones.
func families(sp *spaces, netns string, flt reachFilter) []reach.Difference {
	doc, view := sp.analyse(netns, flt)
	type key struct {
		netns, proto string
		port         uint16
	}
	by := map[key]*reach.Listener{}
	var order []key
	for _, l := range doc.Listeners {
		k := key{l.NetNS, l.Proto, l.Port}
		if x := by[k]; x != nil {
			x.IPv4, x.IPv6 = append(x.IPv4, l.IPv4...), append(x.IPv6, l.IPv6...)
			continue
		}
		c := l
		by[k], order = &c, append(order, k)
	}
	var out []reach.Difference
	for _, k := range order {
		l := by[k]
		four, c4 := view.cell(l.NetNS, l.IPv4, true)
		six, c6 := view.cell(l.NetNS, l.IPv6, false)
		d := reach.Difference{NetNS: l.NetNS, Hook: "input", Proto: l.Proto, Port: l.Port, Process: l.Process, Before: four, After: six, DecidedBy: []reach.RuleRef{}}
		if wider(&d, c4, c6, l.IPv4, l.IPv6) {
			out = append(out, d)
		}
	}
	return append(out, outboundFamilies(&doc)...)
}

// wider says which family lets more in or out, if one does, and takes the evidence
// from that one's answers.
func wider(d *reach.Difference, c4, c6 reach.Class, v4, v6 []reach.V) bool {
	switch {
	case c6.Wider(c4):
		d.Change = reach.WiderIPv6
		evidence(d, v6)
	case c4.Wider(c6):
		d.Change = reach.WiderIPv4
		evidence(d, v4)
	default:
		return false
	}
	return true
}

func evidence(d *reach.Difference, vs []reach.V) {
	for _, v := range vs {
		better := d.Witness == nil || d.Witness.Interface == "lo" || d.Witness.Daddr.IsLinkLocalUnicast() && v.Witness != nil && !v.Witness.Daddr.IsLinkLocalUnicast() && v.Witness.Interface != "lo"
		if len(v.May) > 0 && better {
			d.DecidedBy, d.Witness = v.DecidedBy, v.Witness
		}
	}
}

// beforeAfter compares two files.
func (a *app) beforeAfter(files []string, o reachOptions, flt reachFilter, out *sink) ([]reach.Difference, error) {
	var sides [2]*spaces
	if len(o.rules.ruleset) > 0 {
		return nil, &usageError{msg: "reach diff BEFORE AFTER compares two files, and --ruleset gives a third", hint: "give --snapshot for the host that both rulesets are for"}
	}
	var read [2]*prepared
	for i, f := range files {
		var err error
		if read[i], err = a.prepare([]string{f}); err != nil {
			return nil, err
		}
		defer read[i].close()
	}
	var host func() (*fact.Snapshot, error)
	if o.rules.snapshot != "" {
		in, name, done, err := a.input(o.rules.snapshot)
		if err != nil {
			return nil, err
		}
		defer done()
		host = sync.OnceValues(func() (*fact.Snapshot, error) { return store.ReadSnapshot(in, name, 0) })
	}
	for i := range files {
		s, err := a.load(read[i], host, o.rules.netns, out.file, o.quiet)
		if err != nil {
			return nil, err
		}
		sides[i] = s
	}
	if sides[0].only != nil && sides[1].only != nil {
		return compareRules(sides[0].only, sides[1].only, flt), nil
	}
	var docs [2]reach.Document
	var views [2]reachView
	for i, s := range sides {
		docs[i], views[i] = s.analyse(o.rules.netns, flt)
	}
	return compare(docs, views), nil
}
