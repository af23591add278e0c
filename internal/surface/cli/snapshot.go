package cli

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/host/store"
)

type snapshotOptions struct {
	output, root, format string
	quiet, noColor       bool
	expand               bool
}

func (a *app) snapshotCommand() *cobra.Command {
	var o snapshotOptions
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Write what an audit would read, to audit it elsewhere",
		Long: "snapshot writes the facts of this host as JSON. `sixfence audit --snapshot FILE`\n" +
			"gives the same findings from it on any machine. The file holds addresses, routes,\n" +
			"listeners and program paths, and no secrets; it is readable by you only.",
		Example: "  sudo sixfence snapshot -o host.json\n  ssh host sudo sixfence snapshot | sixfence audit --snapshot -",
		Args:    noArgs,
		RunE:    func(*cobra.Command, []string) error { return a.snapshot(o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` (mode 0600) instead of standard output")
	f.StringVar(&o.root, "root", "", "read the directory tree `DIR` (an image, a chroot) instead of the host")
	f.StringVar(&o.format, "format", "json", "output `FORMAT`: json")
	f.BoolVar(&o.expand, "expand-sets", false, expandHelp)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no notes on standard error")
	f.BoolVar(&o.noColor, "no-color", false, "accepted like everywhere; there is no colour")
	completeWords(cmd, "format", "json")
	return cmd
}

func (a *app) snapshot(o snapshotOptions) error {
	if o.quiet {
		a.logger(slog.LevelError)
	}
	if err := oneOf("--format", o.format, "json"); err != nil {
		return err
	}
	if _, _, tty := terminal(a.stdout); tty && (o.output == "" || o.output == "-") {
		return &usageError{msg: "a snapshot is not for reading on a terminal", hint: "write it to a file: sixfence snapshot -o host.json"}
	}
	out, err := a.open(o.output)
	if err != nil {
		return err
	}
	snap, err := a.facts(source{root: o.root, elements: true, expand: o.expand}, out.file, o.quiet)
	if err != nil {
		out.abort()
		return err
	}
	if err := out.write(func(w io.Writer) error { return store.WriteSnapshot(w, snap) }); err != nil {
		return err
	}
	if _, _, tty := terminal(a.stderr); tty && !o.quiet && out.file != nil {
		fmt.Fprintf(a.stderr, "sixfence: wrote %s; read it with: sixfence audit --snapshot %s\n", o.output, o.output)
	}
	return nil
}
