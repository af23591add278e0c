package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/host/store"
)

// Arming says who will undo the change.
type Arming struct {
	How  string `json:"how"` // "systemd timer" or "process"
	Unit string `json:"unit,omitempty"`
	PID  int    `json:"pid,omitempty"`
	// Listener is the unit that hears what others do while the change waits; the undo does not
	// need it.
	Listener string `json:"listener,omitempty"`
}

// Armer arms the undo outside of this process.
type Armer interface {
	// Arm returns when the undo is armed for certain. program is our own copy, which
	// calls Supervise (a process that waits) or Expire (one that is started when the
	// time is up) with the state directory and the transaction's id.
	Arm(program, stateDir, id string, after time.Duration) (Arming, error)
	// Disarm takes it off; what is gone already is no error.
	Disarm(Arming)
}

// Words of the hidden verbs that the armed undo calls.
const (
	SuperviseVerb = "undo-supervise"
	ExpireVerb    = "undo-expire"
	ListenVerb    = "undo-listen"
)

const armingFile = "arming"

func (e *Engine) armer() Armer {
	if e.Arm != nil {
		return e.Arm
	}
	return hostArmer{}
}

func (e *Engine) arm(t *transaction) error {
	left := time.Duration(t.j.DeadlineAt-bootTime()) * time.Millisecond
	a, err := e.armer().Arm(filepath.Join(t.dir.Path(), programFile), e.stateDir(), t.j.ID, left)
	if err != nil {
		return fmt.Errorf("arm the undo: %w", err)
	}
	return t.put(armingFile, a)
}

func (t *transaction) arming() (a Arming) {
	if b, _, err := t.dir.Read(armingFile, 1<<16); err == nil {
		_ = json.Unmarshal(b, &a)
	}
	return a
}

func (e *Engine) disarm(a Arming) {
	if a.How != "" {
		e.armer().Disarm(a)
	}
}

// hostArmer uses a timer of systemd where systemd runs this host, and a process of
// ours elsewhere.
type hostArmer struct{}

func findProgram(name string) string {
	for _, d := range []string{"/usr/bin/", "/bin/"} {
		if st, err := os.Stat(d + name); err == nil && st.Mode().IsRegular() {
			return d + name
		}
	}
	return ""
}

func systemTool(name string, args ...string) (string, error) {
	p := findProgram(name)
	if p == "" {
		return "", fmt.Errorf("%s is not installed", name)
	}
	r, err := run.Run(context.Background(), run.Program{Path: p, Args: args, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Timeout: 20 * time.Second})
	if err != nil {
		return "", err
	}
	if r.Exit != 0 {
		return "", fmt.Errorf("%s: %s", name, strings.TrimSpace(string(r.Stderr)))
	}
	return strings.TrimSpace(string(r.Stdout)), nil
}

func (h hostArmer) Arm(program, stateDir, id string, after time.Duration) (Arming, error) {
	if mutate.SystemdHere() {
		a, err := timer(program, stateDir, id, after)
		if err == nil {
			return a, nil
		}
		// systemd that is busy or broken: a process of our own is less sure there, because
		// logind may end it with the session, and better than nothing.
		p, err2 := supervisor(program, stateDir, id)
		return p, errors.Join(err2, ifFailed(err2, err))
	}
	return supervisor(program, stateDir, id)
}

func ifFailed(failed, err error) error {
	if failed == nil {
		return nil
	}
	return err
}

func timer(program, stateDir, id string, after time.Duration) (Arming, error) {
	unit := "sixfence-undo-" + id
	_, err := systemTool("systemd-run", "--quiet", "--collect", "--unit="+unit, "--description=Undo an unconfirmed change of sixfence",
		fmt.Sprintf("--on-active=%dms", after.Milliseconds()), "--timer-property=AccuracySec=100ms", "--timer-property=RemainAfterElapse=no",
		"--property=Type=oneshot", "--property=IgnoreSIGPIPE=yes", "--property=TimeoutStartSec=600",
		program, "harden", ExpireVerb, "--state-dir", stateDir, "--id", id)
	if err != nil {
		return Arming{}, err
	}
	if s, err := systemTool("systemctl", "is-active", unit+".timer"); err != nil || s != "active" {
		return Arming{}, errors.Join(fmt.Errorf("the timer %s is %q", unit, s), err)
	}
	return Arming{How: "systemd timer", Unit: unit, Listener: listener(program, stateDir, id)}, nil
}

// listener starts the service that listens while the timer runs, and waits until it does.
// Where it does not start the undo is the same, and knows less.
func listener(program, stateDir, id string) string {
	unit := "sixfence-undo-" + id + "-listen"
	if _, err := systemTool("systemd-run", "--quiet", "--collect", "--unit="+unit, "--description=Hear what others do while a change of sixfence waits",
		"--property=Restart=on-failure", "--property=RestartSec=1", program, "harden", ListenVerb, "--state-dir", stateDir, "--id", id); err != nil {
		return ""
	}
	ready := filepath.Join(stateDir, pendingDir, listeningFile)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			break
		}
	}
	return unit
}

// supervisor starts our own process and waits until it says that it is deaf to the
// session's end.
func supervisor(program, stateDir, id string) (Arming, error) {
	pid, err := run.Detach(run.Program{Path: program, Name: "sixfence", Args: []string{"harden", SuperviseVerb, "--state-dir", stateDir, "--id", id}, Env: passed()}, nil)
	if errors.Is(err, unix.EACCES) {
		return Arming{}, &RefusedError{Why: "nothing may be executed in " + stateDir + ", where the copy of this program lies that undoes the change: " + err.Error(), Hint: "mount it without noexec, or keep changes elsewhere: --state-dir DIR"}
	}
	if err != nil {
		return Arming{}, err
	}
	ready := filepath.Join(stateDir, pendingDir, readyFile)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(3 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			return Arming{How: "process", PID: pid}, nil
		}
		if unix.Kill(pid, 0) != nil {
			break
		}
	}
	return Arming{}, errors.New("the process that shall undo did not start (is the state directory mounted noexec?)")
}

// passed is the environment of the process that waits: none, but for what tests need.
func passed() []string {
	var out []string
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "SIXFENCE_TEST_") {
			out = append(out, v)
		}
	}
	return out
}

const readyFile = "ready"

func (hostArmer) Disarm(a Arming) {
	if a.Unit != "" {
		_, _ = systemTool("systemctl", "stop", a.Unit+".timer")
	}
	if a.Listener != "" {
		_, _ = systemTool("systemctl", "stop", a.Listener+".service")
	}
	// The process sees that its transaction is gone, and ends.
}

// poll is how often the process that waits looks. Tests look more often.
var poll = 200 * time.Millisecond

// Supervise is the process that outlives the session: it undoes the transaction when
// its time is up, or when the run that applied it has died, and finishes it when the
// run that confirmed it has died. It returns when the transaction has ended.
func (e *Engine) Supervise(ctx context.Context, id string) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGUSR1, syscall.SIGUSR2)
	unlimited()
	d, err := e.layer().OpenPrivate(e.stateDir())
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := d.Sub(pendingDir)
	if err != nil {
		return err
	}
	// Its lock says in every namespace that we live.
	alive, err := p.Lock(readyFile+".new", false)
	if err == nil {
		defer alive()
		err = p.Rename(readyFile+".new", readyFile)
	}
	p.Close()
	if err != nil {
		return err
	}
	ears := &witness{ears: mutate.Listen()}
	defer ears.close()
	wait := poll
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t, err := openTransaction(d)
		if err == nil && (t == nil || t.j.ID != id) {
			t.close()
			return nil
		}
		if err == nil {
			ph, late := t.phase(), bootTime()-t.j.DeadlineAt
			e.unblock(d, t, late)
			t.close()
			if ph != waiting || late >= 0 {
				switch done, err := e.expire(d, id); {
				case err == nil && done:
					return nil
				case err != nil && !errors.Is(err, store.ErrLocked):
					e.log("undo", "cause", err)
					wait = min(2*wait, 10*time.Second)
				}
			}
		}
		ears.wait(d, id, wait)
	}
}

// unlimited takes off what the session's shell may have limited: a process that is ended
// for the time it took, or may write no more, undoes nothing.
func unlimited() {
	for _, r := range []int{unix.RLIMIT_CPU, unix.RLIMIT_FSIZE, unix.RLIMIT_AS, unix.RLIMIT_DATA, unix.RLIMIT_NPROC} {
		_ = unix.Setrlimit(r, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 0)
}

// How long a run may be in the way of an undo that is due, in milliseconds: one that does
// something else, and one that undoes itself.
const (
	inTheWay  = 5_000
	atTheUndo = 60_000
)

// unblock ends the run that keeps an undo from beginning, late milliseconds after it was
// due: one that hangs, or that somebody stopped (ctrl-Z), with the lock. Killed it may be
// at any moment. What finishes a change is not in the way, unless it was stopped.
func (e *Engine) unblock(d *store.Dir, t *transaction, late int64) {
	if late < inTheWay {
		return
	}
	holder := func() int {
		pid := d.LockHolder(lockFile)
		if pid == 0 && started(t.j.PID) == t.j.Started {
			pid = t.j.PID
		}
		return pid
	}
	pid := holder()
	if pid == 0 || pid == os.Getpid() {
		return
	}
	// Its number may be another's by the time it is killed. What is open here is one process,
	// and it is the holder if that still has the number.
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	defer func() { _ = p.Release() }()
	if holder() != pid {
		return
	}
	if !stopped(pid) {
		switch ph := t.phase(); {
		case ph == done, ph == undone, ph == committed, ph == aborting && late < atTheUndo:
			return
		}
	}
	e.log("a run is in the way of the undo", "pid", pid)
	_ = p.Kill()
}

// expire does what is due now, if nobody else is at it.
func (e *Engine) expire(d *store.Dir, id string) (ended bool, err error) {
	unlock, err := d.Lock(lockFile, false)
	if err != nil {
		return false, err
	}
	defer unlock()
	t, err := openTransaction(d)
	if err != nil {
		return false, err
	}
	if t == nil || t.j.ID != id {
		t.close()
		return true, nil
	}
	// Between the arming and the first step the run has the lock. Whoever gets it while
	// nothing waits has found it dead.
	t.close()
	out, err := e.resume(d)
	return out != nil && err == nil, err
}

// Expire is what a timer starts when the time is up.
func (e *Engine) Expire(ctx context.Context, id string) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	d, err := e.layer().OpenPrivate(e.stateDir())
	if err != nil {
		return err
	}
	defer d.Close()
	wait := poll
	for begun := bootTime(); ; time.Sleep(wait) {
		ended, err := e.expire(d, id)
		switch {
		case ended:
			return nil
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), err)
		case errors.Is(err, store.ErrLocked):
			if t, err := openTransaction(d); err == nil && t != nil {
				e.unblock(d, t, bootTime()-begun)
				t.close()
			}
		case err != nil:
			e.log("undo", "cause", err)
			wait = min(2*wait, 10*time.Second)
		}
	}
}
