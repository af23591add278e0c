package cli

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/engine/apply"
	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/logic/draft"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/surface/report"
)

type initOptions struct {
	draft            draft.Options
	snapshot, output string
	force, quiet     bool
}

func (a *app) initCommand() *cobra.Command {
	var o initOptions
	var names, list []string
	for _, p := range draft.Profiles() {
		names = append(names, p.Name)
		list = append(list, fmt.Sprintf("  %-16s %s", p.Name, p.What))
	}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write an intent from this host as it is, each line with its evidence",
		Long: "init writes " + config.IntentPath + " from the host as it is. Every line\n" +
			"says why it is there. Routers that only announced themselves are written as not\n" +
			"accepted, and plan refuses until you have looked at them. init changes nothing else,\n" +
			"and never replaces a file without --force. The profiles:\n\n" + strings.Join(list, "\n"),
		Example: "  sudo sixfence harden init\n" +
			"  sudo sixfence harden init --mirror-ipv4 -o -\n" +
			"  sixfence harden init --snapshot host.json --profile slaac-vm",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if o.draft.Profile != "" {
				if err := oneOf("--profile", o.draft.Profile, names...); err != nil {
					return err
				}
			}
			return a.initIntent(o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.draft.Profile, "profile", "", "what this host is, as `PROFILE`; seen by itself by default")
	f.BoolVar(&o.draft.MirrorIPv4, "mirror-ipv4", false, "let IPv6 in where IPv4 is let in today, and nowhere else")
	f.BoolVar(&o.draft.LearnOnce, "learn-once", false, "for images: believe the routers that are there when the plan is first applied, a rogue among them too")
	f.StringVar(&o.snapshot, "snapshot", "", "read this Snapshot `FILE` (- is standard input) instead of the host, and print")
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` (mode 0600; - is standard output)")
	f.BoolVar(&o.force, "force", false, "replace a file that is there")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no notes on standard error")
	completeWords(cmd, "profile", names...)
	return cmd
}

func (a *app) initIntent(o initOptions) error {
	if o.quiet {
		a.logger(slog.LevelError)
	}
	path := o.output
	if path == "" && o.snapshot == "" {
		path = config.IntentPath
	}
	if path != "" && path != "-" {
		if _, err := os.Lstat(path); err == nil && !o.force {
			return &usageError{msg: path + " is there already", hint: "print a new one with: sixfence harden init -o -   (--force replaces the file)"}
		}
	}
	if path == config.IntentPath {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return &usageError{msg: "write intent", cause: err, hint: "run it as root, or print it: sixfence harden init -o -"}
		}
	}
	if o.snapshot == "" {
		o.draft.Session = session()
	}
	out, err := a.open(path)
	if err != nil {
		return err
	}
	defer out.abort()
	snap, err := a.facts(source{snapshot: o.snapshot, elements: true}, out.file, o.quiet)
	if err != nil {
		return err
	}
	const hint = "run it as root, or take a snapshot of a live host"
	n := snap.Home()
	if n == nil {
		return &usageError{msg: "write intent: the network namespace could not be read", hint: hint}
	}
	d, err := draft.New(snap, n, o.draft)
	if err != nil {
		return &usageError{msg: "write intent", cause: err, hint: hint}
	}
	text, err := draftText(d)
	if err != nil {
		return err
	}
	if err := out.write(func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
		return err
	}
	if o.quiet {
		return nil
	}
	if out.file != nil {
		fmt.Fprintf(a.stderr, "sixfence: wrote %s; read it, then: sudo sixfence harden plan\n", path)
	}
	for _, x := range d.Open {
		fmt.Fprintln(a.stderr, "to do: "+report.Clean(x))
	}
	return nil
}

// draftText writes a draft and holds it against the loader.
func draftText(d *draft.Draft) ([]byte, error) {
	notes := config.Notes{}
	for p, above := range d.Above {
		notes[p] = config.Note{Above: above, Beside: d.Beside[p]}
	}
	for p, b := range d.Beside {
		if _, there := notes[p]; !there {
			notes[p] = config.Note{Beside: b}
		}
	}
	text := config.WriteIntent(d.Intent, notes)
	known := func(id string) bool { _, ok := check.Find(id); return ok }
	if _, err := config.LoadIntent([]config.IntentFile{{Path: "the drafted intent", Text: text}}, known); err != nil {
		return nil, fmt.Errorf("this is a fault of sixfence, please report it: %w", err)
	}
	return text, nil
}

// session is this host's end of the connection that the caller administers it by.
func session() netip.AddrPort {
	mine, err := apply.Ancestors(0)
	socks, err2 := apply.Sockets()
	if err == nil && err2 == nil {
		for _, s := range socks {
			if mine[s.Inode] && !s.Remote.Addr().Unmap().IsLoopback() {
				return unmapped(s.Local)
			}
		}
	}
	// client address, client port, server address, server port: sshd(8)
	if w := strings.Fields(os.Getenv("SSH_CONNECTION")); len(w) == 4 {
		ip, err := netip.ParseAddr(w[2])
		port, err2 := strconv.ParseUint(w[3], 10, 16)
		if err == nil && err2 == nil {
			return netip.AddrPortFrom(ip.Unmap().WithZone(""), uint16(port))
		}
	}
	return netip.AddrPort{}
}
