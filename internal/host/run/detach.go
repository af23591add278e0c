package run

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Detach starts a program that is to outlive this one: in a session of its own, out
// of reach of the terminal's signals, with nothing of ours open. Its output goes to
// a file, or nowhere. It returns the process's number; nobody waits for it.
func Detach(p Program, log *os.File) (int, error) {
	keepOpenFiles()
	c, err := p.command()
	if err != nil {
		return 0, err
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if log != nil {
		c.Stdout, c.Stderr = log, log
	}
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("run %s: %w", p.Path, err)
	}
	pid := c.Process.Pid
	go func() { _ = c.Wait() }() // while we live, it leaves no zombie
	return pid, nil
}

// keepOpenFiles lets programs inherit nothing: what the caller's shell had open for us (a
// lock of a script, a pipe that somebody reads to its end) would stay open for as long as
// such a program lives.
func keepOpenFiles() {
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		closeOnExec() // before Linux 5.11
	}
}

// closeOnExec marks every open file but the three standard ones.
func closeOnExec() {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, f := range fds {
		if n, err := strconv.Atoi(f.Name()); err == nil && n > 2 {
			unix.CloseOnExec(n)
		}
	}
}
