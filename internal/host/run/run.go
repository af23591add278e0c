// Package run starts programs. It is the only package of the product that does: an
// absolute path and a fixed list of arguments, never a shell; an environment that
// the caller names in full; bounds on time and output. Who may import it is listed
// in internal/layers_test.go.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of Run; errors.Is finds them.
var (
	ErrTime   = errors.New("the program took too long")
	ErrOutput = errors.New("the program printed too much")
)

// Program is what to start.
type Program struct {
	Path string   // absolute: nothing is searched for
	Name string   // argv[0]; by default Path
	Args []string // after argv[0]
	Env  []string // the whole environment; nil is an empty one
	Dir  string   // working directory; by default /
	// Stdin is what it reads; nil is an empty input.
	Stdin []byte
	// MaxOutput bounds standard output and standard error, each, in bytes (default 1 MiB).
	MaxOutput int
	// Timeout bounds the run; by default a minute.
	Timeout time.Duration
	// Limits are set on the program right after it started.
	Limits []Limit
}

// Limit is a resource limit (unix.RLIMIT_*), soft and hard.
type Limit struct {
	Resource int
	Value    uint64
}

// Result is what a program left.
type Result struct {
	Stdout, Stderr []byte
	// Exit is the exit code; -1 when a signal ended it.
	Exit   int
	Signal syscall.Signal
}

func (p *Program) command() (*exec.Cmd, error) {
	if !filepath.IsAbs(p.Path) {
		return nil, fmt.Errorf("run %q: not an absolute path", p.Path)
	}
	name, dir := p.Name, p.Dir
	if name == "" {
		name = p.Path
	}
	if dir == "" {
		dir = "/"
	}
	env := p.Env
	if env == nil {
		env = []string{}
	}
	return &exec.Cmd{Path: p.Path, Args: append([]string{name}, p.Args...), Env: env, Dir: dir}, nil
}

// Run runs a program to its end. A program that ends with an exit code, or by a
// signal, is no error. It is started by the calling OS thread, whose seccomp filters
// and no_new_privs it inherits.
func Run(ctx context.Context, p Program) (Result, error) {
	timeout, bound := p.Timeout, p.MaxOutput
	if timeout == 0 {
		timeout = time.Minute
	}
	if bound == 0 {
		bound = 1 << 20
	}
	c, err := p.command()
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	full := make(chan struct{}, 2)
	out, errs := &bounded{left: bound, full: full}, &bounded{left: bound, full: full}
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(p.Stdin), out, errs
	c.WaitDelay = time.Second // for a grandchild that keeps the pipes open
	if err := c.Start(); err != nil {
		return Result{}, fmt.Errorf("run %s: %w", p.Path, err)
	}
	for _, l := range p.Limits {
		lim := unix.Rlimit{Cur: l.Value, Max: l.Value}
		if e := unix.Prlimit(c.Process.Pid, l.Resource, &lim, nil); e != nil && !errors.Is(e, unix.ESRCH) {
			err = fmt.Errorf("run %s: limit resource %d: %w", p.Path, l.Resource, e)
		}
	}
	done := make(chan struct{})
	why := make(chan error, 1)
	go func() {
		select {
		case <-ctx.Done():
			why <- fmt.Errorf("run %s: %w", p.Path, ErrTime)
		case <-full:
			why <- fmt.Errorf("run %s: %w", p.Path, ErrOutput)
		case <-done:
			why <- nil
			return
		}
		_ = c.Process.Kill()
	}()
	if err != nil {
		_ = c.Process.Kill()
	}
	waited := c.Wait()
	close(done)
	if e := <-why; err == nil {
		err = e
	}
	r := Result{Stdout: out.b.Bytes(), Stderr: errs.b.Bytes()}
	if err != nil {
		return r, err
	}
	var exit *exec.ExitError
	if waited != nil && !errors.As(waited, &exit) {
		return r, fmt.Errorf("run %s: %w", p.Path, waited)
	}
	r.Exit = c.ProcessState.ExitCode()
	if ws, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.Signal = ws.Signal()
	}
	return r, nil
}

// bounded keeps so much and reports more.
type bounded struct {
	b    bytes.Buffer
	left int
	full chan<- struct{}
}

// Write implements io.Writer.
func (w *bounded) Write(p []byte) (int, error) {
	if len(p) > w.left {
		w.b.Write(p[:w.left])
		w.left = 0
		select {
		case w.full <- struct{}{}:
		default:
		}
		return 0, ErrOutput
	}
	w.left -= len(p)
	w.b.Write(p)
	return len(p), nil
}

// Apart is a program in namespaces of its own: user, network, mount, PID, IPC and
// UTS. It is root there and an ordinary user outside: "nobody" when root starts it.
// It is PID 1, so that everything in the namespaces ends with it, and it is expected
// to end when its standard input does: that happens when this process dies, however
// it dies.
type Apart struct {
	In  io.WriteCloser
	Out io.Reader
	c   *exec.Cmd
	err *bounded
}

// nobody is the user that everything knows as such (kernel.overflowuid).
const nobody = 65534

// Self is the path of the running program, whatever became of its file.
const Self = "/proc/self/exe"

// StartApart starts a program in namespaces of its own. Stdin, Timeout and Limits of
// the Program are not looked at.
func StartApart(p Program) (*Apart, error) {
	c, err := p.command()
	if err != nil {
		return nil, err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	root := uid == 0
	if root {
		uid, gid = nobody, nobody
	}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
		GidMappingsEnableSetgroups: root,
		Credential:                 &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: !root},
		Setsid:                     true, // a terminal's interrupt is for this process
	}
	if p.Path == Self && root {
		open, err := selfForNobody()
		if err != nil {
			return nil, err
		}
		if open != nil {
			defer open.Close()
			c.Path, c.ExtraFiles = "/proc/self/fd/3", []*os.File{open}
		}
	}
	a := &Apart{c: c, err: &bounded{left: 64 << 10}}
	c.Stderr = a.err
	if a.In, err = c.StdinPipe(); err != nil {
		return nil, fmt.Errorf("run %s: %w", p.Path, err)
	}
	if a.Out, err = c.StdoutPipe(); err != nil {
		return nil, fmt.Errorf("run %s: %w", p.Path, err)
	}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("run %s in namespaces: %w", p.Path, err)
	}
	apart.Store(c.Process.Pid, true)
	return a, nil
}

// apart has the numbers of the programs that StartApart started and that Close did not end.
var apart sync.Map

// Aparts are the processes that StartApart started and that still run: they, and what they
// started, are no part of the host that somebody asks about.
func Aparts() (pids []int) {
	apart.Range(func(pid, _ any) bool {
		pids = append(pids, pid.(int))
		return true
	})
	return pids
}

// selfForNobody is a copy of the running program in memory that everybody may execute;
// nil where the file itself is such. Root's own copy may be for root alone (mode 0700).
func selfForNobody() (*os.File, error) {
	f, err := os.Open(Self)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", Self, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Mode()&0o001 != 0 {
		return nil, nil
	}
	fd, err := unix.MemfdCreate("self", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("self", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("copy %s to memory: %w", Self, err)
	}
	w := os.NewFile(uintptr(fd), "self")
	defer w.Close() // nothing that is open for writing is executed
	if _, err = io.Copy(w, f); err == nil {
		err = w.Chmod(0o555)
	}
	if err != nil {
		return nil, fmt.Errorf("copy %s to memory: %w", Self, err)
	}
	r, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("copy %s to memory: %w", Self, err)
	}
	return r, nil
}

// Close ends the program and returns what it printed to standard error.
func (a *Apart) Close() string {
	_ = a.In.Close()
	_ = a.c.Process.Kill() // may be forbidden by now; it ends by its closed input
	a.c.WaitDelay = time.Second
	_ = a.c.Wait()
	apart.Delete(a.c.Process.Pid)
	return a.err.b.String()
}
