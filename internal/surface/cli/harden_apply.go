package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/engine/apply"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// hardenOutput is schemaVersion of what these verbs print as JSON.
const hardenOutput = "1.0"

// hardenFlags are those of every verb that looks after a change.
type hardenFlags struct {
	stateDir, format string
}

func (f *hardenFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.stateDir, "state-dir", apply.StateDir, "`DIR` where changes are kept; one for each network namespace")
	cmd.Flags().StringVar(&f.format, "format", "text", "output `FORMAT`: text or json")
	completeWords(cmd, "format", "text", "json")
}

func (a *app) engine(f *hardenFlags) *apply.Engine {
	return apply.New(f.stateDir, a.log.Info)
}

// hardenApplyCommands are the verbs that perform a plan and look after it.
func (a *app) hardenApplyCommands() []*cobra.Command {
	return []*cobra.Command{
		a.applyCommand(), a.confirmCommand(), a.rollbackCommand(), a.statusCommand(), a.historyCommand(),
		a.undoCommand(apply.SuperviseVerb), a.undoCommand(apply.ExpireVerb), a.undoCommand(apply.ListenVerb), a.undoCommand(apply.ResumeVerb), a.undoCommand(apply.KeepVerb),
	}
}

// document prints what a verb found: JSON, or text by f.
func (a *app) document(format string, v any, text func(io.Writer)) error {
	if format != "json" {
		var b bytes.Buffer
		text(&b)
		_, err := a.stdout.Write(b.Bytes())
		return outputError(err)
	}
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return outputError(e.Encode(v))
}

// ended is what is printed of a change that came to an end.
type ended struct {
	SchemaVersion string         `json:"schemaVersion"`
	Outcome       *apply.Outcome `json:"outcome"`
}

// waits is what is printed of a change that waits.
type waits struct {
	SchemaVersion string         `json:"schemaVersion"`
	Pending       *apply.Pending `json:"pending"`
}

// ending prints an outcome, whatever the error beside it.
func (a *app) ending(format string, out *apply.Outcome, err error) error {
	if back := (*apply.RolledBackError)(nil); out == nil && errors.As(err, &back) {
		out = &back.Outcome
	}
	if out != nil {
		if e := a.document(format, ended{hardenOutput, out}, func(w io.Writer) { outcomeText(w, out) }); e != nil {
			return e
		}
	}
	return err
}

func outcomeText(w io.Writer, o *apply.Outcome) {
	switch o.Result {
	case "confirmed":
		when := ", now and after a reboot"
		if len(o.Ephemeral) > 0 {
			when = ""
		}
		fmt.Fprintf(w, "Change %s is kept: the running kernel and the files agree%s.\n", o.ID, when)
		ephemeralText(w, o.Ephemeral)
	case "reverted-by-reboot":
		fmt.Fprintf(w, "Change %s was taken back by a reboot: it had not been confirmed.\n", o.ID)
	default:
		fmt.Fprintf(w, "Change %s is taken back", o.ID)
		if o.Why != "" {
			fmt.Fprintf(w, ": %s", report.Clean(o.Why))
		}
		fmt.Fprintln(w, ".")
	}
	for _, l := range o.Lost {
		fmt.Fprintf(w, "  not made again: %s\n", report.Clean(l))
	}
	for _, c := range o.Conflicts {
		fmt.Fprintf(w, "  kept as it is: %s\n", report.Clean(c))
	}
	for _, c := range o.Failed {
		fmt.Fprintf(w, "  FAILED: %s\n", report.Clean(c))
	}
}

// ephemeralText says what the next boot takes away.
func ephemeralText(w io.Writer, list []string) {
	for _, x := range list {
		fmt.Fprintf(w, "UNTIL THE NEXT BOOT ONLY: %s\n", report.Clean(x))
	}
}

func (a *app) applyCommand() *cobra.Command {
	var f hardenFlags
	var timeout time.Duration
	var confirmBy string
	var nonInteractive, unproven bool
	cmd := &cobra.Command{
		Use:   "apply PLAN",
		Short: "Perform a plan in the running kernel, and wait for confirm",
		Long: "apply performs exactly the plan in a file (`sixfence harden plan -o FILE`), or\n" +
			"nothing: it refuses when the host has changed since. Before anything is written it\n" +
			"fires at the plan once more, in namespaces of its own, and refuses what does not do\n" +
			"what the intent says; --unproven goes on where that cannot be tried. The undo is\n" +
			"armed outside of this session before the first change: a systemd timer, or a process\n" +
			"that no hang-up reaches. Files are not touched before `sixfence harden confirm`, so\n" +
			"that a reboot is an undo as well.\n\n" +
			"With --non-interactive --confirm-by checks the checks of the intent confirm it, at\n" +
			"once.",
		Example: "  sudo sixfence harden apply plan.json\n  sudo sixfence harden apply --timeout 10m plan.json\n  sudo sixfence harden apply --non-interactive --confirm-by checks plan.json",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{msg: "apply takes one plan", hint: "make one with: sixfence harden plan -o FILE"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("--format", f.format, "text", "json"); err != nil {
				return err
			}
			if confirmBy != "" {
				if err := oneOf("--confirm-by", confirmBy, "checks"); err != nil {
					return err
				}
			}
			if nonInteractive != (confirmBy != "") {
				return &usageError{msg: "--non-interactive and --confirm-by belong together", hint: "use both: --non-interactive --confirm-by checks"}
			}
			if timeout < 5*time.Second || timeout > 24*time.Hour {
				return &usageError{msg: fmt.Sprintf("--timeout %s is not between 5s and 24h", timeout), hint: "give yourself the time to open a new connection: --timeout 5m"}
			}
			p, err := readPlan(args[0])
			if err != nil {
				return err
			}
			return a.perform(cmd.Context(), &f, p, apply.Options{Timeout: timeout, Who: who(), Session: a.session()}, confirmBy == "checks", a.proveAgain(unproven))
		},
	}
	f.add(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "take everything back after `TIME` without a confirm")
	cmd.Flags().StringVar(&confirmBy, "confirm-by", "", "confirm by `WHAT`: checks, those of the intent")
	cmd.Flags().BoolVar(&unproven, "unproven", false, "apply also where the plan cannot be proven here; see the plan for the reason")
	cmd.Flags().BoolVar(&nonInteractive, "non-interactive", false, "nobody is there to confirm (needs --confirm-by)")
	completeWords(cmd, "confirm-by", "checks")
	return cmd
}

// session are the connections that this process was started over.
func (a *app) session() []change.Way {
	session, _ := a.ways(nil)
	return session
}

// administeredNow makes a rollback one that has to be confirmed over the ways by which
// the host is administered today, not over those of the day of the change: whoever sits
// at the console, because nothing else is left, confirms there.
func (a *app) administeredNow(p *change.Plan) {
	ports := map[uint16]bool{}
	for _, w := range p.Administered {
		ports[w.Local.Port()] = true
	}
	session, open := a.ways(ports)
	if p.Administered = session; len(session) == 0 {
		p.Administered = open
	}
	p.ID = p.Sum()
}

// perform applies a plan and, by checks, confirms it. prove may be nil: a rollback brings
// back what was there.
func (a *app) perform(ctx context.Context, f *hardenFlags, p *change.Plan, o apply.Options, byChecks bool, prove func(context.Context, *change.Plan) error) error {
	e := a.engine(f)
	e.Prove = prove
	if len(p.Steps) == 0 && len(p.Refusals) == 0 {
		return a.document(f.format, waits{hardenOutput, nil}, func(w io.Writer) { fmt.Fprintln(w, "Nothing to do: the host is as intended.") })
	}
	if byChecks && len(p.Checks) == 0 {
		return &usageError{msg: "the plan has no check to confirm by", hint: "declare checks in the intent, or confirm over a new connection"}
	}
	pending, err := e.Apply(ctx, p, o)
	if err != nil {
		return a.ending(f.format, nil, err)
	}
	if !byChecks {
		return a.document(f.format, waits{hardenOutput, pending}, func(w io.Writer) { pendingText(w, pending, true) })
	}
	out, err := e.Confirm(ctx, apply.ConfirmOptions{ByChecks: true})
	if err != nil && out == nil {
		cause := err
		if out, err = e.Rollback(ctx); err == nil && out != nil {
			err = &apply.RolledBackError{Cause: cause, Outcome: *out}
		} else {
			err = errors.Join(cause, err)
		}
	}
	return a.ending(f.format, out, err)
}

func pendingText(w io.Writer, p *apply.Pending, fresh bool) {
	if fresh {
		fmt.Fprintf(w, "Change %s is in the running kernel, and nowhere on the disk yet.\n", p.ID)
	} else {
		fmt.Fprintf(w, "Change %s is %s.\n", p.ID, p.Phase)
	}
	by := p.Armed.How
	switch {
	case p.Armed.Unit != "":
		by += " " + p.Armed.Unit
	case p.Armed.PID != 0:
		by += fmt.Sprintf(" %d", p.Armed.PID)
	}
	fmt.Fprintf(w, "It takes itself back at %s, in %s, whatever becomes of this session (armed: %s).\n\n",
		p.Deadline.Local().Format("15:04:05"), (time.Duration(p.Remaining) * time.Second).String(), by)
	if len(p.Administered) > 0 {
		fmt.Fprintln(w, "Keep it: open a NEW connection for each line, and confirm from there. This session,")
		fmt.Fprintln(w, "a multiplexed ssh (ControlMaster), tmux and screen prove nothing and do not count.")
		seen := map[string]bool{}
		for _, way := range p.Administered {
			at := way.Family + " to " + way.Local.String()
			if seen[at] {
				continue
			}
			seen[at] = true
			mark := ""
			for _, proven := range p.Proven {
				if proven == way.Family {
					mark = "   (proven)"
				}
			}
			fmt.Fprintf(w, "    over %s%s\n", at, mark)
		}
	} else {
		fmt.Fprintln(w, "Keep it (nobody administers this host over a network that we could see):")
	}
	fmt.Fprintf(w, "    sudo sixfence harden confirm\n\nTake it back now:\n    sudo sixfence harden rollback\n")
	if len(p.Staged) > 0 {
		fmt.Fprintf(w, "\nconfirm writes: %s\n", strings.Join(p.Staged, ", "))
	}
	if len(p.Left) > 0 {
		fmt.Fprintln(w)
	}
	for _, l := range p.Left {
		fmt.Fprintf(w, "kept as it is: %s\n", report.Clean(l))
	}
}

func (a *app) confirmCommand() *cobra.Command {
	var f hardenFlags
	var by string
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Keep the change that waits, from a new connection",
		Long: "confirm keeps the change that waits: it puts its files in their places. It has to\n" +
			"come over a connection that did not exist when the undo was armed, once for each\n" +
			"family by which the host is administered: two confirms over two connections are\n" +
			"usual.",
		Example: "  sudo sixfence harden confirm",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("--format", f.format, "text", "json"); err != nil {
				return err
			}
			if by != "" {
				if err := oneOf("--by", by, "checks"); err != nil {
					return err
				}
			}
			out, err := a.engine(&f).Confirm(cmd.Context(), apply.ConfirmOptions{ByChecks: by == "checks"})
			return a.ending(f.format, out, err)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&by, "by", "", "take the answers of `WHAT` for the proof: checks, those of the intent")
	completeWords(cmd, "by", "checks")
	return cmd
}

func (a *app) rollbackCommand() *cobra.Command {
	var f hardenFlags
	var id string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Take the change that waits back, or the last one that was kept",
		Long: "rollback takes the change that waits back at once. When none waits, it applies the\n" +
			"inverse of the last change that was kept, as a change of its own, which has to be\n" +
			"confirmed. What others have changed since is kept, and named.",
		Example: "  sudo sixfence harden rollback\n  sudo sixfence harden rollback --change 5fca156ca6c0",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("--format", f.format, "text", "json"); err != nil {
				return err
			}
			e := a.engine(&f)
			if id == "" {
				out, err := e.Rollback(cmd.Context())
				if !errors.Is(err, apply.ErrNothing) {
					return a.ending(f.format, out, err)
				}
			}
			p, former, err := e.Former(id)
			if err != nil {
				return err
			}
			a.administeredNow(p)
			return a.perform(cmd.Context(), &f, p, apply.Options{Timeout: timeout, Who: who(), Former: former}, false, nil)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&id, "change", "", "take the kept change `ID` back (see history)")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "take the rollback of a kept change back after `TIME` without a confirm")
	return cmd
}

// undoCommand is what the armed undo, and the boot, call.
func (a *app) undoCommand(verb string) *cobra.Command {
	var f hardenFlags
	var id string
	cmd := &cobra.Command{
		Use: verb, Hidden: true, Args: noArgs, Short: "Finish a change; called by the system, not by people",
		RunE: func(cmd *cobra.Command, _ []string) error {
			e := a.engine(&f)
			switch verb {
			case apply.SuperviseVerb:
				return e.Supervise(cmd.Context(), id)
			case apply.ExpireVerb:
				return e.Expire(cmd.Context(), id)
			case apply.ListenVerb:
				return e.Listen(cmd.Context(), id)
			case apply.KeepVerb:
				return e.Keep(cmd.Context())
			}
			out, err := e.Resume()
			return a.ending("text", out, err)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&id, "id", "", "`ID` of the change")
	return cmd
}

// maxPlan bounds a plan file, in bytes.
const maxPlan = 64 << 20

// readPlan reads a plan that only root can have written: it will be performed as root.
func readPlan(name string) (*change.Plan, error) {
	bad := func(why, hint string) error { return &usageError{msg: "read plan " + name + ": " + why, hint: hint} }
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, bad(err.Error(), "make a plan with: sixfence harden plan -o FILE")
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, bad(err.Error(), "")
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, bad("it is not a regular file", "")
	case int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return nil, bad(fmt.Sprintf("it belongs to user %d, who could have written anything into it", st.Uid), "make the plan as root: sudo sixfence harden plan -o FILE")
	case st.Mode&0o022 != 0:
		return nil, bad(fmt.Sprintf("others may write to it (mode %04o)", st.Mode&0o7777), "chmod go-w "+name)
	}
	b, err := io.ReadAll(io.LimitReader(file, maxPlan+1))
	if err != nil {
		return nil, bad(err.Error(), "")
	}
	if len(b) > maxPlan {
		return nil, bad(fmt.Sprintf("larger than %d bytes", maxPlan), "")
	}
	var p change.Plan
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, bad(err.Error(), "make it again with: sixfence harden plan -o FILE")
	}
	if p.Sum() != p.ID {
		return nil, bad("it was altered after it was made: its id does not fit", "make it again with: sixfence harden plan -o FILE")
	}
	return &p, nil
}

// who tells who runs this, as far as sudo says.
func who() apply.Who {
	w := apply.Who{UID: os.Getuid(), Command: strings.Join(os.Args, " ")}
	for _, k := range []string{"SUDO_USER", "DOAS_USER", "LOGNAME"} {
		if v := os.Getenv(k); v != "" && w.User == "" {
			w.User = report.Clean(v)
		}
	}
	return w
}

// exitOf is the exit code of an error.
func exitOf(err error) int {
	var (
		back     *apply.RolledBackError
		refused  *apply.RefusedError
		stale    *apply.StaleError
		unproven *apply.UnprovenError
		rules    *rulesetError
		usage    *usageError
	)
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &back):
		return exitRolledBack
	case errors.As(err, &refused), errors.As(err, &stale), errors.As(err, &unproven):
		return exitRefused
	case errors.As(err, &rules):
		return exitUnknown
	}
	return exitUsage
}
