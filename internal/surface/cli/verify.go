package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/engine/vantage"
	"github.com/sixfence/sixfence/internal/engine/verify"
	"github.com/sixfence/sixfence/internal/host/names"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/surface/report"
)

type verifyOptions struct {
	ports, variants                             []string
	format, output, failOn                      string
	expect, intent, snapshot, netns, previous   string
	state, program                              string
	via                                         []string
	rate                                        int
	patience                                    time.Duration
	path                                        bool
	soak                                        time.Duration
	guards                                      bool
	connect, together, apart, quiet, noColor, v bool
	allowGaps                                   []string
	chains                                      []probe.Variant // of variants
	hops                                        []string
	trace                                       *probe.Spec // of hops
}

// maxRate is more than one core sends.
const maxRate = 2_000_000

func (a *app) verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify TARGET…",
		Short: "Ask a host from outside over both families, and compare",
		Long: "verify sends probes to every address of the targets and says for each port\n" +
			"whether it is open, closed, rejected, filtered or unreachable, IPv4 beside IPv6.\n" +
			"With --expect, --intent or --previous it compares that with what is wanted, with\n" +
			"--snapshot with what the rules of the target say, and with both it names the one\n" +
			"that is wrong. Nothing is sent to an address that was not named. As root it\n" +
			"sends bare SYNs, otherwise it connects.\n\n" +
			"A TARGET is a name (all its A and AAAA are asked) or an address, fe80::1%eth0\n" +
			"too. At most 50,000 packets a second are sent on a link and 5,000 through a\n" +
			"router; --rate says otherwise. Ctrl-C ends the run and prints what is known.\n\n" +
			"With --via ssh://host another host looks: this program is copied there, runs,\n" +
			"and is gone; nothing is kept there. It is told addresses and ports, not what is\n" +
			"expected of them, and its answer is shown as its claim. Names are resolved here.",
		Example: "  sudo sixfence verify www.example.org\n" +
			"  sudo sixfence verify 192.0.2.2 2001:db8::2 --ports tcp/1-65535\n" +
			"  sudo sixfence verify web1 --intent web1.yaml --snapshot web1.json\n" +
			"  sixfence verify web1 --expect web1-expect.yaml --format junit -o verify.xml\n" +
			"  sudo sixfence verify 2001:db8::2 --soak\n" +
			"  sudo sixfence verify --guards\n" +
			"  sudo sixfence verify web1 --via here --via ssh://admin@probe.example.net",
		Args: func(_ *cobra.Command, args []string) error {
			if err := soakTime(args); err != nil {
				return err
			}
			if o.guards {
				return noTarget(args)
			}
			if len(args) == 0 {
				return &usageError{msg: "verify needs a target", hint: "a name or an address: sixfence verify www.example.org"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.guards {
				code, err := a.verifyGuards(o, cmd.Flags())
				a.code = code
				return err
			}
			code, err := a.verify(o, args)
			a.code = code
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.ports, "ports", nil, "ask these `PORTS`: tcp/22, tcp/1-1000, udp/53, echo, icmp/13 (comma-separated); by default tcp/1-1024 and common services above, the UDP services that answer strangers, echo, and what the expectation names")
	f.StringSliceVar(&o.variants, "variants", nil, "also send probes in these `WRAPPINGS` (root), and compare: hop, dst, frag, frag-atomic (every port), others that the manual lists (ports that answer, some that do not), or all")
	f.StringVar(&o.expect, "expect", "", "compare with this YAML `FILE`: expect: {tcp/22: open, \"*\": filtered}")
	f.StringVar(&o.intent, "intent", "", "compare with this intent `FILE` of the target")
	f.StringVar(&o.previous, "previous", "", "compare with the JSON `FILE` of an earlier run")
	f.StringVar(&o.snapshot, "snapshot", "", "compare with what the rules of the target say: a Snapshot `FILE`, or ssh://[user@]host[:port] to fetch one")
	f.StringVar(&o.netns, "netns", "", "the network namespace `NAME` of the Snapshot; by default the target's own")
	f.IntVar(&o.rate, "rate", 0, "send at most `N` packets a second, to all addresses together; by default 50,000 on a link and 5,000 through a router")
	f.DurationVar(&o.patience, "patience", 2*time.Minute, "how long to ask one by one where a target rations its refusals, as `TIME` an address and protocol")
	f.StringArrayVar(&o.via, "via", nil, "look from another host, `ssh://[user@]host[:port]`, instead of from here; may be repeated, and \"here\" is this host")
	f.StringVar(&o.program, "via-binary", "", "run this sixfence `FILE` there, where the architecture is another one")
	f.StringVar(&o.state, "state", "", "keep what is known in `FILE`, and go on from there when it exists")
	f.StringSliceVar(&o.hops, "hops", nil, "trace the way to these `PORTS` (root), --hops=tcp/22,tcp/443, or without a value to one that answers and one that does not: where does it end?")
	f.Lookup("hops").NoOptDefVal = hopsAuto
	f.BoolVar(&o.path, "path", false, "also test path-MTU discovery (root): large echoes, and a Packet Too Big that the target has to heed")
	soakFlag(f, &o)
	guardsFlag(f, &o)
	f.BoolVar(&o.connect, "connect", false, "connect like an ordinary client, as root too")
	f.BoolVar(&o.together, "together", false, "all targets are one host: compare their families")
	f.BoolVar(&o.apart, "apart", false, "each target is a host of its own, also one IPv4 and one IPv6 address")
	f.StringVar(&o.failOn, "fail-on", string(finding.High), "exit 1 for findings of this `SEVERITY` or worse: critical, high, medium, low, info or never")
	f.StringSliceVar(&o.allowGaps, "allow-gaps", nil, "accept gaps with these `REASONS` (comma-separated): permission, unsupported, truncated, not-collected, parse")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the verdict only, and no notes")
	f.BoolVarP(&o.v, "verbose", "v", false, "say what is done")
	outputFlags(cmd, &o.format, &o.output, &o.noColor)
	f.Lookup("format").Usage = "output `FORMAT`: text, json, sarif or junit"
	completeWords(cmd, "variants", append([]string{"all"}, chainWords()...)...)
	completeWords(cmd, "fail-on", "critical", "high", "medium", "low", "info", never)
	return cmd
}

// check validates the flags.
func (o *verifyOptions) check() (failOn finding.Severity, spec *probe.Spec, variants []probe.Variant, err error) {
	fail := func(e error) (finding.Severity, *probe.Spec, []probe.Variant, error) { return "", nil, nil, e }
	if err := oneOf("--format", o.format, "text", "json", "sarif", "junit"); err != nil {
		return fail(err)
	}
	for _, g := range o.allowGaps {
		if err := oneOf("--allow-gaps", g, reasons()...); err != nil {
			return fail(err)
		}
	}
	given := 0
	for _, s := range []string{o.expect, o.intent, o.previous} {
		if s != "" {
			given++
		}
	}
	switch {
	case given > 1:
		return fail(&usageError{msg: "--expect, --intent and --previous exclude each other", hint: "say once what is expected; --snapshot goes with each"})
	case o.netns != "" && o.snapshot == "":
		return fail(&usageError{msg: "--netns needs --snapshot", hint: "it names a namespace of the Snapshot"})
	case o.together && o.apart:
		return fail(&usageError{msg: "--together and --apart exclude each other", hint: "choose one"})
	case o.program != "" && len(o.via) == 0 && !vantage.Names(o.snapshot):
		return fail(&usageError{msg: "--via-binary needs --via, or a --snapshot of ssh://…", hint: "it is the program that runs there"})
	case o.path && o.connect:
		return fail(&usageError{msg: "--path needs bare packets, and --connect forbids them", hint: "drop one of the two"})
	case o.soak < 0 || o.soak > maxSoak:
		return fail(&usageError{msg: fmt.Sprintf("--soak %s is not between nothing and %s", o.soak, maxSoak), hint: "--soak alone takes " + probe.SoakTime.String() + ", longer than a membership interval by default"})
	case o.soak > 0 && o.connect:
		return fail(&usageError{msg: "--soak needs bare packets, and --connect forbids them", hint: "drop one of the two"})
	case o.rate < 0 || o.rate > maxRate:
		return fail(&usageError{msg: fmt.Sprintf("--rate %d is not between 1 and %d", o.rate, maxRate), hint: "leave it out for the polite default"})
	case o.patience < 0:
		return fail(&usageError{msg: "--patience is less than nothing", hint: "as in --patience 5m"})
	}
	if o.patience == 0 {
		o.patience = time.Nanosecond
	}
	if variants, o.chains, err = o.wrappings(); err != nil {
		return fail(err)
	}
	if o.trace, err = o.hopPorts(); err != nil {
		return fail(err)
	}
	if o.connect && o.trace != nil {
		return fail(&usageError{msg: "--hops needs bare packets, and --connect forbids them", hint: "drop one of the two"})
	}
	if o.connect && len(o.chains) > 0 {
		return fail(&usageError{msg: "--variants needs bare packets, and --connect forbids them", hint: "drop one of the two"})
	}
	spec = &probe.Spec{}
	for _, w := range o.ports {
		if err := spec.Parse(strings.TrimSpace(w)); err != nil {
			var e *probe.SpecError
			if errors.As(err, &e) {
				return fail(&usageError{msg: "--ports " + e.Why, hint: e.Hint})
			}
			return fail(err)
		}
	}
	if o.failOn == never {
		return "", spec, variants, nil
	}
	if failOn, err = finding.ParseSeverity(o.failOn); err != nil {
		return fail(&usageError{msg: "--fail-on: " + err.Error(), hint: "use one of: critical, high, medium, low, info, never"})
	}
	return failOn, spec, variants, nil
}

// usual is what is asked when nobody says: the ports of services that are found open by
// surprise, and the UDP services that answer strangers.
const usual = "tcp/1-1024 tcp/1433 tcp/1521 tcp/1883 tcp/2049 tcp/2375-2380 tcp/3000 tcp/3306 tcp/3389 tcp/4443 tcp/5000 tcp/5432 tcp/5601 tcp/5672 " +
	"tcp/5900 tcp/5984 tcp/6379 tcp/6443 tcp/7000-7001 tcp/8000-8010 tcp/8080-8090 tcp/8443 tcp/8500 tcp/8888 tcp/9000 tcp/9042 tcp/9090-9100 tcp/9200 tcp/9300 " +
	"tcp/9443 tcp/10250-10259 tcp/11211 tcp/15672 tcp/27017 udp/53 udp/69 udp/111 udp/123 udp/137 udp/161 udp/443 udp/500 udp/623 udp/1900 udp/3478 " +
	"udp/5060 udp/5353 udp/5683 udp/11211 udp/51820 echo"

func (a *app) verify(o verifyOptions, args []string) (int, error) {
	if o.quiet {
		a.logger(slog.LevelError)
	} else if o.v {
		a.logger(slog.LevelInfo)
	}
	failOn, spec, variants, err := o.check()
	if err != nil {
		return exitUsage, err
	}
	places, here, err := viaPlaces(o.via)
	if err != nil {
		return exitUsage, err
	}
	var host *vantage.Place
	file := o.snapshot
	if vantage.Names(file) {
		p, err := vantage.ParsePlace(file)
		if err != nil {
			return exitUsage, err
		}
		host, file = &p, ""
	}
	files := inputs{}
	defer files.close()
	for flag, path := range map[string]string{"--expect": o.expect, "--previous": o.previous, "--snapshot": file} {
		if err := files.open(flag, path); err != nil {
			return exitUsage, err
		}
	}
	if o.state != "" {
		if err := syscall.Access(filepath.Dir(o.state), 2); err != nil { // W_OK: not only after an hour
			return exitUsage, &usageError{msg: "keep the state in " + o.state, cause: err, hint: "name a file in a directory that exists and that you may write to"}
		}
	}
	if _, err := os.Stat(o.state); err == nil {
		if err := files.open("--state", o.state); err != nil {
			return exitUsage, err
		}
	}
	var source expect.Source
	if o.intent != "" { // its drop-ins lie beside it: read before the files are fenced off
		l, notes, err := a.intent(intentSource{file: o.intent})
		if err != nil {
			return exitUsage, err
		}
		for _, n := range notes {
			a.log.Info(n)
		}
		in := expect.Intent{Intent: l.Intent}
		if len(o.ports) == 0 {
			in.Ports(spec)
		}
		source = in
	}
	ends := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // by nohup
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	context.AfterFunc(ctx, stop) // who asks again does not want to wait
	targets, err := a.targets(ctx, args)
	if err != nil {
		return exitUsage, err
	}
	system := names.ReadSystem()
	together := o.together || !o.apart && pair(targets)
	// An interrupted run still has something to write, so its output is not thrown away as
	// that of others is.
	out := &sink{w: a.stdout, stop: func() {}}
	if o.output != "" && o.output != "-" {
		f, err := store.Create(o.output)
		if err != nil {
			return exitUsage, err
		}
		out.w, out.file = f, f
	}
	progress := a.verifyProgress(o.quiet)
	keep := newKeeper(o.state, a.log)
	var run *verify.Run
	if here {
		vo := verify.Options{
			Targets: targets, Spec: spec, Variants: variants, Connect: o.connect, Together: together, Rate: o.rate, Patience: o.patience, Path: o.path, Chains: o.chains, Hops: o.trace,
			Soak: o.soak, Soaking: a.soakProgress(o.quiet), Progress: progress,
		}
		if keep != nil {
			vo.Look, vo.Soaked = keep.look, keep.soaked
		}
		if run, err = verify.Open(vo); err != nil {
			out.abort()
			return exitUsage, &usageError{msg: "verify", cause: err, hint: verifyHint(err, "check the address, and the zone of a link-local one")}
		}
		defer run.Close()
	}
	far, err := openVia(places, host, o.program)
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	defer far.close()
	seal := sealing{output: out.file, network: here && !run.Raw() || len(places) > 0 || host != nil || len(namesOf(targets)) > 0}
	if o.state != "" {
		seal.writable = filepath.Dir(o.state)
	}
	a.seal(seal)
	j, err := a.judge(ctx, o, files, far.host, run, keep, source, spec)
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	j.Together = together
	if len(o.ports) == 0 && o.previous == "" {
		for w := range strings.FieldsSeq(usual) {
			if err := spec.Parse(w); err != nil {
				return exitUsage, err
			}
		}
	}
	if here && !run.Raw() && !o.connect {
		a.log.Info("without CAP_NET_RAW: connecting instead of sending bare packets")
	}
	if o.trace != nil { // what is traced is asked, too
		for _, p := range []string{"tcp", "udp", "icmp", "icmpv6"} {
			for port := range o.trace.Of(p).All {
				spec.Of(p).Add(port)
			}
		}
	}
	begin := time.Now()
	// What others see is asked for while this host looks.
	said := progress
	if here {
		said = nil
	}
	named := verify.LookUp(ctx, system, namesOf(targets))
	answers := far.ask(ctx, targets, o.errand(targets, spec, variants, together), keep, said)
	if here {
		if err := run.Do(ctx); err != nil {
			out.abort()
			return exitUsage, &usageError{msg: "verify", cause: err, hint: verifyHint(err, "sixfence verify --connect needs no privilege")}
		}
		j.Addresses = run.Found()
	}
	j.Names = a.names(ctx, named(), targets, j.Addresses)
	lost := a.claims(answers(), j)
	a.clearProgress()
	if len(j.Addresses) == 0 {
		out.abort()
		return exitUsage, errors.Join(lost...)
	}
	for _, err := range lost {
		a.complain(err)
	}
	fs, gaps := j.Findings()
	rep := finding.Report{
		SchemaVersion: finding.SchemaVersion, Tool: a.build.Tool(), At: begin.UTC(), Findings: fs, Gaps: gaps,
		Host: finding.Host{Name: strings.Join(args, " "), Mode: "live"},
	}
	if err := out.write(func(w io.Writer) error {
		switch o.format {
		case "json":
			return writeVerifyJSON(w, j, rep, time.Since(begin), ctx.Err() == nil && len(j.Lost) == 0)
		case "sarif":
			return report.SARIF(w, rep, expect.Controls())
		case "junit":
			return report.JUnit(w, rep, "sixfence verify", failOn, passed(j))
		}
		return a.verifyText(w, j, rep, o, failOn, together && !o.together)
	}); err != nil {
		return exitUsage, err
	}
	return exitCode(rep, failOn, o.allowGaps), nil
}

// verifyHint is the remedy for what the kernel refused, where it is known.
func verifyHint(err error, other string) string {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return "allow more open files (ulimit -n 4096), or ask fewer addresses at once: each takes up to 70 of them"
	}
	return other
}

// judge reads what is expected. The process is sealed.
func (a *app) judge(ctx context.Context, o verifyOptions, files inputs, host *vantage.Session, run *verify.Run, keep *keeper, source expect.Source, spec *probe.Spec) (*expect.Judge, error) {
	j := &expect.Judge{Expected: source}
	if files["--expect"] != nil {
		b, err := files.read("--expect", config.MaxIntentFile)
		if err != nil {
			return nil, err
		}
		l, err := config.Expect(o.expect, b)
		if err != nil {
			return nil, err
		}
		if len(o.ports) == 0 {
			l.Ports(spec)
		} else if left := l.Unasked(spec); len(left) > 0 {
			var names []string
			for _, e := range left {
				names = append(names, e.Name())
			}
			a.log.Warn("--ports leaves out what the expectation names", "ports", strings.Join(names, ", "))
		}
		j.Expected = l
	}
	if files["--previous"] != nil {
		before, err := previous(files["--previous"])
		if err != nil {
			return nil, &usageError{msg: "read --previous " + o.previous, cause: err, hint: "it is what sixfence verify --format json wrote"}
		}
		if len(o.ports) == 0 {
			for k := range before {
				spec.Of(k.Proto).Add(k.Port)
			}
		}
		j.Expected = before
	}
	if f := files["--state"]; f != nil {
		b, err := files.read("--state", maxVerifyInput)
		if err != nil {
			return nil, err
		}
		s, err := keep.read(b)
		if err == nil && run != nil {
			err = run.Know(s)
		}
		if err != nil {
			return nil, &usageError{msg: "read --state " + o.state, cause: err, hint: "it is no state of sixfence verify: delete it, or name another file"}
		}
	}
	var snap *fact.Snapshot
	var err error
	if f := files["--snapshot"]; f != nil {
		snap, err = store.ReadSnapshot(f, o.snapshot, 0)
	} else if host != nil {
		snap, err = a.fetch(ctx, host)
	}
	if err != nil || snap == nil {
		return j, err
	}
	var sp *reach.Space
	if sp, err = spacesOf(snap).get(o.netns); err != nil {
		return nil, err
	}
	j.Predicted = expect.FromSpace(sp)
	return j, nil
}

// errand is what another host is asked: all that this host would look at.
func (o *verifyOptions) errand(targets []verify.Target, spec *probe.Spec, variants []probe.Variant, together bool) probe.Errand {
	var addrs []netip.Addr
	for _, t := range targets {
		addrs = append(addrs, t.Addrs...)
	}
	e := probe.NewErrand(addrs, spec, variants)
	e.Connect, e.Rate, e.Patience, e.Path, e.Chains = o.connect, o.rate, o.patience, o.path, o.chains
	e.Together = together || len(targets) == 1
	e.Soak = o.soak
	if e.Trace = o.trace != nil; e.Trace {
		e.Hops = probe.NewErrand(nil, o.trace, nil).Ports
	}
	return e
}
