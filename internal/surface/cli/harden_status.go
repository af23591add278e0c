package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/engine/apply"
	"github.com/sixfence/sixfence/internal/surface/report"
)

func (a *app) statusCommand() *cobra.Command {
	var f hardenFlags
	var acknowledge bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what waits, what was taken back, and what has drifted",
		Long: "status compares the host with the changes that were kept, on the disk and in the\n" +
			"kernel, says what waits for a confirmation, and who undid what is no longer so: by\n" +
			"what systemd and its journal say, and by files that are read again. It exits 5 until\n" +
			"somebody has acknowledged a change that nobody confirmed in time, or a manager that\n" +
			"keeps undoing what is restored; 1 when something has drifted. Where the\n" +
			"intent says that somebody else brings the files (files.owner), it compares the host\n" +
			"with the intent instead.",
		Example: "  sudo sixfence harden status\n  sudo sixfence harden status --acknowledge",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := oneOf("--format", f.format, "text", "json"); err != nil {
				return err
			}
			e := a.engine(&f)
			s, err := e.Status()
			if err != nil {
				return err
			}
			if acknowledge {
				if err := e.Acknowledge(); err != nil {
					return err
				}
			}
			own, err := a.owned()
			if err != nil {
				return err
			}
			switch {
			case len(s.Alerts) > 0:
				a.code = exitUsage
			case len(s.Unseen)+len(s.Fights) > 0 && !acknowledge:
				a.code = exitRolledBack
			case len(s.Drift) > 0, own != nil && len(own.Differs) > 0:
				a.code = exitFindings
			}
			return a.document(f.format, struct {
				SchemaVersion string `json:"schemaVersion"`
				*apply.Status
				Owned *owned `json:"owned,omitempty"`
			}{hardenOutput, s, own}, func(w io.Writer) {
				if own == nil || s.Confirmed != nil || s.Pending != nil || len(s.Alerts)+len(s.Unseen) > 0 {
					statusText(w, s, acknowledge)
				}
				if own != nil {
					own.text(w)
				}
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&acknowledge, "acknowledge", false, "mark what was taken back as seen")
	return cmd
}

// keptText says what the disk and the kernel are since the last change was kept.
func keptText(w io.Writer, s *apply.Status) {
	if s.Pending == nil && len(s.Drift) == 0 {
		fmt.Fprintln(w, "The disk and the kernel are as it left them.")
	}
	for _, f := range s.Confirmed.Failed {
		fmt.Fprintf(w, "NOT DONE when it was kept: %s\n", report.Clean(f))
	}
}

func statusText(w io.Writer, s *apply.Status, acknowledged bool) {
	for _, x := range s.Alerts {
		fmt.Fprintf(w, "ALERT: %s\n", report.Clean(x))
	}
	for _, r := range s.Unseen {
		fmt.Fprintf(w, "TAKEN BACK: change %s, at %s: %s\n", r.Transaction, r.At.Local().Format(time.DateTime), report.Clean(r.Why))
		for _, l := range r.Lost {
			fmt.Fprintf(w, "  not made again: %s\n", report.Clean(l))
		}
		for _, c := range r.Conflicts {
			fmt.Fprintf(w, "  kept as it is: %s\n", report.Clean(c))
		}
	}
	for _, f := range s.Fights {
		fmt.Fprintf(w, "FIGHT: %s was restored %d times within a minute and undone again; since %s it is left alone.\n", report.Clean(f.ID), f.Times, f.Since.Local().Format(time.DateTime))
		for _, by := range f.By {
			fmt.Fprintf(w, "  undone by %s\n", report.Clean(by))
		}
	}
	if len(s.Unseen)+len(s.Fights) > 0 && !acknowledged {
		fmt.Fprintln(w, "  Seen it? sudo sixfence harden status --acknowledge")
	}
	if s.Pending != nil {
		pendingText(w, s.Pending, false)
	}
	switch {
	case s.Confirmed == nil && s.Pending == nil:
		fmt.Fprintln(w, "No change was kept on this host yet.")
	case s.Confirmed != nil && s.Confirmed.Former != "":
		fmt.Fprintf(w, "Change %s was taken back at %s, by change %s: what it had changed is as it was before it.\n", s.Confirmed.Former, s.Confirmed.At.Local().Format(time.DateTime), s.Confirmed.Transaction)
		keptText(w, s)
	case s.Confirmed != nil:
		fmt.Fprintf(w, "In force: change %s, kept at %s (intent %.12s).\n", s.Confirmed.Transaction, s.Confirmed.At.Local().Format(time.DateTime), s.Confirmed.IntentHash)
		keptText(w, s)
	}
	ephemeralText(w, s.Ephemeral)
	if r := s.Restored; r != nil {
		fmt.Fprintf(w, "Restored last at %s (%d times in 24 hours): %s\n  undone by %s\n", r.At.Local().Format(time.DateTime), s.RestoredToday, report.Clean(strings.Join(r.Objects, " ")), report.Clean(r.Why))
	}
	for i, d := range s.Drift {
		fmt.Fprintf(w, "DRIFT (%s) %s: is %s, was left %s\n", d.Where, report.Clean(d.ID), report.Clean(d.Now), report.Clean(d.Want))
		if i+1 < len(s.Drift) && slices.Equal(d.By, s.Drift[i+1].By) {
			continue // it stands below the last of them
		}
		for _, by := range d.By {
			if !strings.HasPrefix(by, "unknown") {
				by = "perhaps by " + by
			}
			fmt.Fprintf(w, "  %s\n", report.Clean(by))
		}
	}
}

func (a *app) historyCommand() *cobra.Command {
	var f hardenFlags
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show every change, and check that nothing was taken out",
		Long: "history shows who changed what and how it ended. Each record holds the hash of\n" +
			"the one before: what was altered or taken out shows, and history fails.",
		Example: "  sudo sixfence harden history",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := oneOf("--format", f.format, "text", "json"); err != nil {
				return err
			}
			rs, err := a.engine(&f).History()
			if err != nil && rs == nil {
				return err
			}
			if rs == nil {
				rs = []apply.Record{}
			}
			if e := a.document(f.format, struct {
				SchemaVersion string         `json:"schemaVersion"`
				Records       []apply.Record `json:"records"`
			}{hardenOutput, rs}, func(w io.Writer) {
				for _, r := range rs {
					by := r.Who.User
					if by == "" {
						by = fmt.Sprintf("uid %d", r.Who.UID)
					}
					of := ""
					switch {
					case r.Former != "":
						of = "takes back " + r.Former
					case r.IntentHash != "":
						of = fmt.Sprintf("intent %.12s", r.IntentHash)
					}
					fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s  %-19s %-12s %-10s %-23s  %s", r.At.Local().Format(time.DateTime), r.Event, r.Transaction, report.Clean(by), of, report.Clean(r.Why)), " "))
				}
				if len(rs) == 0 {
					fmt.Fprintln(w, "No change yet.")
				}
			}); e != nil {
				return e
			}
			return err
		},
	}
	f.add(cmd)
	return cmd
}
