// Package cli is the command line: one file a verb. It is the only package that
// prints or exits.
//
// Standard output carries the document that was asked for and nothing else;
// errors, notes and progress go to standard error.
package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/surface/obs"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// Exit codes. When several apply: 2, 5, 4, 1, 3, 0. Codes 4 and 5 belong to verbs
// that change the host.
const (
	exitClean      = 0
	exitFindings   = 1
	exitUsage      = 2
	exitUnknown    = 3
	exitRefused    = 4
	exitRolledBack = 5
)

// exitStatus is part of every command's help.
const exitStatus = `EXIT STATUS
  0  clean
  1  a finding at or over --fail-on
  2  usage, configuration or unreadable input
  3  a gap left a control at or over --fail-on unknown (see --allow-gaps), the
     answer is unknown, or the rules of a file cannot be known as a whole
  4  refused: it would lock you out
  5  rolled back
  When several apply, the first of 2, 5, 4, 1, 3, 0. Codes 4 and 5 are kept for
  commands that change the host.`

// app is one run of the program.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	build          obs.Build
	log            *slog.Logger
	code           int       // exit code when there is no error
	told           time.Time // of the progress of ports
}

// Main runs the command line and returns the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, build: obs.ReadBuild()}
	a.logger(slog.LevelWarn)
	root := a.root()
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		a.complain(err)
		return exitOf(err)
	}
	return a.code
}

func (a *app) logger(l slog.Level) { a.log = obs.Logger(a.stderr, l, report.Clean) }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sixfence",
		Short: "Audit and harden the IPv6 and dual-stack security of a Linux host",
		Long: "sixfence finds what is wrong with the IPv6 side of a Linux host, says why it\n" +
			"matters and shows the exact fix. Every command but harden only reads.",
		Example:       "  sudo sixfence audit\n  sixfence explain SYSCTL-RA-01",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			e := &usageError{msg: fmt.Sprintf("unknown command %q", args[0]), hint: "`sixfence --help` lists the commands"}
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				e.hint = "did you mean: sixfence " + strings.Join(s, ", sixfence ")
			}
			return e
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetIn(a.stdin)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{msg: err.Error(), hint: "see: " + cmd.CommandPath() + " --help"}
	})
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprint(a.stdout, helpText(cmd)) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { fmt.Fprint(a.stderr, helpText(cmd)); return nil })
	root.AddCommand(a.auditCommand(), a.snapshotCommand(), a.explainCommand(), a.schemaCommand(),
		a.reachCommand(), a.traceCommand(), a.verifyCommand(), a.targetsCommand(), a.vantageCommand(), a.intentCommand(), a.hardenCommand(), a.completionCommand(), a.versionCommand(), a.docsCommand())
	root.SetHelpCommand(a.helpCommand())
	return root
}

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show help for a command", Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := cmd.Root().Find(args)
			if err != nil || c == nil || c == cmd.Root() && len(args) > 0 {
				return &usageError{msg: fmt.Sprintf("unknown command %q", strings.Join(args, " ")), hint: "`sixfence --help` lists the commands"}
			}
			return c.Help()
		},
	}
}

// usageError is a mistake on the command line or in a file, with its remedy.
type usageError struct {
	msg, hint string
	cause     error
}

func (e *usageError) Error() string {
	if e.cause != nil {
		return e.msg + ": " + e.cause.Error()
	}
	return e.msg
}

func (e *usageError) Unwrap() error { return e.cause }

// noArgs refuses arguments with a hint.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &usageError{msg: fmt.Sprintf("%s takes no argument, got %q", cmd.CommandPath(), args[0]), hint: "see: " + cmd.CommandPath() + " --help"}
}

// complain prints one error line and its hints.
func (a *app) complain(err error) {
	if many := config.Errors(nil); errors.As(err, &many) && len(many) > 1 {
		for _, e := range many {
			a.complain(e)
		}
		return
	}
	fmt.Fprintln(a.stderr, "sixfence: "+report.CleanText(err.Error()))
	for _, h := range hints(err) {
		fmt.Fprintln(a.stderr, "hint: "+report.Clean(h))
	}
}

// terminal tells whether a stream is a terminal that can do more than print, and
// how large it is.
func terminal(w any) (width, height int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 80, 24, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	return width, height, true
}

// colourful follows https://no-color.org and TERM.
func colourful(off bool) bool {
	return !off && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}

// styled are the text options for standard output.
func (a *app) styled(noColor bool) report.TextOptions {
	w, _, tty := terminal(a.stdout)
	return report.TextOptions{Width: w, Color: tty && colourful(noColor)}
}

// oneOf checks a word against a closed set.
func oneOf(flag, value string, allowed ...string) error {
	for _, v := range allowed {
		if v == value {
			return nil
		}
	}
	return &usageError{msg: fmt.Sprintf("%s %q is not one of %s", flag, value, strings.Join(allowed, ", ")), hint: "use one of: " + strings.Join(allowed, ", ")}
}

// outputError puts a failed write into words.
func outputError(err error) error {
	if err == nil {
		return nil
	}
	var u *usageError
	if errors.As(err, &u) {
		return err
	}
	return &usageError{msg: "write output", cause: err, hint: "check that the disk is not full and the reader of the pipe still runs"}
}
