package vantage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sixfence/sixfence/internal/engine/verify"
	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// maxErrand bounds a line of standard input.
const maxErrand = 4 << 20

// prefix of the directory that the script makes.
const prefix = "sixfence-via."

// Remove takes away the directory that this program was put into for one run. It removes
// the running program and nothing else.
func Remove(dir string) error {
	self, err := os.Readlink(run.Self)
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	dir = filepath.Clean(dir)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if filepath.Dir(self) != dir || !strings.HasPrefix(filepath.Base(dir), prefix) {
		return fmt.Errorf("%q is not where this program was put", dir)
	}
	if err := os.Remove(self); err != nil {
		return fmt.Errorf("remove the copy of this program: %w", err)
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("remove the directory of this program: %w", err)
	}
	return nil
}

// Serve is the far end: it reads an errand, looks, and writes what it saw. seal is called
// when all sockets are open. It ends when the input does, or when nothing was heard of the
// other side for a minute: a line that was cut says nothing.
func Serve(in io.Reader, out io.Writer, seal func(raw bool)) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	gone := make(chan struct{})
	leave := sync.OnceFunc(func() { stop(); close(gone) })
	w := &frames{w: bufio.NewWriterSize(out, 64<<10)}
	ready := protocol
	if err := w.put(frame{Ready: &ready}); err != nil {
		return err
	}
	r := bufio.NewReaderSize(in, 64<<10)
	quiet := time.AfterFunc(quietTime, leave)
	defer quiet.Stop()
	first := make(chan []byte, 1)
	go func() {
		defer leave()
		for {
			line, err := lineOf(r)
			if err != nil {
				return
			}
			quiet.Reset(quietTime)
			switch line = bytes.TrimSpace(line); {
			case len(line) == 0:
			case string(line) == "stop":
				stop()
			default:
				select {
				case first <- line:
				default:
					return // one errand a run
				}
			}
		}
	}()
	var b []byte
	select {
	case b = <-first:
	case <-gone:
		return nil
	}
	// Whatever blocks, a write for example: when nobody is there any more, this returns.
	done := make(chan error, 1)
	go func() { done <- look(ctx, b, w, seal) }()
	select {
	case err := <-done:
		return err
	case <-gone:
		return nil
	}
}

func lineOf(r *bufio.Reader) ([]byte, error) {
	var b []byte
	for {
		part, err := r.ReadSlice('\n')
		if b = append(b, part...); len(b) > maxErrand {
			return nil, fmt.Errorf("a line of more than %d bytes", maxErrand)
		}
		if err == nil {
			return b, nil
		}
		if err != bufio.ErrBufferFull { //nolint:errorlint // ReadSlice returns it bare
			return nil, err
		}
	}
}

func look(ctx context.Context, b []byte, w *frames, seal func(raw bool)) error {
	problem := func(err error) error { return w.put(frame{Problem: err.Error()}) }
	e, err := probe.DecodeErrand(b)
	if err != nil {
		return problem(err)
	}
	spec, err := e.Spec()
	if err != nil {
		return problem(err)
	}
	o := verify.Options{Spec: spec, Variants: e.Variants, Connect: e.Connect, Together: e.Together, Rate: e.Rate, Patience: e.Patience}
	for _, a := range e.Addresses {
		o.Targets = append(o.Targets, verify.Target{Name: a.String(), Addrs: []netip.Addr{a}})
	}
	var mu sync.Mutex
	sent, left := 0, 0
	o.Progress = func(s, l int) {
		mu.Lock()
		sent, left = s, l
		mu.Unlock()
	}
	r, err := verify.Open(o)
	if err != nil {
		return problem(err)
	}
	defer r.Close()
	seal(r.Raw())
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	done := make(chan error, 1)
	go func() { done <- r.Do(ctx) }()
	for {
		select {
		case <-ticker.C:
			mu.Lock()
			s, l := sent, left
			mu.Unlock()
			if err := w.put(frame{Sent: &s, Left: &l}); err != nil {
				return err
			}
			continue
		case err = <-done:
		}
		break
	}
	if err != nil {
		return problem(err)
	}
	c, err := json.Marshal(probe.NewClaim(r.Found(), r.Raw()))
	if err != nil {
		return problem(err)
	}
	return w.put(frame{Claim: c})
}

// frames writes frames.
type frames struct{ w *bufio.Writer }

func (f *frames) put(x frame) error {
	b, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if _, err := f.w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := f.w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
