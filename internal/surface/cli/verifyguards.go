package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/surface/report"
)

func guardsFlag(f *pflag.FlagSet, o *verifyOptions) {
	f.BoolVar(&o.guards, "guards", false, "instead of a target, fire forged neighbour discovery at a copy of this host, or of that of --snapshot, in namespaces of its own: which of it is taken")
}

func noTarget(args []string) error {
	if len(args) > 0 {
		return &usageError{msg: fmt.Sprintf("--guards looks at this host, and %q is a target", args[0]), hint: "drop one of the two; --guards --snapshot FILE looks at the host of a Snapshot"}
	}
	return nil
}

// withGuards are the flags that go with --guards.
var withGuards = []string{"guards", "snapshot", "netns", "format", "output", "fail-on", "allow-gaps", "quiet", "verbose", "no-color"}

// verifyGuards tests what a host does about forged messages.
func (a *app) verifyGuards(o verifyOptions, flags *pflag.FlagSet) (int, error) {
	if o.quiet {
		a.logger(slog.LevelError)
	} else if o.v {
		a.logger(slog.LevelDebug)
	}
	failOn, _, _, err := o.check()
	if err != nil {
		return exitUsage, err
	}
	other := ""
	flags.Visit(func(f *pflag.Flag) {
		if !slices.Contains(withGuards, f.Name) {
			other = f.Name
		}
	})
	if other != "" {
		return exitUsage, &usageError{msg: "--guards and --" + other + " exclude each other", hint: "--guards sends nothing to anybody: it takes " + strings.Join(withGuards[1:6], ", ")}
	}
	out := &sink{w: a.stdout, stop: func() {}}
	if o.output != "" && o.output != "-" {
		f, err := store.Create(o.output)
		if err != nil {
			return exitUsage, err
		}
		out.w, out.file = f, f
	}
	// The places are made while this process still may.
	pr := a.prover()
	defer pr.Close()
	snap, err := a.facts(source{snapshot: o.snapshot, elements: true}, out.file, o.quiet)
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	ns, err := spacesOf(snap).namespace(o.netns)
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	begin := time.Now()
	done := a.progress(o.quiet, "firing at a copy of the host, in namespaces of its own")
	pr.Progress = func(what string) { a.log.Debug("guards", "step", what) }
	j := &expect.Judge{Guards: pr.Guards(context.Background(), snap, ns)}
	done()
	cleanGuards(j.Guards)
	fs, gaps := j.Findings()
	name, _ := snap.Host.Hostname.Get()
	rep := finding.Report{SchemaVersion: finding.SchemaVersion, Tool: a.build.Tool(), At: begin.UTC(), Findings: fs, Gaps: gaps, Host: finding.Host{Name: name, Mode: "live"}}
	if err := out.write(func(w io.Writer) error {
		switch o.format {
		case "json":
			return writeVerifyJSON(w, j, rep, time.Since(begin), j.Guards.Reason == "")
		case "sarif":
			return report.SARIF(w, rep, expect.Controls())
		case "junit":
			return report.JUnit(w, rep, "sixfence verify --guards", failOn, nil)
		}
		return a.verifyText(w, j, rep, o, failOn, false)
	}); err != nil {
		return exitUsage, err
	}
	return exitCode(rep, failOn, o.allowGaps), nil
}

// cleanGuards takes out what a Snapshot could make a terminal do.
func cleanGuards(g *probe.Guards) {
	g.Kernel, g.Reason, g.WayOut = report.Clean(g.Kernel), report.Clean(g.Reason), report.Clean(g.WayOut)
	g.Loaded, g.NotLoaded, g.Limits = cleanEach(g.Loaded), cleanEach(g.NotLoaded), cleanEach(g.Limits)
	for n := range g.Interfaces {
		i := &g.Interfaces[n]
		i.Interface, i.Port, i.Unknown, i.Client = report.Clean(i.Interface), report.Clean(i.Port), report.Clean(i.Unknown), report.Clean(i.Client)
		for k := range i.Attacks {
			i.Attacks[k].Why = report.Clean(i.Attacks[k].Why)
		}
	}
}

// verifyGuards shows each sort of message at each interface, and what of it got through.
func verifyGuards(b *bufio.Writer, g *probe.Guards, width int) {
	if g == nil {
		return
	}
	fmt.Fprintf(b, "Forged neighbour discovery, fired at a copy of the host on kernel %s\n\n", g.Kernel)
	for _, i := range g.Interfaces {
		name := i.Interface
		if i.Port != "" {
			name += ", port " + i.Port
		}
		var parts []string
		if i.Router != "" {
			parts = append(parts, "its router is "+i.Router)
		} else {
			parts = append(parts, "no router is known here")
		}
		if i.Client != "" {
			parts = append(parts, i.Client+" takes advertisements")
		}
		if i.Unknown != "" {
			parts = append(parts, "proves nothing")
		}
		fmt.Fprintln(b, name+" ("+strings.Join(parts, "; ")+")")
		for _, group := range probe.GuardGroups() {
			guardLines(b, i, group)
		}
		if c := i.Control; c != nil {
			word, mark := "taken, as it must be", " "
			if c.Verdict != probe.GuardTaken {
				word = "comes through the rules; the kernel takes none here"
				switch {
				case c.Verdict == probe.GuardUnknown && !c.Through:
					word = "not known: " + c.Why
				case !c.Through:
					word, mark = "STOPPED by the rules", "!"
				}
			}
			fmt.Fprintf(b, "%s %-30s %s\n", mark, c.Name, word)
		}
		fmt.Fprintln(b)
	}
	var notes []string
	for _, n := range g.NotLoaded {
		notes = append(notes, "not there, so nothing is proven: "+n)
	}
	notes = append(notes, g.Limits...)
	for _, n := range notes {
		for k, line := range wrapText(n, width-4) {
			fmt.Fprintln(b, map[bool]string{true: "  - ", false: "    "}[k == 0]+line)
		}
	}
	if len(notes) > 0 {
		fmt.Fprintln(b)
	}
}

// guardLines are the messages of one sort.
func guardLines(b *bufio.Writer, i probe.Guard, group probe.GuardGroup) {
	by := map[string]int{}
	n, taken := 0, 0
	for _, a := range i.Attacks {
		if a.Group != group {
			continue
		}
		n++
		switch a.Verdict {
		case probe.GuardTaken:
			taken++
		case probe.GuardUnknown:
			by["not known"]++
		case probe.GuardStopped:
			by["stopped by "+strings.Replace("the "+a.By, "the both", "both", 1)]++
		}
	}
	if n == 0 {
		return
	}
	mark, parts := " ", []string{}
	for w, k := range by {
		parts = append(parts, fmt.Sprintf("%d %s", k, w))
	}
	slices.Sort(parts)
	if taken > 0 {
		mark, parts = "!", append([]string{fmt.Sprintf("%d of %d TAKEN", taken, n)}, parts...)
	}
	fmt.Fprintf(b, "%s %-30s %s\n", mark, group, strings.Join(parts, ", "))
}

// guardsLine is the last line when nothing is wrong.
func guardsLine(g *probe.Guards) string {
	n := 0
	for _, i := range g.Interfaces {
		n += len(i.Attacks)
	}
	return fmt.Sprintf("%s at %s, and none is taken.", plural(n, "forged message", "forged messages"), plural(len(g.Interfaces), "interface", "interfaces"))
}
