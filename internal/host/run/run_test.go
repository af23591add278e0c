package run_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/testlab"
)

func TestRun(t *testing.T) {
	sh := testlab.RequireTool(t, "sh")
	t.Setenv("SECRET", "of the caller")
	for name, c := range map[string]struct {
		p        run.Program
		out, err string
		exit     int
		signal   syscall.Signal
		fails    error
	}{
		"output":          {p: run.Program{Args: []string{"-c", "echo out; echo err >&2; exit 3"}}, out: "out\n", err: "err\n", exit: 3},
		"no environment":  {p: run.Program{Args: []string{"-c", "echo [$SECRET] [$HOME]; pwd"}}, out: "[] []\n/\n"},
		"its environment": {p: run.Program{Args: []string{"-c", "echo $A"}, Env: []string{"A=b"}}, out: "b\n"},
		"its input":       {p: run.Program{Args: []string{"-c", "cat"}, Stdin: []byte("in")}, out: "in"},
		"no input":        {p: run.Program{Args: []string{"-c", "cat; echo end"}}, out: "end\n"},
		"its name":        {p: run.Program{Name: "me", Args: []string{"-c", "echo $0"}}, out: "me\n"},
		"no shell words":  {p: run.Program{Args: []string{"-c", "echo \"$1\"", "x", "$(id); a b"}}, out: "$(id); a b\n"},
		"a signal":        {p: run.Program{Args: []string{"-c", "kill -TERM $$"}}, exit: -1, signal: unix.SIGTERM},
		"too long":        {p: run.Program{Args: []string{"-c", "sleep 100"}, Timeout: 50 * time.Millisecond}, fails: run.ErrTime},
		"a grandchild":    {p: run.Program{Args: []string{"-c", "sleep 100 & wait"}, Timeout: 50 * time.Millisecond}, fails: run.ErrTime},
		"too much":        {p: run.Program{Args: []string{"-c", "while :; do echo 0123456789; done"}, MaxOutput: 100}, fails: run.ErrOutput},
		"limits":          {p: run.Program{Args: []string{"-c", "read x; ulimit -n"}, Stdin: []byte("\n"), Limits: []run.Limit{{Resource: unix.RLIMIT_NOFILE, Value: 17}}}, out: "17\n"},
	} {
		c.p.Path = sh
		r, err := run.Run(t.Context(), c.p)
		if !errors.Is(err, c.fails) || (err != nil) != (c.fails != nil) {
			t.Errorf("%s: %v, want %v", name, err, c.fails)
			continue
		}
		if err == nil && (string(r.Stdout) != c.out || string(r.Stderr) != c.err || r.Exit != c.exit || r.Signal != c.signal) {
			t.Errorf("%s: %q %q exit %d signal %v", name, r.Stdout, r.Stderr, r.Exit, r.Signal)
		}
		if len(r.Stdout) > 1<<20 {
			t.Errorf("%s: %d bytes", name, len(r.Stdout))
		}
	}
	for _, p := range []string{"sh", "./sh", "", "/nonexistent"} {
		if _, err := run.Run(t.Context(), run.Program{Path: p}); err == nil {
			t.Errorf("%q was started", p)
		}
	}
}

func TestApart(t *testing.T) {
	testlab.RequireRoot(t)
	sh := testlab.RequireTool(t, "sh")
	a, err := run.StartApart(run.Program{Path: sh, Args: []string{"-c", `
echo $$ $(id -u) $(id -G) [$SECRET]
grep -c . /proc/net/dev
cat /proc/self/uid_map
read x
echo never`}, Env: []string{"PATH=/usr/bin:/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b := make([]byte, 4096)
	n := 0
	for strings.Count(string(b[:n]), "\n") < 3 {
		m, err := a.Out.Read(b[n:])
		n += m
		if err != nil {
			break
		}
	}
	lines := strings.Split(string(b[:n]), "\n")
	if len(lines) < 3 || lines[0] != "1 0 0 []" || strings.Join(strings.Fields(lines[2]), " ") != "0 65534 1" {
		t.Errorf("inside: %q", lines)
	}
	_ = a.In.Close()
	if rest, _ := io.ReadAll(a.Out); strings.TrimSpace(string(rest)) != "never" { // read fails, and the script goes on to its end
		t.Errorf("rest %q", rest)
	}
}

// TestDetachInheritsNothing starts a program that outlives us while a script's lock, which
// nobody told us of, is open.
func TestDetachInheritsNothing(t *testing.T) {
	sleep := testlab.RequireTool(t, "sleep")
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil { // as a shell opens them: not close-on-exec
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil { // no reader waits for ever
		t.Fatal(err)
	}
	pid, err := run.Detach(run.Program{Path: sleep, Args: []string{"100"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	testlab.Eventually(t, 10*time.Second, "the program to run", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return strings.TrimSpace(string(b)) == "sleep"
	})
	unix.Close(fds[1])
	if n, err := unix.Read(fds[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestPiped(t *testing.T) {
	sh := testlab.RequireTool(t, "sh")
	start := func(script string) *run.Piped {
		t.Helper()
		p, err := run.StartPiped(run.Program{Path: sh, Args: []string{"-c", script}, MaxOutput: 10})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := start("read x; echo got $x; yes 0123456789 | head -c 300000 >&2; cat >/dev/null; exit 3")
	_, _ = io.WriteString(p.In, "it\nmore\n")
	b := make([]byte, 7)
	if _, err := io.ReadFull(p.Out, b); err != nil || string(b) != "got it\n" {
		t.Errorf("%q %v", b, err)
	}
	if exit, said := p.Close(time.Minute); exit != 3 || said != "0123456789" {
		t.Errorf("exit %d, %q", exit, said)
	}
	// One that does not end with its input is ended; it has no terminal.
	p = start("(: </dev/tty) 2>/dev/null && echo terminal >&2; trap '' TERM HUP; while :; do sleep 1; done")
	if exit, said := p.Close(10 * time.Millisecond); exit != -1 || said != "" {
		t.Errorf("exit %d, %q", exit, said)
	}
	if _, err := run.StartPiped(run.Program{Path: "ssh"}); err == nil {
		t.Error("a program was searched for")
	}
}
