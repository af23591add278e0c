package cli

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/host/store"
)

// sink is where a document goes: standard output, or a file that appears whole or
// not at all.
type sink struct {
	w    io.Writer
	file *store.Output
	stop func()
}

// open prepares the output. An empty path or "-" is standard output.
func (a *app) open(path string) (*sink, error) {
	if path == "" || path == "-" {
		return &sink{w: a.stdout, stop: func() {}}, nil
	}
	o, err := store.Create(path)
	if err != nil {
		return nil, err
	}
	// An interrupted run leaves nothing behind.
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-ch:
			o.Abort()
			// Then die of it, as the shell expects.
			signal.Reset()
			if n, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(os.Getpid(), n)
			}
		case <-done:
		}
	}()
	return &sink{w: o, file: o, stop: sync.OnceFunc(func() { signal.Stop(ch); close(done) })}, nil
}

// write renders into the output and ends it.
func (s *sink) write(render func(io.Writer) error) error {
	defer s.stop()
	if err := render(s.w); err != nil {
		s.abort()
		return outputError(err)
	}
	if s.file != nil {
		return outputError(s.file.Commit())
	}
	return nil
}

func (s *sink) abort() {
	s.stop()
	if s.file != nil {
		s.file.Abort()
	}
}

// progress tells a person at a terminal what takes so long. It says nothing in the
// first half second, and nothing at all elsewhere.
func (a *app) progress(quiet bool, what string) (done func()) {
	width, _, tty := terminal(a.stderr)
	if !tty || quiet || os.Getenv("TERM") == "dumb" {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		begin := time.Now()
		tick := time.NewTimer(500 * time.Millisecond)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-stop:
				if shown {
					fmt.Fprint(a.stderr, "\r\x1b[K")
				}
				return
			case <-tick.C:
				shown = true
				line := fmt.Sprintf("sixfence: %s… %d s", what, int(time.Since(begin).Seconds()))
				if len(line) < width {
					fmt.Fprint(a.stderr, "\r"+line)
				}
				tick.Reset(time.Second)
			}
		}
	}()
	return sync.OnceFunc(func() { close(stop); <-ended })
}

// outputFlags are those of every verb that answers in text or JSON.
func outputFlags(cmd *cobra.Command, format, output *string, noColor *bool) {
	f := cmd.Flags()
	f.StringVar(format, "format", "text", "output `FORMAT`: text or json")
	f.StringVarP(output, "output", "o", "", "write to `FILE` (mode 0600) instead of standard output")
	f.BoolVar(noColor, "no-color", false, "no colour (also: NO_COLOR=1; never off a terminal)")
	completeWords(cmd, "format", "text", "json")
}
