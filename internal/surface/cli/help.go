package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpText is the help of a command. The same parts make the reference and the
// manual pages.
func helpText(cmd *cobra.Command) string {
	var b strings.Builder
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	fmt.Fprintf(&b, "%s\n\nUSAGE\n  %s\n", strings.TrimSpace(long), usageLine(cmd))
	if subs := visible(cmd); len(subs) > 0 {
		b.WriteString("\nCOMMANDS\n")
		for _, c := range subs {
			fmt.Fprintf(&b, "  %-12s %s\n", c.Name(), c.Short)
		}
	}
	if fs := flagsOf(cmd); len(fs) > 0 {
		b.WriteString("\nFLAGS\n")
		wid := 0
		for _, f := range fs {
			wid = max(wid, len(flagLead(f)))
		}
		for _, f := range fs {
			lines := wrapText(flagUsage(f), 80-wid-4)
			fmt.Fprintf(&b, "  %-*s  %s\n", wid, flagLead(f), lines[0])
			for _, l := range lines[1:] {
				fmt.Fprintf(&b, "  %*s  %s\n", wid, "", l)
			}
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\nEXAMPLES\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	fmt.Fprintf(&b, "\n%s\n", exitStatus)
	return b.String()
}

func usageLine(cmd *cobra.Command) string {
	line := cmd.UseLine()
	if len(visible(cmd)) > 0 && !cmd.HasParent() {
		return cmd.Name() + " COMMAND [flags]"
	}
	return line
}

func visible(cmd *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, c := range cmd.Commands() {
		if !c.Hidden && c.Name() != "help" {
			out = append(out, c)
		}
	}
	return out
}

func flagsOf(cmd *cobra.Command) []*pflag.Flag {
	var out []*pflag.Flag
	cmd.InitDefaultHelpFlag()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			out = append(out, f)
		}
	})
	return out
}

func flagLead(f *pflag.Flag) string {
	lead := "    --" + f.Name
	if f.Shorthand != "" {
		lead = "-" + f.Shorthand + ", --" + f.Name
	}
	if name, _ := pflag.UnquoteUsage(f); name != "" {
		lead += " " + name
	}
	return lead
}

// flagUsage leaves out defaults that say "not given": no number is one either.
func flagUsage(f *pflag.Flag) string {
	_, usage := pflag.UnquoteUsage(f)
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
		usage += " (default " + f.DefValue + ")"
	}
	return usage
}

func wrapText(s string, width int) []string {
	var out []string
	cur := ""
	for _, w := range strings.Fields(s) {
		switch {
		case cur == "":
			cur = w
		case len(cur)+1+len(w) <= width:
			cur += " " + w
		default:
			out = append(out, cur)
			cur = w
		}
	}
	return append(out, cur)
}
