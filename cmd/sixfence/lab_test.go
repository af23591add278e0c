package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// These are the end-to-end tests: the real binary audits real namespaces, and
// then packets show whether the kernel does what the report said.

var binary string

func TestMain(m *testing.M) {
	if os.Getenv("LAB_SERVE") != "" {
		serve()
	}
	if what := os.Getenv(cutEnv); what != "" {
		os.Exit(cutter(what))
	}
	if len(os.Args) > 2 && os.Args[1] == "harden" { // in the place of a copy of sixfence
		what, _ := os.ReadFile(cutFile)
		os.Exit(cutter(string(what)))
	}
	dir, err := os.MkdirTemp("", "sixfence-e2e-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "sixfence")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", binary, ".") // as make build does
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build sixfence: %v\n%s", err, out)
		os.Exit(1)
	}
	// Labs mostly wait: for answers that must not come, for timers of the kernel.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(strconv.Itoa(2 * runtime.NumCPU()))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// view is one report and the name under which it knows the namespace in question.
type view struct {
	finding.Report
	from  string
	netns string
}

// run runs a prepared sixfence command and decodes its JSON. Exit codes 0, 1 and
// 3 are answers, everything else is an error.
func run(t testing.TB, c *exec.Cmd) finding.Report {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && (exit.ExitCode() == 1 || exit.ExitCode() == 3) {
		err = nil
	}
	if err != nil {
		t.Fatalf("%v: %v\n%s", c.Args, err, stderr.String())
	}
	var r finding.Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("%v printed no report: %v\n%.500s\n%s", c.Args, err, stdout.String(), stderr.String())
	}
	return r
}

func auditArgs(args []string) []string { return append([]string{"audit", "--format", "json"}, args...) }

// outside audits the whole machine; the namespace is known by its name.
func outside(t testing.TB, ns *testlab.NS, args ...string) view {
	t.Helper()
	return view{run(t, exec.Command(binary, auditArgs(args)...)), "outside", ns.Name}
}

// inside audits from within the namespace, as a person logged in there would.
func inside(t testing.TB, ns *testlab.NS, args ...string) view {
	t.Helper()
	return view{run(t, ns.Command(binary, auditArgs(args)...)), "inside", "self"}
}

// alone audits the namespace and no other one: from a PID namespace in which nothing
// else runs, and without the names of the others, as in a container. Rules and sysctls
// are the same from there; programs are not seen.
func alone(t testing.TB, ns *testlab.NS, args ...string) view {
	t.Helper()
	const hide = `umount -R -l /run/netns; exec "$0" "$@"`
	c := ns.Command("unshare", append([]string{"--fork", "--pid", "--mount-proc", "sh", "-c", hide, binary}, auditArgs(args)...)...)
	return view{run(t, c), "alone", "self"}
}

// both are the two vantage points; they must agree.
func both(t testing.TB, ns *testlab.NS) []view {
	t.Helper()
	return []view{outside(t, ns), inside(t, ns)}
}

// matches tells whether every field that is set in want has that value.
func matches(s, want finding.Subject) bool {
	eq := func(got, want string) bool { return want == "" || got == want }
	return eq(s.NetNS, want.NetNS) && eq(s.Interface, want.Interface) && eq(s.Family, want.Family) &&
		eq(s.Proto, want.Proto) && (want.Port == 0 || s.Port == want.Port) && eq(s.Address, want.Address) &&
		eq(s.Process, want.Process) && eq(s.File, want.File) && eq(s.Key, want.Key)
}

// find returns the findings of a control about a subject in the view's namespace;
// subjects with a file or a key belong to the host.
func (v view) find(control string, s finding.Subject) []finding.Finding {
	if s.NetNS == "" && s.File == "" && s.Key == "" {
		s.NetNS = v.netns
	}
	var out []finding.Finding
	for _, f := range v.Findings {
		if f.Control == control && matches(f.Subject, s) {
			out = append(out, f)
		}
	}
	return out
}

// one returns the only finding of a control about a subject.
func (v view) one(t testing.TB, control string, s finding.Subject) finding.Finding {
	t.Helper()
	got := v.find(control, s)
	if len(got) != 1 {
		var all []string
		for _, f := range v.Findings {
			if f.Control == control {
				all = append(all, fmt.Sprintf("  %s %+v: %s", f.Status, f.Subject, f.Message))
			}
		}
		if len(all) > 40 {
			all = all[:40]
		}
		t.Fatalf("from %s: %d findings of %s about %+v in %q, want one; the report has:\n%s", v.from, len(got), control, s, v.netns, strings.Join(all, "\n"))
	}
	return got[0]
}

// effective fails the test unless the control's effective verdict is want.
func (v view) effective(t testing.TB, control string, s finding.Subject, want finding.Status) finding.Finding {
	t.Helper()
	f := v.one(t, control, s)
	if f.Effective != want {
		t.Errorf("from %s: %s about %+v: effective %s, want %s\n  %s\n  evidence %v", v.from, control, s, f.Effective, want, f.Message, f.Evidence)
	}
	if f.Effective == finding.Fail && (len(f.Evidence) == 0 || len(f.Remediation) == 0) {
		t.Errorf("from %s: %s fails without evidence or remediation", v.from, control)
	}
	return f
}

func on(ifname string) finding.Subject { return finding.Subject{Interface: ifname} }

// verdict is what the kernel just did, in the words of a report.
func verdict(bad bool) finding.Status {
	if bad {
		return finding.Fail
	}
	return finding.Pass
}
