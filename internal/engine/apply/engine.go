package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// StateDir is where everything about changes is kept.
const StateDir = "/var/lib/sixfence/harden"

// Names in the state directory.
const (
	pendingDir  = "pending" // the transaction in flight
	pastDir     = "past"    // those that ended, by their id
	newPrefix   = "new-"    // one that is being written: nothing was changed
	lockFile    = "lock"
	programFile = "sixfence" // our own copy, beside the journal
)

// Engine performs plans on a host.
type Engine struct {
	StateDir string
	Host     *mutate.Host
	// Arm arms the undo outside of this process. Nil: by a systemd timer where systemd
	// runs this namespace, by a detached process elsewhere.
	Arm Armer
	// Prove, if set, has the last word before anything is written. A *RefusedError of it
	// is Apply's own.
	Prove func(context.Context, *change.Plan) error
	// Check answers one of Plan.Checks. Nil: this package's own.
	Check func(ctx context.Context, url string) error
	// BootID of this boot; empty: the kernel's.
	BootID string
	// Boundary is called at every boundary of a step; its error is as if the step had
	// failed. For tests.
	Boundary func(name string) error
	// Log hears what happens; may be nil.
	Log func(msg string, args ...any)
}

// New returns an Engine for this host.
func New(stateDir string, log func(msg string, args ...any)) *Engine {
	return &Engine{StateDir: stateDir, Host: &mutate.Host{Layer: &store.Layer{}}, Log: log}
}

func (e *Engine) log(msg string, args ...any) {
	if e.Log != nil {
		e.Log(msg, args...)
	}
}

func (e *Engine) boundary(format string, a ...any) error {
	if e.Boundary == nil {
		return nil
	}
	return e.Boundary(fmt.Sprintf(format, a...))
}

func (e *Engine) layer() *store.Layer {
	if e.Host.Layer == nil {
		e.Host.Layer = &store.Layer{}
	}
	return e.Host.Layer
}

func (e *Engine) stateDir() string {
	if e.StateDir == "" {
		return StateDir
	}
	return e.StateDir
}

// open opens the state directory and takes the lock. Whoever holds it for a moment, as
// the process that waits does, is waited for.
func (e *Engine) open() (*store.Dir, func(), error) {
	d, err := e.layer().OpenPrivate(e.stateDir())
	if err != nil {
		return nil, nil, fmt.Errorf("open state directory: %w", err)
	}
	unlock, err := d.Lock(lockFile, false)
	for end := time.Now().Add(3 * time.Second); errors.Is(err, store.ErrLocked) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		unlock, err = d.Lock(lockFile, false)
	}
	if err != nil {
		d.Close()
		return nil, nil, err
	}
	return d, func() { unlock(); d.Close() }, nil
}

// begun is open where a change was made before; ErrNothing elsewhere, where nothing is
// made for the question.
func (e *Engine) begun() (*store.Dir, func(), error) {
	d, err := e.layer().Open(e.stateDir())
	if errors.Is(err, unix.ENOENT) {
		return nil, nil, ErrNothing
	}
	if err == nil {
		d.Close()
	}
	return e.open() // which says what is wrong with it
}

func (e *Engine) bootID() string {
	if e.BootID != "" {
		return e.BootID
	}
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// restarted tells whether the kernel state that a transaction changed is gone: after a
// boot, and after a container was started again, whose network namespace is another one
// then, on the same kernel.
func (e *Engine) restarted(t *transaction) bool {
	if t.j.Boot != e.bootID() {
		return true
	}
	if t.j.Network == mutate.Namespace() || mutate.NamespaceSeen(t.j.Network) {
		return false
	}
	// The process that waits holds this lock for as long as it lives, wherever it is.
	unlock, err := t.dir.Lock(readyFile, false)
	if err != nil {
		return false
	}
	unlock()
	return true
}

// bootTime is CLOCK_BOOTTIME in milliseconds: it goes on while the host sleeps, and
// nobody can set it.
func bootTime() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano() / 1e6
}

// started is when a process started, in clock ticks, as /proc says it; empty when it
// does not run.
func started(pid int) string { return statField(pid, 19) }

// stopped tells whether a process was stopped: ctrl-Z, SIGSTOP, a debugger.
func stopped(pid int) bool {
	s := statField(pid, 0)
	return s == "T" || s == "t"
}

// statField is one of the fields of /proc/PID/stat that follow the name of the program,
// which may have any characters.
func statField(pid, n int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(f) > n {
		return f[n]
	}
	return ""
}
