package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// owned is a host whose files somebody else brings.
type owned struct {
	Owner string `json:"owner"`
	// Differs are the objects that are not as the intent says.
	Differs []ownedDiff `json:"differs"`
	Gaps    []string    `json:"gaps,omitempty"` // what could not be compared
}

type ownedDiff struct {
	Kind   change.Kind `json:"kind"`
	Target string      `json:"target"`
	Now    string      `json:"now"`
	Want   string      `json:"want"`
}

// owned compares this host with its intent, when that says that somebody else brings
// the files; nil when it does not. The process is sealed afterwards.
func (a *app) owned() (*owned, error) {
	if _, err := os.Lstat(config.IntentPath); err != nil {
		return nil, nil //nolint:nilerr // a host without an intent has no owner either; who cannot read it cannot read the state
	}
	l, _, err := a.intent(intentSource{trusted: os.Geteuid() == 0})
	if err != nil {
		a.log.Warn("whose the files of this host are is not known", "cause", err)
		return nil, nil
	}
	if l.Intent.Files.Owner == "" {
		return nil, nil
	}
	p, _, err := a.makePlan(l.Intent, planOptions{quiet: true}, nil)
	if err != nil {
		return nil, err
	}
	out := &owned{Owner: l.Intent.Files.Owner, Differs: []ownedDiff{}}
	for _, s := range p.Steps {
		out.Differs = append(out.Differs, ownedDiff{Kind: s.Kind, Target: s.Target, Now: brief(s, s.Before), Want: brief(s, s.After)})
	}
	for _, g := range p.Gaps {
		out.Gaps = append(out.Gaps, g.What)
	}
	return out, nil
}

// brief is an image in a few words.
func brief(s change.Step, i change.Image) string {
	switch {
	case i.Absent:
		return "not there"
	case s.Kind == change.Sysctl, s.Kind == change.Unit:
		return i.Text
	}
	return fmt.Sprintf("%d bytes", len(i.Text))
}

func (o *owned) text(w io.Writer) {
	fmt.Fprintf(w, "The files of this host are brought by %s; sixfence only checks.\n", report.Clean(o.Owner))
	if len(o.Differs) == 0 {
		fmt.Fprintln(w, "The disk and the kernel are as the intent says.")
	}
	for _, d := range o.Differs {
		fmt.Fprintf(w, "DIFFERS %s %s: is %s, the intent says %s\n", d.Kind, report.Clean(d.Target), report.Clean(d.Now), report.Clean(d.Want))
	}
	if len(o.Differs) > 0 {
		fmt.Fprintf(w, "  Have %s bring it: sixfence harden export writes what the intent means.\n", report.Clean(o.Owner))
	}
	for _, g := range o.Gaps {
		fmt.Fprintf(w, "NOT KNOWN: %s\n", report.Clean(g))
	}
}
