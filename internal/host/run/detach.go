package run

import (
	"fmt"
	"os"
	"syscall"
)

// Detach starts a program that is to outlive this one: in a session of its own, out
// of reach of the terminal's signals, with nothing of ours open. Its output goes to
// a file, or nowhere. It returns the process's number; nobody waits for it.
func Detach(p Program, log *os.File) (int, error) {
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
