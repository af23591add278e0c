package vantage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

// maxErrand bounds a line of standard input: with what is known already.
const maxErrand = 32 << 20

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

// Far is what the far end does at its host.
type Far struct {
	// Seal is called when all sockets are open.
	Seal func(raw bool)
	// Snapshot reads the host, and seals.
	Snapshot func() ([]byte, error)
}

// takeSnapshot is the errand that asks for a Snapshot.
const takeSnapshot = "snapshot"

// Serve is the far end: it reads an errand, does it, and writes what it saw. It ends when
// the input does, or when nothing was heard of the other side for a minute: a line that was
// cut says nothing.
func Serve(in io.Reader, out io.Writer, far Far) error {
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
			line, err := readLine(r, maxErrand, nil)
			if err != nil {
				return
			}
			quiet.Reset(quietTime)
			switch string(line[:min(len(line), 8)]) {
			case "":
			case "stop":
				stop()
			default:
				select {
				case first <- bytes.Clone(line):
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
	go func() {
		if string(b) == takeSnapshot {
			done <- give(w, far)
		} else {
			done <- look(ctx, b, w, far)
		}
	}()
	select {
	case err := <-done:
		return err
	case <-gone:
		return nil
	}
}

// readLine reads one line of at most so many bytes, without its end. more, where it is
// given, is told how many bytes have come, and may refuse them. The line is good until the
// next one is read.
func readLine(r *bufio.Reader, most int, more func(n int) error) ([]byte, error) {
	var b []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(b)+len(part) > most {
			return nil, fmt.Errorf("a line of more than %d bytes", most)
		}
		if more != nil {
			if err := more(len(part)); err != nil {
				return nil, err
			}
		}
		if b == nil && err == nil {
			return bytes.TrimRight(part, "\r\n"), nil
		}
		b = append(b, part...)
		if err == nil {
			return bytes.TrimRight(b, "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// wait calls beat every second until f has ended.
func wait(f, beat func() error) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	done := make(chan error, 1)
	go func() { done <- f() }()
	for {
		select {
		case <-ticker.C:
			if err := beat(); err != nil {
				return err
			}
		case err := <-done:
			return err
		}
	}
}

// give reads this host and writes its Snapshot.
func give(w *frames, far Far) error {
	var b []byte
	err := wait(func() (err error) { b, err = far.Snapshot(); return err }, func() error { return w.put(frame{Sent: new(int), Left: new(int)}) })
	if err != nil {
		return w.put(frame{Problem: err.Error()})
	}
	size := len(b)
	if err := w.put(frame{Size: &size}); err != nil {
		return err
	}
	return w.raw(b)
}

func look(ctx context.Context, b []byte, w *frames, far Far) error {
	problem := func(err error) error { return w.put(frame{Problem: err.Error()}) }
	e, err := probe.DecodeErrand(b)
	if err != nil {
		return problem(err)
	}
	spec, err := e.Spec()
	if err != nil {
		return problem(err)
	}
	hops, err := e.Traced()
	if err != nil {
		return problem(err)
	}
	most, err := e.Limit()
	if err != nil {
		return problem(err)
	}
	p := &parts{begin: time.Now(), soak: e.Soak > 0, left: most * partsOf, at: map[netip.Addr]time.Time{}, next: map[netip.Addr]json.RawMessage{}}
	o := verify.Options{Spec: spec, Variants: e.Variants, Chains: e.Chains, Hops: hops, Connect: e.Connect, Together: e.Together, Rate: e.Rate, Patience: e.Patience, Path: e.Path, Soak: e.Soak, Look: p.look}
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
	p.raw = r.Raw()
	far.Seal(r.Raw())
	if err := r.Know(&probe.Saved{Addresses: e.Known}); err != nil {
		return problem(err)
	}
	err = wait(func() error { return r.Do(ctx) }, func() error {
		mu.Lock()
		s, l := sent, left
		mu.Unlock()
		for _, b := range p.take() {
			if err := w.put(frame{Part: b}); err != nil {
				return err
			}
		}
		return w.put(frame{Sent: &s, Left: &l})
	})
	if err != nil {
		return problem(err)
	}
	c, err := json.Marshal(probe.NewClaim(r.Found(), r.Raw()))
	if err != nil {
		return problem(err)
	}
	return w.put(frame{Claim: c})
}

// partsOf is how many times the size of a whole claim its parts may have together.
const partsOf = 8

// parts are what is known so far, for the case that the line is cut.
type parts struct {
	begin time.Time
	raw   bool
	soak  bool // something else goes on when an address is done
	mu    sync.Mutex
	left  int // how many bytes may still be sent
	at    map[netip.Addr]time.Time
	next  map[netip.Addr]json.RawMessage
}

// look is told what is known of an address. What is sent again and again is sent ever more
// seldom, so that an eighth of the time is lost at most, and a long run does not fill the line.
func (p *parts) look(a *probe.Address, settled bool) {
	p.mu.Lock()
	last, ever := p.at[a.Addr]
	p.mu.Unlock()
	if ever && !settled && time.Since(last) < time.Since(p.begin)/8 {
		return
	}
	c := probe.NewClaim([]*probe.Address{a}, p.raw)
	c.Addresses[0].Complete = a.Complete && !p.soak
	b, err := json.Marshal(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && len(b) < p.left {
		p.left -= len(b)
		p.at[a.Addr], p.next[a.Addr] = time.Now(), b
	}
}

// take are the parts that were not sent yet.
func (p *parts) take() map[netip.Addr]json.RawMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.next
	p.next = map[netip.Addr]json.RawMessage{}
	return out
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
	return f.flush()
}

// raw writes bytes that are announced.
func (f *frames) raw(b []byte) error {
	if _, err := f.w.Write(b); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return f.flush()
}

func (f *frames) flush() error {
	if err := f.w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
