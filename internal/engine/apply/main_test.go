package apply

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// The test binary plays every process of a transaction: the run that applies, the one
// that confirms, the one that waits to undo, and somebody else who writes meanwhile.
func TestMain(m *testing.M) {
	poll = 20 * time.Millisecond
	if len(os.Args) > 2 && os.Args[1] == "harden" {
		os.Exit(playUndo(os.Args[2:]))
	}
	if role := os.Getenv("SIXFENCE_TEST_ROLE"); role != "" {
		os.Exit(play(role))
	}
	// Most of a run is waiting, for another process or the kernel.
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0)))
	}
	os.Exit(m.Run())
}

// fault is what goes wrong at one crossing: a boundary of a step, an operation of the
// file layer or a change of the kernel, counted together.
type fault struct {
	mu    sync.Mutex
	kind  string // kill, hup, eperm, enospc; "count" only counts
	at    int
	where string // instead of at: the name of a boundary
	n     int
}

func readFault(env string) *fault {
	kind, at, _ := strings.Cut(os.Getenv(env), ":")
	n, err := strconv.Atoi(at)
	if err != nil {
		return &fault{kind: kind, where: at}
	}
	return &fault{kind: kind, at: n}
}

func (f *fault) cross(name string, grows bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.kind == "enospc" && f.n >= f.at && grows { // a disk that is full stays full
		return unix.ENOSPC
	}
	if f.n != f.at && (f.where == "" || f.where != name) {
		return nil
	}
	switch f.kind {
	case "kill":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "hup":
		_ = unix.Kill(os.Getpid(), unix.SIGHUP)
		time.Sleep(20 * time.Millisecond) // deadly, or ignored
	case "eperm":
		return fmt.Errorf("%s: %w", name, unix.EPERM)
	case "fill": // somebody else, at this moment
		fillDisk(os.Getenv("SIXFENCE_TEST_DISK"))
	case "stop": // hangs
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	}
	return nil
}

func testEngine(f *fault) *Engine {
	root := os.Getenv("SIXFENCE_TEST_ROOT")
	e := &Engine{StateDir: os.Getenv("SIXFENCE_TEST_STATE"), BootID: os.Getenv("SIXFENCE_TEST_BOOT")}
	l := &store.Layer{Before: func(o store.Op) error {
		return f.cross(string(o.Kind)+" "+o.Path, o.Kind == store.OpCreate || o.Kind == store.OpWrite || o.Kind == store.OpMkdir)
	}}
	e.Host = &mutate.Host{Root: root, Layer: l, Before: func(k change.Kind, t string) error { return f.cross(string(k)+" "+t, false) }}
	e.Boundary = func(name string) error { return f.cross(name, false) }
	e.Log = func(msg string, args ...any) { fmt.Fprintln(os.Stderr, append([]any{msg}, args...)...) }
	return e
}

func playUndo(args []string) int {
	f := readFault("SIXFENCE_TEST_FAULT_UNDO")
	e := testEngine(f)
	if log := os.Getenv("SIXFENCE_TEST_LOG"); log != "" {
		if f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			_ = unix.Dup2(int(f.Fd()), 2)
		}
	}
	e.StateDir = args[2]
	var err error
	if args[0] == ExpireVerb {
		err = e.Expire(context.Background(), args[4])
	} else {
		err = e.Supervise(context.Background(), args[4])
	}
	if f.kind == "count" {
		fmt.Fprintf(os.Stderr, "crossings %d\n", f.n)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "undo:", err)
		return 1
	}
	return 0
}

func play(role string) int {
	f := readFault("SIXFENCE_TEST_FAULT")
	e := testEngine(f)
	e.Arm = hostArmer{}
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	defer func() {
		if f.kind == "count" {
			fmt.Printf("crossings %d\n", f.n)
		}
	}()
	switch role {
	case "apply":
		b, err := os.ReadFile(os.Getenv("SIXFENCE_TEST_PLAN"))
		if err != nil {
			return fail(err)
		}
		var p change.Plan
		if err := json.Unmarshal(b, &p); err != nil {
			return fail(err)
		}
		ms, _ := strconv.Atoi(os.Getenv("SIXFENCE_TEST_TIMEOUT"))
		if _, err := e.Apply(context.Background(), &p, Options{Timeout: time.Duration(ms) * time.Millisecond, Former: os.Getenv("SIXFENCE_TEST_FORMER")}); err != nil {
			return fail(err)
		}
	case "confirm":
		if _, err := e.Confirm(context.Background(), ConfirmOptions{}); err != nil {
			return fail(err)
		}
	case "rollback":
		if _, err := e.Rollback(context.Background()); err != nil {
			return fail(err)
		}
	case "resume":
		if _, err := e.Resume(); err != nil {
			return fail(err)
		}
	case "keep": // one look
		k := &keeper{Engine: e, well: time.Now()}
		if _, err := k.look(context.Background()); err != nil {
			return fail(err)
		}
	case "foreign":
		return foreign(e.Host)
	default:
		return fail(fmt.Errorf("no such role"))
	}
	return 0
}
