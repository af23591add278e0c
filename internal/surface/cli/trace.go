package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/surface/report"
)

type traceOptions struct {
	rules                                           rulesOptions
	format, batch, output                           string
	family, hook, iif, oif, saddr, daddr, proto     string
	ct, etherSaddr                                  string
	tcpFlags, exthdr                                []string
	sport, dport, icmpType, icmpCode, hoplimit, uid int64
	mark                                            int64
	onlyHook, quiet, noColor                        bool
}

func (a *app) traceCommand() *cobra.Command {
	var o traceOptions
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Say what the packet filter does with a packet, rule by rule",
		Long: "trace follows one packet through the packet filter of this host (or of a Snapshot,\n" +
			"or of a ruleset file) and says what becomes of it and by which rule, without sending\n" +
			"anything. A field that is left out may be anything: where the answer depends on it,\n" +
			"the answer is unknown and the field is named. Only --exthdr left out means none.",
		Example: "  sudo sixfence trace --family ipv6 --hook input --iif eth0 --saddr 2001:db8::1 \\\n" +
			"      --daddr 2001:db8:1::10 --proto tcp --sport 40000 --dport 22 --ct new\n" +
			"  sixfence trace --snapshot host.json --batch packets.jsonl",
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringVar(&o.family, "family", "", "packet `FAMILY`: ipv4 or ipv6")
	f.StringVar(&o.hook, "hook", "input", "where it goes, as `HOOK`: prerouting, input (delivered locally), forward, output or postrouting")
	f.StringVar(&o.iif, "iif", "", "`INTERFACE` it comes in by")
	f.StringVar(&o.oif, "oif", "", "`INTERFACE` it goes out by")
	f.StringVar(&o.saddr, "saddr", "", "source `ADDRESS`")
	f.StringVar(&o.daddr, "daddr", "", "destination `ADDRESS`")
	f.StringVar(&o.proto, "proto", "", "transport `PROTOCOL`: tcp, udp, icmp, icmpv6 or a number")
	f.Int64Var(&o.sport, "sport", 0, "source `PORT`")
	f.Int64Var(&o.dport, "dport", 0, "destination `PORT`")
	f.Int64Var(&o.icmpType, "icmp-type", 0, "ICMP or ICMPv6 `TYPE`")
	f.Int64Var(&o.icmpCode, "icmp-code", 0, "ICMP or ICMPv6 `CODE`")
	f.StringVar(&o.ct, "ct", "", "connection `STATE`: new, established, related, invalid or untracked")
	f.StringSliceVar(&o.tcpFlags, "tcp-flags", nil, "TCP `FLAGS` that are set, comma-separated: syn, ack, rst, fin …")
	f.StringSliceVar(&o.exthdr, "exthdr", nil, "extension `HEADERS`, outermost first: hop, dst, rt0, frag-atomic, frag-first, frag-later")
	f.Int64Var(&o.hoplimit, "hoplimit", 0, "hop limit (TTL) `N`")
	f.StringVar(&o.etherSaddr, "ether-saddr", "", "source `MAC` address")
	f.Int64Var(&o.mark, "mark", 0, "packet mark `N`; left out it is 0 for what comes in by an interface")
	f.Int64Var(&o.uid, "uid", 0, "`UID` of the sending socket (output)")
	f.BoolVar(&o.onlyHook, "only-hook", false, "ask that hook alone, not those before and after it")
	f.StringVar(&o.batch, "batch", "", "answer the packets in `FILE` (- is standard input), one JSON object a line")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the verdict only, and no notes")
	o.rules.flags(cmd, "ask")
	outputFlags(cmd, &o.format, &o.output, &o.noColor)
	completeWords(cmd, "family", "ipv4", "ipv6")
	completeWords(cmd, "hook", "prerouting", "input", "forward", "output", "postrouting")
	completeWords(cmd, "proto", "tcp", "udp", "icmp", "icmpv6")
	completeWords(cmd, "ct", "new", "established", "related", "invalid", "untracked")
	completeWords(cmd, "exthdr", "hop", "dst", "rt0", "frag-atomic", "frag-first", "frag-later")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		code, err := a.trace(o, func(flag string) bool { return cmd.Flags().Changed(flag) })
		a.code = code
		return err
	}
	return cmd
}

// question turns the flags that were given into a packet.
func (o *traceOptions) question(given func(string) bool) *question {
	q := &question{
		Family: o.family, Hook: o.hook, IIF: o.iif, OIF: o.oif, Saddr: o.saddr, Daddr: o.daddr, Proto: wordOrNumber(o.proto),
		Ct: o.ct, EtherSaddr: o.etherSaddr, NetNS: o.rules.netns, OnlyHook: o.onlyHook, Exthdr: o.exthdr,
	}
	if given("tcp-flags") {
		q.TCPFlags = append(words{}, o.tcpFlags...)
	}
	for flag, v := range map[string]struct {
		from *int64
		to   **int64
	}{
		"sport": {&o.sport, &q.Sport}, "dport": {&o.dport, &q.Dport}, "icmp-type": {&o.icmpType, &q.ICMPType}, "icmp-code": {&o.icmpCode, &q.ICMPCode},
		"hoplimit": {&o.hoplimit, &q.HopLimit}, "mark": {&o.mark, &q.Mark}, "uid": {&o.uid, &q.UID},
	} {
		if given(flag) {
			*v.to = v.from
		}
	}
	return q
}

func (a *app) trace(o traceOptions, given func(string) bool) (int, error) {
	if o.quiet {
		a.logger(slog.LevelError)
	}
	if err := oneOf("--format", o.format, "text", "json"); err != nil {
		return exitUsage, err
	}
	if err := o.rules.check(); err != nil {
		return exitUsage, err
	}
	q := o.question(given)
	var batch io.ReadCloser
	if o.batch == "" {
		if o.family == "" {
			return exitUsage, &usageError{msg: "trace needs --family", hint: "ipv4 or ipv6; see: sixfence trace --help"}
		}
		if _, _, err := q.packet(); err != nil {
			return exitUsage, &usageError{msg: "trace", cause: err, hint: "see: sixfence trace --help"}
		}
	} else {
		if o.batch == "-" && o.rules.usesStdin() {
			return exitUsage, &usageError{msg: "standard input cannot be both packets and rules", hint: "write one of them to a file"}
		}
		batch = io.NopCloser(a.stdin)
		if o.batch != "-" {
			f, err := os.Open(o.batch)
			if err != nil {
				return exitUsage, &usageError{msg: "read batch", cause: err, hint: "one JSON object a line; see: sixfence trace --help"}
			}
			batch = f
		}
		defer batch.Close()
	}
	out, err := a.open(o.output)
	if err != nil {
		return exitUsage, err
	}
	sp, err := a.rules(o.rules, out.file, o.quiet)
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	if batch != nil {
		err := out.write(func(w io.Writer) error { return answerBatch(w, batch, sp, q.NetNS) })
		if err != nil {
			return exitUsage, err
		}
		return exitClean, nil
	}
	s, err := sp.get(q.NetNS)
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	p, h, _ := q.packet()
	if sp.only == nil {
		for _, name := range []string{q.IIF, q.OIF} {
			if n := missingLink(s, name); n != "" {
				a.log.Warn(n)
			}
		}
	}
	t := s.Trace(p, h, q.OnlyHook)
	if err := out.write(func(w io.Writer) error { return a.renderTrace(w, t, o) }); err != nil {
		return exitUsage, err
	}
	if t.Verdict == reach.WordUnknown {
		return exitUnknown, nil
	}
	return exitClean, nil
}

// missingLink says that a namespace has no interface of a name: rules that ask for
// another match it no less than for one that is misspelt.
func missingLink(s *reach.Space, name string) string {
	links, ok := s.Links.Get()
	if name == "" || !ok || slices.ContainsFunc(links, func(l fact.Link) bool { return l.Name == name }) {
		return ""
	}
	var have []string
	for _, l := range links {
		have = append(have, l.Name)
	}
	return fmt.Sprintf("no interface is called %s here, only %s; the answer is for one that would be", name, strings.Join(have[:min(len(have), 8)], ", "))
}

func (a *app) renderTrace(w io.Writer, t reach.Trace, o traceOptions) error {
	cleanTrace(&t)
	if o.format == "json" {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(t)
	}
	b := bufio.NewWriter(w)
	line := t.Verdict
	if t.Limited {
		line += ", up to a rate"
	}
	if t.Verdict == reach.WordUnknown {
		line += ": " + strings.Join(t.May, " or ")
	}
	fmt.Fprintln(b, line)
	if o.quiet {
		return b.Flush()
	}
	if len(t.Needs) > 0 {
		var flags []string
		for _, n := range t.Needs {
			flags = append(flags, reach.FlagOf(n))
		}
		fmt.Fprintln(b, "it depends on: "+strings.Join(flags, ", "))
	}
	if len(t.Unclear) > 0 {
		var words []string
		for _, w := range t.Unclear {
			words = append(words, reach.CauseWords(w))
		}
		fmt.Fprintln(b, "not known: "+strings.Join(words, "; "))
	}
	switch {
	case len(t.Path) > 0:
	case len(t.Unclear) > 0:
		fmt.Fprintln(b, "no chain that could be read sees the packet")
	default:
		fmt.Fprintln(b, "no chain sees the packet")
	}
	where := ""
	for _, v := range t.Path {
		if at := v.Table + " " + v.Chain; at != where {
			where = at
			if v.Hook != "" {
				at += " (hook " + v.Hook + ")"
			}
			fmt.Fprintln(b, "\n"+at)
		}
		id, result := "", v.Result
		if v.Handle != 0 {
			id = fmt.Sprint(v.Handle)
		}
		if id == "" && result == v.Rule { // the policy
			fmt.Fprintf(b, "          %s\n", result)
			continue
		}
		fmt.Fprintf(b, "  %6s  %-16s %s\n", id, result, v.Rule)
	}
	return b.Flush()
}

func cleanTrace(t *reach.Trace) {
	for i := range t.Unclear {
		t.Unclear[i] = report.Clean(t.Unclear[i])
	}
	for i := range t.Path {
		v := &t.Path[i]
		v.Table, v.Chain, v.Rule = report.Clean(v.Table), report.Clean(v.Chain), report.Clean(v.Rule)
	}
}
