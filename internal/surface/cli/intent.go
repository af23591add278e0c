package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// maxDropIns bounds the files of sixfence.d.
const maxDropIns = 128

// intentDocumentVersion is the schemaVersion of what `intent` prints as JSON.
const intentDocumentVersion = "1.0"

// intentSource says where an intent is read from.
type intentSource struct {
	file string // "": the host's own; "-": standard input
	root string // a directory tree instead of the host
	// trusted: the file decides what becomes of this host, so nobody but root may be
	// able to write it, or to put another in its place.
	trusted bool
}

func (s *intentSource) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.file, "intent", "", "read this `FILE` (- is standard input), and *.yaml in the directory beside it that is named as it with .d for .yaml, instead of "+config.IntentPath)
	f.StringVar(&s.root, "root", "", "read the intent below `DIR` (an image, a chroot) instead of the host's own")
}

// path is the main file.
func (s *intentSource) path() string {
	if s.file != "" {
		return s.file
	}
	return filepath.Join(s.root, config.IntentPath)
}

// dropIns is the directory of the later files.
func (s *intentSource) dropIns() string {
	return strings.TrimSuffix(s.path(), filepath.Ext(s.path())) + ".d"
}

// intent reads an intent and its drop-ins. Each file is read once. What makes a file
// not worth trusting is a warning, and an error where it decides about this host.
func (a *app) intent(s intentSource) (*config.LoadedIntent, []string, error) {
	if s.file != "" && s.root != "" {
		return nil, nil, &usageError{msg: "--intent and --root exclude each other", hint: "name the file with its whole path"}
	}
	files, notes, err := a.intentFiles(s)
	if err != nil {
		return nil, nil, err
	}
	l, err := config.LoadIntent(files, func(id string) bool { _, ok := check.Find(id); return ok })
	return l, notes, err
}

func (a *app) intentFiles(s intentSource) (files []config.IntentFile, notes []string, err error) {
	if s.file == "-" {
		b, err := io.ReadAll(io.LimitReader(a.stdin, config.MaxIntentFile+1))
		if err != nil {
			return nil, nil, &usageError{msg: "read intent", cause: err, hint: "check the pipe"}
		}
		return []config.IntentFile{{Path: "standard input", Text: b}}, nil, nil
	}
	paths := []string{s.path()}
	dropIns := s.dropIns()
	entries, err := os.ReadDir(dropIns) // sorted by name
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, nil, &usageError{msg: "read intent", cause: err, hint: "check the directory and its permissions"}
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".yaml") && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dropIns, e.Name()))
		} else if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			notes = append(notes, filepath.Join(dropIns, e.Name())+" is not read: only names that end in .yaml are")
		}
	}
	if len(paths) > maxDropIns {
		return nil, nil, &usageError{msg: fmt.Sprintf("read intent: %s holds more than %d files", dropIns, maxDropIns), hint: "put them together"}
	}
	for _, p := range paths {
		b, unsafe, err := readIntentFile(p, s.trusted)
		if err != nil {
			return nil, nil, err
		}
		if unsafe != "" && !slices.Contains(notes, unsafe) {
			notes = append(notes, unsafe)
		}
		files = append(files, config.IntentFile{Path: p, Text: b})
	}
	return files, notes, nil
}

// readIntentFile reads one file by a way that nobody but root can bend: no symbolic
// link in it, every directory and the file itself root's (or the caller's) and not
// writable by others.
func readIntentFile(path string, trusted bool) (text []byte, unsafe string, err error) {
	text, err = readTrusted(path)
	var u *store.UnsafeError
	switch {
	case err == nil:
		return text, "", nil
	case errors.As(err, &u) && trusted:
		return nil, "", err
	case errors.As(err, &u):
		unsafe = "apply would refuse this intent: " + u.Error() + " (" + u.Hint + ")"
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", &usageError{msg: "read intent " + path + ": there is no such file", hint: "write one from this host with: sixfence harden init"}
	case trusted:
		return nil, "", &usageError{msg: "read intent", cause: err, hint: "check the path and its permissions"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", &usageError{msg: "read intent", cause: err, hint: "check the path and its permissions"}
	}
	defer f.Close()
	if text, err = io.ReadAll(io.LimitReader(f, config.MaxIntentFile+1)); err != nil {
		return nil, "", &usageError{msg: "read intent", cause: err, hint: "name a file"}
	}
	return text, unsafe, nil
}

func readTrusted(path string) ([]byte, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	var plain *store.Layer
	dir, err := plain.Open(filepath.Dir(abs))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	b, info, err := dir.Read(filepath.Base(abs), config.MaxIntentFile)
	switch {
	case err != nil:
		return nil, err
	case info.UID != 0 && int(info.UID) != os.Geteuid():
		return nil, &store.UnsafeError{Path: abs, Why: fmt.Sprintf("belongs to user %d, who could change it", info.UID), Hint: "chown root " + abs}
	case info.Mode&0o022 != 0:
		return nil, &store.UnsafeError{Path: abs, Why: fmt.Sprintf("is writable by others (mode %04o)", info.Mode), Hint: "chmod go-w " + abs}
	}
	return b, nil
}

func (a *app) intentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "intent",
		Short: "Check and show the file that says what this host is meant to be",
		Long: "intent reads " + config.IntentPath + ", then *.yaml in\n" +
			config.IntentDropIns + " in the order of their names. A later file wins:\n" +
			"mappings are merged key by key; services, checks and waivers add up, and a service\n" +
			"with the name of an earlier one takes its place; every other value, lists included,\n" +
			"replaces the earlier one. `sixfence harden init` writes such a file from the host as\n" +
			"it is.",
		Example: "  sixfence intent check\n  sixfence intent show --merged",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.intentCheckCommand(), a.intentShowCommand())
	return cmd
}

type intentOptions struct {
	source         intentSource
	format, output string
	merged         bool
	quiet, noColor bool
}

func (a *app) intentCheckCommand() *cobra.Command {
	var o intentOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say every mistake in an intent, its line, and what to write instead",
		Long: "check reads an intent as plan and apply do and says every mistake in it at once,\n" +
			"with file, line and what to write instead. It exits 2 when there is one. That\n" +
			"somebody but root could change the files is a mistake in the host's own, and a\n" +
			"warning elsewhere.",
		Example: "  sixfence intent check\n  sixfence intent check --intent fleet.yaml",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			o.source.trusted = o.source.file == "" && o.source.root == ""
			code, err := a.intentCheck(o)
			a.code = code
			return err
		},
	}
	o.source.flags(cmd)
	outputFlags(cmd, &o.format, &o.output, &o.noColor)
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "say nothing when all is well")
	return cmd
}

// intentProblem is a mistake or a warning in JSON.
type intentProblem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Text    string `json:"text,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func problems(es []*config.Error, notes []string) []intentProblem {
	out := []intentProblem{}
	for _, e := range es {
		out = append(out, intentProblem{File: report.Clean(e.File), Line: e.Line, Text: report.Clean(e.Text), Message: report.Clean(e.Why), Hint: report.Clean(e.Hint)})
	}
	for _, n := range notes {
		out = append(out, intentProblem{Message: report.Clean(n)})
	}
	return out
}

func (a *app) intentCheck(o intentOptions) (int, error) {
	if err := oneOf("--format", o.format, "text", "json"); err != nil {
		return exitUsage, err
	}
	out, err := a.open(o.output)
	if err != nil {
		return exitUsage, err
	}
	l, notes, err := a.intent(o.source)
	var mistakes config.Errors
	if err != nil && (!errors.As(err, &mistakes) || o.format == "text") {
		out.abort()
		return exitUsage, err
	}
	doc := struct {
		SchemaVersion string          `json:"schemaVersion"`
		Valid         bool            `json:"valid"`
		Hash          string          `json:"hash,omitempty"`
		Files         []string        `json:"files"`
		Errors        []intentProblem `json:"errors"`
		Warnings      []intentProblem `json:"warnings"`
	}{SchemaVersion: intentDocumentVersion, Valid: l != nil, Files: []string{}, Errors: problems(mistakes, nil), Warnings: problems(nil, notes)}
	if l != nil {
		doc.Hash, doc.Files, doc.Warnings = l.Hash, cleanEach(l.Files), problems(l.Warnings, notes)
	}
	code := exitClean
	if !doc.Valid {
		code = exitUsage
	}
	return code, out.write(func(w io.Writer) error {
		if o.format == "json" {
			return indented(w, doc)
		}
		for _, p := range doc.Warnings {
			writeProblem(w, "warning", p)
		}
		if o.quiet {
			return nil
		}
		in := &l.Intent
		_, err := fmt.Fprintf(w, "The intent is fine: role %s, %s, %s, %s.\n%s\n", in.Role, orWord(string(in.Families), string(intent.DualStack)),
			plural(len(in.Interfaces), "entry of interfaces", "entries of interfaces"), plural(len(in.Services), "service", "services"), strings.Join(doc.Files, "\n"))
		return err
	})
}

func writeProblem(w io.Writer, what string, p intentProblem) {
	at := ""
	if p.File != "" {
		at = config.Origin{File: p.File, Line: p.Line}.String() + ": "
	}
	fmt.Fprintf(w, "%s: %s%s\n", what, at, p.Message)
	if p.Text != "" {
		fmt.Fprintf(w, "    %s\n", p.Text)
	}
	if p.Hint != "" {
		fmt.Fprintf(w, "    %s\n", p.Hint)
	}
}

func orWord(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func indented(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (a *app) intentShowCommand() *cobra.Command {
	var o intentOptions
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show an intent as it holds, and the file and line of each value",
		Long:    "show prints the intent after all files are merged, as YAML. With --merged each value\nsays the file and line it comes from.",
		Example: "  sixfence intent show\n  sixfence intent show --merged\n  sixfence intent show --format json",
		Args:    noArgs,
		RunE:    func(*cobra.Command, []string) error { return a.intentShow(o) },
	}
	o.source.flags(cmd)
	outputFlags(cmd, &o.format, &o.output, &o.noColor)
	cmd.Flags().BoolVar(&o.merged, "merged", false, "say where each value comes from")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "no notes on standard error")
	return cmd
}

func (a *app) intentShow(o intentOptions) error {
	if err := oneOf("--format", o.format, "text", "json"); err != nil {
		return err
	}
	out, err := a.open(o.output)
	if err != nil {
		return err
	}
	l, notes, err := a.intent(o.source)
	if err != nil {
		out.abort()
		return err
	}
	if !o.quiet {
		for _, p := range problems(l.Warnings, notes) {
			writeProblem(a.stderr, "warning", p)
		}
	}
	if o.format == "json" {
		return out.write(func(w io.Writer) error {
			return indented(w, struct {
				SchemaVersion string                   `json:"schemaVersion"`
				Hash          string                   `json:"hash"`
				Files         []string                 `json:"files"`
				Intent        intent.Intent            `json:"intent"`
				Origins       map[string]config.Origin `json:"origins"`
				Warnings      []intentProblem          `json:"warnings"`
			}{intentDocumentVersion, l.Hash, cleanEach(l.Files), l.Intent, l.Origins, problems(l.Warnings, notes)})
		})
	}
	n := config.Notes{}
	if o.merged {
		n = provenance(l)
	}
	return out.write(func(w io.Writer) error { _, err := w.Write(config.WriteIntent(l.Intent, n)); return err })
}

// provenance says where each value comes from, at the coarsest place that is true of
// everything below it.
func provenance(l *config.LoadedIntent) config.Notes {
	out := config.Notes{"": {Above: []string{"Merged from, later ones win:"}}}
	top := out[""]
	for _, f := range l.Files {
		top.Above = append(top.Above, "  "+f)
	}
	top.Above = append(top.Above, "SHA-256 of the meaning: "+l.Hash)
	out[""] = top
	parent := func(p string) string {
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			return ""
		}
		return p[:i]
	}
	// mixed are the places whose values come from more than one line.
	mixed := map[string]bool{}
	for p, o := range l.Origins {
		for up := parent(p); up != ""; up = parent(up) {
			if x, ok := l.Origins[up]; ok && x != o {
				mixed[up] = true
			}
		}
	}
	for p, o := range l.Origins {
		up := parent(p)
		if _, ok := l.Origins[up]; !mixed[p] && (!ok || mixed[up]) {
			out[p] = config.Note{Beside: o.String()}
		}
	}
	return out
}

// selectionNotes says which entries of interfaces select nothing, with what there is
// to select, and which could not be told.
func selectionNotes(in *intent.Intent, n *fact.Namespace) []string {
	if n == nil {
		return nil
	}
	s, gap := in.Select(n)
	if gap != nil {
		return []string{"which entry of interfaces holds where is not known: " + gap.What}
	}
	links, _ := n.Links.Get()
	var out []string
	for _, k := range s.Unused {
		m := in.Interfaces[k].Effective(k)
		there := []string{}
		for i := range links {
			if l := &links[i]; l.Name != "lo" {
				there = append(there, described(l))
			}
		}
		shown := strings.Join(there[:min(len(there), 6)], ", ")
		if len(there) > 6 {
			shown += fmt.Sprintf(" and %d more", len(there)-6)
		}
		later := "it will hold for one of that name that comes later"
		if m.Name == "" || m.Driver != "" || m.MAC != "" || m.Role != "" {
			later = "for one that comes later, plan and apply again"
		}
		out = append(out, fmt.Sprintf("interfaces.%s (%s) selects no interface that is there now; there are: %s; %s", k, wanted(m), orWord(shown, "none"), later))
	}
	for _, u := range s.Undecided {
		out = append(out, fmt.Sprintf("whether interfaces.%s selects %s is not known: %s", u.Key, u.Interface, u.What))
	}
	return out
}

// wanted is what a match selects by.
func wanted(m intent.Match) string {
	var out []string
	for _, x := range [][2]string{{"name", m.Name}, {"driver", m.Driver}, {"MAC address", m.MAC}, {"role", m.Role}} {
		if x[1] != "" {
			out = append(out, x[0]+" "+x[1])
		}
	}
	return strings.Join(out, ", ")
}

// described is an interface with what it can be selected by.
func described(l *fact.Link) string {
	by := []string{orWord(l.Driver.Or(""), orWord(l.Kind, "driver not known"))}
	if l.MAC != "" {
		by = append(by, l.MAC)
	}
	return l.Name + " (" + strings.Join(by, ", ") + ")"
}
