package run

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Piped is a program that runs beside this one, with pipes to and from it. It is in a
// session of its own, so that it has no terminal to ask at, and a terminal's interrupt is
// for this process alone.
type Piped struct {
	In  io.WriteCloser
	Out io.Reader

	c     *exec.Cmd
	err   *bounded
	ended chan struct{}
}

// StartPiped starts a program. Stdin, Timeout and Limits of the Program are not looked
// at; MaxOutput bounds what is kept of its standard error, and the rest is thrown away.
func StartPiped(p Program) (*Piped, error) {
	c, err := p.command()
	if err != nil {
		return nil, err
	}
	keepOpenFiles()
	bound := p.MaxOutput
	if bound == 0 {
		bound = 64 << 10
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s := &Piped{c: c, err: &bounded{left: bound}, ended: make(chan struct{})}
	in, ours, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", p.Path, err)
	}
	defer in.Close()
	theirs, out, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("run %s: %w", p.Path, err)
	}
	defer out.Close()
	c.Stdin, c.Stdout, c.Stderr = in, out, lenient{s.err}
	s.In, s.Out = ours, theirs
	if err := c.Start(); err != nil {
		ours.Close()
		theirs.Close()
		return nil, fmt.Errorf("run %s: %w", p.Path, err)
	}
	c.WaitDelay = time.Second // for a grandchild that keeps standard error open
	go func() {
		_ = c.Wait()
		close(s.ended)
	}()
	return s, nil
}

// lenient takes everything and keeps what there is room for: a program that complains a
// lot is not to die of it.
type lenient struct{ *bounded }

func (l lenient) Write(p []byte) (int, error) {
	_, _ = l.bounded.Write(p)
	return len(p), nil
}

// Kill ends the program at once.
func (s *Piped) Kill() { _ = s.c.Process.Kill() }

// Pid is its number.
func (s *Piped) Pid() int { return s.c.Process.Pid }

// Close closes its input, gives it some time to end by itself, and ends it. It returns
// the exit code (-1: by a signal) and what it printed to standard error.
func (s *Piped) Close(grace time.Duration) (exit int, complaint string) {
	_ = s.In.Close()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-s.ended:
	case <-t.C:
		s.Kill()
		<-s.ended
	}
	if r, ok := s.Out.(io.Closer); ok {
		_ = r.Close()
	}
	return s.c.ProcessState.ExitCode(), s.err.b.String()
}
