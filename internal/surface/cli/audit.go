package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/surface/report"
)

type auditOptions struct {
	format, snapshot, root, role, failOn, waivers, waiverFor, intent, output string
	allowGaps                                                                []string
	verbose, quiet, noColor                                                  bool
}

// never is the --fail-on that no finding reaches.
const never = "never"

// waiverDays is how long a waiver holds that --waiver-for proposes.
const waiverDays = 90

func (a *app) auditCommand() *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Say what is wrong with this host's IPv6 side, and how to fix it",
		Long: "audit reads this host and says what is wrong with its IPv6 side, why, and how to\n" +
			"fix it. It covers every network namespace it may enter and changes nothing.\n" +
			"Without root it works and says what it could not see.",
		Example: "  sudo sixfence audit\n" +
			"  sudo sixfence audit --verbose | less\n" +
			"  sudo sixfence audit --format json -o report.json\n" +
			"  sixfence audit --snapshot host.json     # a host read elsewhere\n" +
			"  sixfence audit --root /mnt/image        # an image: the disk half only",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			code, err := a.audit(o)
			a.code = code
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "text", "output `FORMAT`: text, json or sarif")
	f.StringVar(&o.snapshot, "snapshot", "", "read this Snapshot `FILE` (- is standard input) instead of the host")
	f.StringVar(&o.root, "root", "", "read the directory tree `DIR` (an image, a chroot) instead of the host")
	f.StringVar(&o.role, "role", "", "what the host is for, as `ROLE`: "+strings.Join(check.Roles(), ", ")+"; inferred by default")
	f.StringVar(&o.failOn, "fail-on", string(finding.High), "exit 1 for findings of this `SEVERITY` or worse: critical, high, medium, low, info or never")
	f.StringSliceVar(&o.allowGaps, "allow-gaps", nil, "accept gaps with these `REASONS` (comma-separated): permission, unsupported, truncated, not-collected, parse")
	f.StringVar(&o.waivers, "waivers", "", "accept the findings that this YAML `FILE` names")
	f.StringVar(&o.intent, "intent", "", "accept what the intent in this `FILE` waives, too (default "+config.IntentPath+" of this host, when there is one; none reads no intent)")
	f.StringVar(&o.waiverFor, "waiver-for", "", "print a waiver for the finding with this `FINGERPRINT` (or its first digits) instead of the report")
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` (mode 0600) instead of standard output")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show evidence, every fix, references, and what passed")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the verdict only, and no notes")
	f.BoolVar(&o.noColor, "no-color", false, "no colour (also: NO_COLOR=1; never off a terminal)")
	completeWords(cmd, "format", "text", "json", "sarif")
	completeWords(cmd, "role", check.Roles()...)
	completeWords(cmd, "fail-on", "critical", "high", "medium", "low", "info", never)
	completeWords(cmd, "allow-gaps", reasons()...)
	return cmd
}

func completeWords(cmd *cobra.Command, flag string, words ...string) {
	// The flag exists: it was defined a few lines above.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

func reasons() []string {
	return []string{string(fact.Permission), string(fact.UnsupportedGap), string(fact.Truncated), string(fact.NotCollected), string(fact.ParseGap)}
}

func (a *app) audit(o auditOptions) (int, error) {
	if o.verbose {
		a.logger(slog.LevelInfo)
	}
	if o.quiet {
		a.logger(slog.LevelError)
	}
	failOn, err := o.check()
	if err != nil {
		return exitUsage, err
	}
	ws, err := readWaivers(o.waivers)
	if err != nil {
		return exitUsage, err
	}
	more, err := a.intentWaivers(&o)
	if err != nil {
		return exitUsage, err
	}
	ws = append(ws, more...) // the file comes first: it may name a subject
	// The output is opened first: an audit whose result has nowhere to go need not
	// run, and later there are no rights left to open it with.
	out, err := a.open(o.output)
	if err != nil {
		return exitUsage, err
	}
	snap, err := a.facts(o.source(), out.file, o.quiet)
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	r := check.Evaluate(snap, check.Options{Role: o.role, Tool: a.build.Tool()})
	finding.ApplyWaivers(&r, ws, time.Now())
	if o.waiverFor != "" {
		block, err := waiverBlock(r, o.waiverFor)
		if err != nil {
			out.abort()
			return exitUsage, err
		}
		return exitClean, out.write(func(w io.Writer) error { _, err := io.WriteString(w, block); return err })
	}
	if err := out.write(func(w io.Writer) error { return a.render(w, r, o, failOn, snap.Host.Privilege.UID == 0) }); err != nil {
		return exitUsage, err
	}
	return exitCode(r, failOn, o.allowGaps), nil
}

// check validates the flags. An empty severity means that nothing fails.
func (o *auditOptions) check() (finding.Severity, error) {
	if err := oneOf("--format", o.format, "text", "json", "sarif"); err != nil {
		return "", err
	}
	if o.role != "" {
		if err := oneOf("--role", o.role, check.Roles()...); err != nil {
			return "", err
		}
	}
	for _, g := range o.allowGaps {
		if err := oneOf("--allow-gaps", g, reasons()...); err != nil {
			return "", err
		}
	}
	if o.snapshot != "" && o.root != "" {
		return "", &usageError{msg: "--snapshot and --root exclude each other", hint: "a Snapshot file is a host already read; --root reads a directory tree"}
	}
	if o.failOn == never {
		return "", nil
	}
	s, err := finding.ParseSeverity(o.failOn)
	if err != nil {
		return "", &usageError{msg: "--fail-on: " + err.Error(), hint: "use one of: critical, high, medium, low, info, never"}
	}
	return s, nil
}

func (o *auditOptions) source() source {
	return source{snapshot: o.snapshot, root: o.root, elements: true}
}

// source is where facts come from: a Snapshot file, a directory tree, or (when
// both are empty) this host.
type source struct {
	snapshot, root string
	elements       bool // of packet-filter sets too
	expand         bool // and sets whole
	// readable is a directory tree of this host that is read afterwards.
	readable string
}

// facts reads the source. On return the process is sealed.
func (a *app) facts(s source, out *store.Output, quiet bool) (*fact.Snapshot, error) {
	switch {
	case s.snapshot != "":
		in, name, done, err := a.input(s.snapshot)
		if err != nil {
			return nil, err
		}
		defer done()
		a.seal(sealing{output: out})
		return store.ReadSnapshot(in, name, 0)
	case s.root != "":
		if st, err := os.Stat(s.root); err != nil {
			return nil, &usageError{msg: "read --root", cause: err, hint: "name a directory that holds a root file system"}
		} else if !st.IsDir() {
			return nil, &usageError{msg: "read --root " + s.root + ": not a directory", hint: "mount or unpack the image first"}
		}
		a.seal(sealing{output: out, root: s.root})
		c, err := collect.Run(collect.Options{Root: s.root})
		if err != nil {
			return nil, &usageError{msg: "read --root", cause: err, hint: "check the path and its permissions"}
		}
		return c.Snapshot(), nil
	}
	what := "reading the host"
	if s.expand {
		what += " and whole sets, which the kernel may list for minutes"
	}
	done := a.progress(quiet, what)
	defer done()
	a.collecting()
	c, err := collect.Run(collect.Options{Elements: s.elements, Expand: s.expand})
	if err != nil {
		return nil, &usageError{msg: "read this host", cause: err, hint: "sixfence needs Linux with /proc mounted"}
	}
	a.seal(sealing{output: out, root: s.readable})
	snap := c.Snapshot()
	spare(snap)
	return snap, nil
}

// input opens a Snapshot file, or standard input.
func (a *app) input(path string) (in io.Reader, name string, done func(), err error) {
	if path == "-" {
		return a.stdin, "standard input", func() {}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", nil, &usageError{msg: "read snapshot", cause: err, hint: "make one with: sixfence snapshot -o FILE"}
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		f.Close()
		return nil, "", nil, &usageError{msg: "read snapshot " + path + ": it is a directory", hint: "for a directory tree use --root"}
	}
	return f, path, func() { f.Close() }, nil
}

func readWaivers(path string) ([]finding.Waiver, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &usageError{msg: "read waivers", cause: err, hint: "check the path; `sixfence audit --waiver-for FINGERPRINT` prints a waiver"}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, config.MaxWaivers+1))
	if err != nil {
		return nil, &usageError{msg: "read waivers", cause: err, hint: "check the path"}
	}
	return config.Waivers(path, b, func(id string) bool { _, ok := check.Find(id); return ok })
}

// intentWaivers are those of an intent: of the host's own where the host is read, and
// otherwise of one that is named. A host's own that is broken, or that somebody but
// root could have written, waives nothing, and that is said.
func (a *app) intentWaivers(o *auditOptions) ([]finding.Waiver, error) {
	own := o.intent == ""
	switch {
	case o.intent == "none", own && (o.snapshot != "" || o.root != ""):
		return nil, nil
	case own:
		switch _, err := os.Lstat(config.IntentPath); {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil:
			a.log.Info("the waivers of the intent are not known", "cause", err)
			return nil, nil
		}
	}
	l, _, err := a.intent(intentSource{file: o.intent, trusted: own})
	switch {
	case err == nil:
		return l.Waivers(), nil
	case own:
		a.log.Warn("nothing is waived by the intent", "file", config.IntentPath, "cause", err)
		return nil, nil
	}
	return nil, err
}

// waiverBlock is a ready waiver for one finding.
func waiverBlock(r finding.Report, fingerprint string) (string, error) {
	var hits []finding.Finding
	for _, f := range r.Findings {
		if len(fingerprint) >= 6 && strings.HasPrefix(f.Fingerprint, strings.ToLower(fingerprint)) {
			hits = append(hits, f)
		}
	}
	list := "`sixfence audit --verbose` shows the fingerprint of every finding"
	switch {
	case len(fingerprint) < 6:
		return "", &usageError{msg: fmt.Sprintf("--waiver-for %q is too short", fingerprint), hint: "give at least 6 digits; " + list}
	case len(hits) == 0:
		return "", &usageError{msg: fmt.Sprintf("no finding has the fingerprint %q", fingerprint), hint: list}
	case slices.ContainsFunc(hits, func(f finding.Finding) bool { return f.Fingerprint != hits[0].Fingerprint }):
		return "", &usageError{msg: fmt.Sprintf("%d findings have a fingerprint that begins with %q", len(hits), fingerprint), hint: "give more digits"}
	}
	i := slices.IndexFunc(hits, func(f finding.Finding) bool { return f.Status == finding.Fail || f.Status == finding.Waived })
	if i < 0 {
		return "", &usageError{msg: fmt.Sprintf("%s is %s, and only a failed finding can be waived", hits[0].Control, hits[0].Status), hint: "an unknown one is accepted by --allow-gaps"}
	}
	block, err := config.WaiverFor(hits[i], time.Now().AddDate(0, 0, waiverDays))
	if err != nil {
		return "", err
	}
	n := report.Neutralise(finding.Report{Findings: hits[i : i+1]}).Findings[0]
	return "# " + n.Title + "\n# Fill in reason and owner; both are required.\n" + block, nil
}

// render writes the report in the format asked for.
func (a *app) render(w io.Writer, r finding.Report, o auditOptions, failOn finding.Severity, root bool) error {
	switch o.format {
	case "json":
		return report.JSON(w, r)
	case "sarif":
		return report.SARIF(w, r, check.Catalogue())
	}
	t := report.TextOptions{Width: 80}
	width, height, tty := terminal(w)
	if tty {
		t.Width, t.Color = width, colourful(o.noColor)
	}
	t.Verbose, t.Quiet, t.FailOn, t.Root, t.Allow = o.verbose, o.quiet, failOn, root, o.allowGaps
	if !tty || o.verbose || o.quiet {
		return report.Text(w, r, t)
	}
	// On a terminal the first screen must be what is seen, not what scrolled away.
	var b bytes.Buffer
	if err := report.Text(&b, r, t); err != nil {
		return err
	}
	if bytes.Count(b.Bytes(), []byte("\n")) >= height {
		b.Reset()
		t.Short = true
		if err := report.Text(&b, r, t); err != nil {
			return err
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// exitCode is the answer as a number.
func exitCode(r finding.Report, failOn finding.Severity, allow []string) int {
	if failOn == "" {
		return exitClean
	}
	for _, f := range r.Findings {
		if f.Status == finding.Fail && f.Severity.AtLeast(failOn) {
			return exitFindings
		}
	}
	if len(report.Undecided(r, failOn, allow)) > 0 {
		return exitUnknown
	}
	return exitClean
}
