package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/surface/config"
)

func (a *app) exportCommand() *cobra.Command {
	var (
		src   intentSource
		dir   string
		owner string
		force bool
		quiet bool
	)
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write an intent as plain files, for hosts that do not run sixfence",
		Long: "export writes the files that apply would install (nftables.conf, sysctl.conf,\n" +
			"modprobe.conf …), and the same as cloud-init and as Ansible tasks. Each says at its\n" +
			"end what is lost against apply.\n\n" +
			"With --owner the files belong to configuration management from then on: the\n" +
			"intent is among them, with files.owner. On a host that has it plan and status\n" +
			"compare only, and apply refuses and says whose the files are.",
		Example: "  sixfence harden export --intent site.yaml --out files/\n  sixfence harden export --intent site.yaml --owner ansible --out files/",
		Args:    noArgs,
		RunE:    func(*cobra.Command, []string) error { return a.export(src, dir, owner, force, quiet) },
	}
	src.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&dir, "out", "", "write into the directory `DIR`, which is made when it is not there")
	f.StringVar(&owner, "owner", "", "hand the files to `WHOM`: configuration management, in your own words; sixfence then only checks")
	f.BoolVar(&force, "force", false, "replace files that are there")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not list what was written")
	return cmd
}

func (a *app) export(src intentSource, dir, owner string, force, quiet bool) error {
	if dir == "" {
		return &usageError{msg: "export needs --out DIR", hint: "sixfence harden export --intent site.yaml --out files/"}
	}
	l, notes, err := a.intent(src)
	if err != nil {
		return err
	}
	more, err := handOver(l, owner)
	if err != nil {
		return err
	}
	files, err := plan.Export(l.Intent, more...)
	if err != nil {
		return exportErrors(err, l)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return &usageError{msg: "export", cause: err, hint: "name a directory you may write to"}
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.Name)); err == nil && !force {
			return &usageError{msg: filepath.Join(dir, f.Name) + " is there already", hint: "choose another directory, or add --force"}
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		out, err := store.Create(path)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, f.Text); err != nil {
			out.Abort()
			return outputError(err)
		}
		if err := out.Commit(); err != nil {
			return outputError(err)
		}
		if err := os.Chmod(path, os.FileMode(f.Mode)); err != nil {
			return outputError(err)
		}
		if quiet {
			continue
		}
		at := "for " + f.Path
		if f.Path == "" {
			at = "the files above, for another tool"
		}
		fmt.Fprintf(a.stdout, "%-28s %s\n", f.Name, at)
	}
	if !quiet {
		for _, w := range problems(l.Warnings, notes) {
			writeProblem(a.stderr, "warning", w)
		}
	}
	return nil
}

// handOver is the intent itself as a file, where somebody else is to bring the files:
// with it a host can tell what it is meant to be, and whose its files are.
func handOver(l *config.LoadedIntent, owner string) ([]plan.ExportFile, error) {
	if owner != "" {
		l.Intent.Files.Owner = owner
	}
	if l.Intent.Files.Owner == "" {
		return nil, nil
	}
	text := config.WriteIntent(l.Intent, config.Notes{"": {Above: []string{"Written by sixfence harden export; the files beside it come from it."}}})
	back, err := config.LoadIntent([]config.IntentFile{{Path: "--owner", Text: text}}, nil)
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("--owner %q cannot stand in an intent", owner), cause: err, hint: "a few words: --owner \"ansible, repository infra\""}
	}
	l.Intent, l.Hash = back.Intent, back.Hash
	return []plan.ExportFile{{Name: filepath.Base(config.IntentPath), Path: config.IntentPath, Text: string(text), Mode: 0o600, Loses: []string{"nothing takes effect by this file alone: sixfence harden status compares the host with it"}}}, nil
}

// exportErrors gives what cannot be carried by files the lines of the intent.
func exportErrors(err error, l *config.LoadedIntent) error {
	var all []error
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		all = many.Unwrap()
	} else {
		all = []error{err}
	}
	var out config.Errors
	for _, e := range all {
		var p *plan.Problem
		if !errors.As(e, &p) {
			return err
		}
		c := &config.Error{Why: p.Path + ": " + p.Why, Hint: p.Hint, File: l.Files[0]}
		if o, ok := l.Origins[p.Path]; ok {
			c.File, c.Line = o.File, o.Line
		}
		out = append(out, c)
	}
	return out
}
