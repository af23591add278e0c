package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/engine/apply"
	"github.com/sixfence/sixfence/internal/host/scratch"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// hardenPlanCommands are the verbs that change nothing.
func (a *app) hardenPlanCommands() []*cobra.Command {
	return []*cobra.Command{a.initCommand(), a.planCommand(), a.exportCommand()}
}

type planOptions struct {
	intent         intentSource
	snapshot       string
	format, output string
	verbose, quiet bool
	noColor        bool
}

func (a *app) planCommand() *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what it takes to make this host what its intent says",
		Long: "plan compares this host with its intent and says what would change, why, who reaches\n" +
			"what before and after, and what would break. It changes nothing. It refuses (exit 4,\n" +
			"with the way out) what would lock you out. What it plans is fired at, by this\n" +
			"kernel, in namespaces of its own: what does not do what the intent says is refused\n" +
			"with the packet that shows it; where not all could be tried the exit is 3, and\n" +
			"apply wants --unproven. -o FILE keeps the plan for\n" +
			"`sixfence harden apply FILE`, which performs exactly that, or nothing.",
		Example: "  sudo sixfence harden plan\n" +
			"  sudo sixfence harden plan -o plan.json\n" +
			"  sixfence harden plan --intent site.yaml --snapshot host.json",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			code, err := a.plan(o)
			a.code = code
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.intent.file, "intent", "", "the intent `FILE`, with the drop-ins beside it (default "+config.IntentPath+")")
	f.StringVar(&o.snapshot, "snapshot", "", "plan for the host of this Snapshot `FILE` instead; its files are not known then")
	f.StringVar(&o.format, "format", "text", "output `FORMAT`: text or json")
	f.StringVarP(&o.output, "output", "o", "", "keep the plan as JSON in `FILE` (mode 0600) as well")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show every file and the rules whole")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the verdict only, and no notes")
	f.BoolVar(&o.noColor, "no-color", false, "accepted like everywhere; there is no colour")
	completeWords(cmd, "format", "text", "json")
	return cmd
}

func (a *app) plan(o planOptions) (int, error) {
	if o.quiet {
		a.logger(slog.LevelError)
	}
	if err := oneOf("--format", o.format, "text", "json"); err != nil {
		return exitUsage, err
	}
	o.intent.trusted = o.snapshot == "" && os.Geteuid() == 0
	l, notes, err := a.intent(o.intent)
	if err != nil {
		return exitUsage, err
	}
	var file *sink
	if o.output != "" && o.output != "-" {
		if file, err = a.open(o.output); err != nil {
			return exitUsage, err
		}
		defer file.abort()
	}
	p, sel, err := a.makePlan(l.Intent, o, file)
	if err != nil {
		return exitUsage, err
	}
	if !o.quiet {
		for _, w := range append(problems(l.Warnings, notes), problems(nil, sel)...) {
			writeProblem(a.stderr, "warning", w)
		}
	}
	if file != nil {
		if err := file.write(func(w io.Writer) error { return indented(w, p) }); err != nil {
			return exitUsage, err
		}
	}
	if o.format == "json" {
		err = indented(a.stdout, p)
	} else {
		t := planText{Options: o, width: 80}
		if w, _, tty := terminal(a.stdout); tty {
			t.width = max(60, min(w, 120))
		}
		err = t.write(a.stdout, &p)
	}
	if err != nil {
		return exitUsage, outputError(err)
	}
	if len(p.Refusals) > 0 {
		return exitRefused, nil
	}
	if p.Proof != nil && p.Proof.Status != change.Proven {
		return exitUnknown, nil // apply would refuse it
	}
	return exitClean, nil
}

// makePlan reads the host, or a Snapshot, and plans.
func (a *app) makePlan(in intent.Intent, o planOptions, out *sink) (change.Plan, []string, error) {
	opt := plan.Options{}
	session, err := scratch.Start()
	if err != nil {
		a.log.Info("the planned rules are not proven", "cause", err)
	} else {
		defer session.Close()
	}
	pr := a.prover()
	defer pr.Close()
	pr.Elsewhere = o.snapshot != ""
	if o.intent.file != "-" {
		if opt.Learned, err = filepath.Abs(o.intent.dropIns()); err != nil {
			return change.Plan{}, nil, fmt.Errorf("find the directory of the intent: %w", err)
		}
	}
	if o.snapshot == "" {
		opt.Administered = a.administered(&in)
		if in.Drift == intent.DriftRestore {
			if opt.Program, err = trustedSelf(); err != nil {
				return change.Plan{}, nil, err
			}
		}
		opt.NoSystemd = !apply.SystemdInstalled()
		opt.Read = apply.New(apply.StateDir, nil).Host.Image
		opt.Table, err = apply.TableText(context.Background(), plan.Table)
		if err != nil {
			a.log.Info("our rules of now are not known as text", "cause", err)
		}
	}
	var o2 *store.Output
	if out != nil {
		o2 = out.file
	}
	// The files that the plan compares with are read once it is known which they are.
	snap, err := a.facts(source{snapshot: o.snapshot, elements: true, readable: "/"}, o2, o.quiet)
	if err != nil {
		return change.Plan{}, nil, err
	}
	n := snap.Home()
	if session != nil {
		opt.Decode = func(script string) (*rs.Ruleset, error) { return decodeScript(session, script, n) }
	}
	p := plan.New(in, snap, opt)
	if o.snapshot == "" && scratch.FindNFT() == "" && slices.ContainsFunc(p.Steps, func(s change.Step) bool { return s.Kind == change.Table && !s.After.Absent }) {
		p.Refusals = append(p.Refusals, change.Refusal{ID: "no-nft", Title: "The planned rules cannot be loaded: nft is not installed", WayOut: "install the package nftables"})
		p.ID = p.Sum()
	}
	a.proven(context.Background(), pr, &p, snap, o.quiet)
	return p, selectionNotes(&in, n), nil
}

// trustedSelf is the path of this program, if only root can put another one there: a
// service will run it.
func trustedSelf() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	for p := self; ; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		if err != nil {
			return "", fmt.Errorf("find this program: %w", err)
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok || sys.Uid != 0 || st.Mode().Perm()&0o022 != 0 && st.Mode()&os.ModeSticky == 0 {
			return "", &usageError{msg: "drift: restore makes a service of root's of " + self + ", and others than root may change " + p, hint: "install it: sudo install -m 755 " + self + " /usr/local/bin/"}
		}
		if p == "/" {
			return self, nil
		}
	}
}

// decodeScript loads a script where it harms nobody, and reads what the kernel made of it.
func decodeScript(s *scratch.Session, script string, n *fact.Namespace) (*rs.Ruleset, error) {
	opt := scratch.Options{Scripts: []scratch.Script{{Name: "the planned rules", Text: []byte(script)}}}
	if n != nil {
		links, _ := n.Links.Get()
		for _, l := range links {
			opt.Interfaces = append(opt.Interfaces, scratch.Interface{Name: l.Name, Index: uint32(l.Index)})
		}
	}
	l, err := s.Load(context.Background(), opt)
	if err != nil {
		return nil, err
	}
	tables, err := pfdecode.FromFact(l.NFTables, nativeOrder())
	if err != nil {
		return nil, err
	}
	return &rs.Ruleset{Tables: tables, Interfaces: l.Interfaces}, nil
}

// administered are the connections that must survive: the one this process was started
// over, and where none can be told (a console, tmux, a job) all that are open to the
// services that administer.
func (a *app) administered(in *intent.Intent) []change.Way {
	ports := map[uint16]bool{}
	for _, s := range in.Services {
		if s.Administers != nil && !*s.Administers || s.Administers == nil && s.Name != "ssh" {
			continue
		}
		for _, text := range s.Ports {
			if p, err := intent.ParsePort(text); err == nil && p.Proto == 6 && p.From == p.To {
				ports[p.From] = true
			}
		}
	}
	session, open := a.ways(ports)
	if len(session) == 0 {
		return open
	}
	return session
}

// ways are the connections of others to this host: those this process was started over,
// and those that are open to one of the ports.
func (a *app) ways(ports map[uint16]bool) (session, open []change.Way) {
	socks, err := apply.Sockets()
	if err != nil {
		a.log.Warn("open connections are not known", "cause", err)
		return nil, nil
	}
	incoming, err := apply.Incoming()
	if err != nil {
		a.log.Warn("open ports are not known", "cause", err)
		return nil, nil
	}
	mine, err := apply.Ancestors(0)
	if err != nil {
		a.log.Info("the connection of this session is not known", "cause", err)
	}
	for _, s := range socks {
		if s.Remote.Addr().Unmap().IsLoopback() || s.Remote.Addr() == s.Local.Addr() || !incoming(s) {
			continue
		}
		w := change.Way{Family: "ipv6", Local: unmapped(s.Local), Remote: unmapped(s.Remote)}
		if w.Remote.Addr().Is4() {
			w.Family = "ipv4"
		}
		switch {
		case mine[s.Inode]:
			session = append(session, w)
		case ports[s.Local.Port()]:
			open = append(open, w)
		}
	}
	return sortedWays(session), sortedWays(open)
}

func sortedWays(ws []change.Way) []change.Way {
	slices.SortFunc(ws, func(a, b change.Way) int {
		if c := a.Local.Compare(b.Local); c != 0 {
			return c
		}
		return a.Remote.Compare(b.Remote)
	})
	return slices.Compact(ws)
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// cleaned is a text of a host, safe to show on one line.
func cleaned(s string) string { return report.Clean(s) }
