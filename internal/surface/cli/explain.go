package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/surface/report"
)

func (a *app) explainCommand() *cobra.Command {
	var format string
	var noColor, quiet bool
	cmd := &cobra.Command{
		Use:   "explain [CONTROL]",
		Short: "Teach one control: what, why, attack, fix, trade-off, how we check",
		Long: "explain teaches one control: what it looks at, why it matters, how it is attacked,\n" +
			"how to fix it, what the fix costs, and how sixfence checks it. Without a control\n" +
			"it lists all.",
		Example: "  sixfence explain\n  sixfence explain SYSCTL-RA-01",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{msg: "explain takes one control", hint: "see: sixfence explain --help"}
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var out []cobra.Completion
			if len(args) == 0 {
				for _, c := range catalogue() {
					out = append(out, cobra.CompletionWithDesc(c.ID, c.Title))
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.explain(args, format, noColor) },
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "text", "output `FORMAT`: text or json")
	f.BoolVar(&noColor, "no-color", false, "no colour (also: NO_COLOR=1; never off a terminal)")
	f.BoolVarP(&quiet, "quiet", "q", false, "accepted like everywhere; there are no notes")
	completeWords(cmd, "format", "text", "json")
	return cmd
}

func (a *app) explain(args []string, format string, noColor bool) error {
	if err := oneOf("--format", format, "text", "json"); err != nil {
		return err
	}
	o := a.styled(noColor)
	if len(args) == 0 {
		if format == "json" {
			return outputError(report.ExplainJSON(a.stdout, catalogue(), true))
		}
		return outputError(report.ExplainList(a.stdout, catalogue(), o))
	}
	id := strings.ToUpper(args[0])
	i := slices.IndexFunc(catalogue(), func(c check.Control) bool { return c.ID == id })
	if i < 0 {
		return unknownControl(args[0], id)
	}
	c := catalogue()[i]
	if format == "json" {
		return outputError(report.ExplainJSON(a.stdout, []check.Control{c}, false))
	}
	_, err := io.WriteString(a.stdout, report.Explain(c, o))
	return outputError(err)
}

// catalogue is every control: those that facts decide, and those that probes do.
func catalogue() []check.Control { return append(check.Catalogue(), expect.Controls()...) }

func dispositions() []check.Disposition {
	return append(check.Dispositions(), expect.Dispositions()...)
}

func unknownControl(given, id string) error {
	for _, d := range dispositions() {
		if d.ID == id {
			e := &usageError{msg: fmt.Sprintf("%s (%s) is not implemented: %s", d.ID, d.Title, d.State), hint: "`sixfence explain` lists the controls that are"}
			if d.Because != "" {
				e.msg += ", because " + d.Because
			}
			return e
		}
	}
	e := &usageError{msg: fmt.Sprintf("there is no control %q", given), hint: "`sixfence explain` lists the controls"}
	if near := nearest(id); len(near) > 0 {
		e.hint = "did you mean " + strings.Join(near, " or ") + "? `sixfence explain` lists the controls"
	}
	return e
}

// nearest are the IDs that a typing error away from id, at most three.
func nearest(id string) []string {
	var ids []string
	for _, c := range catalogue() {
		ids = append(ids, c.ID)
	}
	slices.Sort(ids)
	return config.Nearest(id, ids)
}
