package vantage

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// How long the other side may keep silent, and how much it may say.
const (
	helloTime  = 90 * time.Second // connecting and logging in
	uploadTime = 15 * time.Minute
	arriveTime = 3 * time.Minute // what ssh and the kernel have taken and not yet sent
	aliveTime  = 5 * time.Second
	stopTime   = 20 * time.Second
	maxHello   = 64 << 10 // what login scripts print
	maxSteps   = 64       // lines of our own script
	maxStep    = 4 << 10
	maxTotal   = 8 << 20 // beside the claim
	grace      = 5 * time.Second
)

// quietTime is how long each side waits for a sign of the other. One is sent every
// aliveTime. A test shortens it.
var quietTime = 60 * time.Second

// frame is a line that the program there prints.
type frame struct {
	Ready *int `json:"ready,omitempty"` // its version of this protocol
	Sent  *int `json:"sent,omitempty"`
	Left  *int `json:"left,omitempty"`
	// Problem is why there is no claim.
	Problem string          `json:"problem,omitempty"`
	Claim   json.RawMessage `json:"claim,omitempty"`
	// Part is what is known so far of some addresses.
	Part json.RawMessage `json:"part,omitempty"`
	// Size bytes follow: a Snapshot.
	Size *int `json:"size,omitempty"`
}

// protocol is the version of the frames.
const protocol = 2

// Session is an ssh that runs.
type Session struct {
	Place   Place
	program *Program
	nonce   string
	ssh     *run.Piped
	out     *bufio.Reader
	total   int
	most    int    // how much it may say
	doing   string // in words, for an error
	write   sync.Mutex

	mu       sync.Mutex
	watch    *time.Timer
	stopping bool // no more time is given
	why      error
}

// Open starts ssh, and waits for nothing. The program may be shared by sessions, and must
// stay open.
func Open(p Place, prog *Program) (*Session, error) {
	path, err := findSSH()
	if err != nil {
		return nil, err
	}
	var r [16]byte
	_, _ = rand.Read(r[:])
	s := &Session{Place: p, program: prog, nonce: hex.EncodeToString(r[:]), most: maxTotal}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	for _, k := range []string{"HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK", "KRB5CCNAME"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	if s.ssh, err = run.StartPiped(run.Program{Path: path, Args: p.arguments(), Env: env}); err != nil {
		return nil, fmt.Errorf("start ssh: %w", err)
	}
	s.out = bufio.NewReaderSize(s.ssh.Out, 64<<10)
	return s, nil
}

// Close ends the session: the far end goes when its input ends.
func (s *Session) Close() { _, _ = s.ssh.Close(grace) }

// allow gives the other side so much time for its next sign, or ends the session with
// why.
func (s *Session) allow(d time.Duration, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	if s.watch != nil {
		s.watch.Stop()
	}
	s.watch = time.AfterFunc(d, func() {
		s.mu.Lock()
		s.why = errors.New(why)
		s.mu.Unlock()
		s.ssh.Kill()
	})
}

// Heard is told what the other side says before its answer. Each may be nil.
type Heard struct {
	Progress func(sent, left int)
	// Part is what it claims about some addresses so far.
	Part func(as []*probe.Address)
}

// breach is what a side that keeps to the protocol does not do: nothing that it has said
// is believed.
type breach struct{ error }

func (b breach) Unwrap() error { return b.error }

// Ask lets the other side look, and reads what it says. When ctx ends it is told to stop,
// and what it knows by then is the answer. With an error stands what was said before the
// line was cut, or nothing.
func (s *Session) Ask(ctx context.Context, e probe.Errand, heard Heard) (as []*probe.Address, raw bool, err error) {
	most, err := e.Limit()
	if err != nil {
		return nil, false, err
	}
	s.doing = "look"
	s.most += (partsOf + 1) * most
	said := map[netip.Addr]*probe.Address{}
	line := func() ([]byte, error) {
		b, err := json.Marshal(e)
		if len(b) > maxErrand && err == nil { // it is asked again
			e.Known = nil
			b, err = json.Marshal(e)
		}
		return b, err
	}
	err = s.errand(ctx, line, most+1024, func(f frame) (done bool, err error) {
		switch {
		case f.Claim != nil:
			if as, raw, err = probe.DecodeClaim(f.Claim, &e); err != nil {
				return false, breach{fmt.Errorf("what it says cannot be believed: %w", err)}
			}
			return true, nil
		case f.Part != nil:
			var some []*probe.Address
			if some, raw, err = probe.DecodePart(f.Part, &e); err != nil {
				return false, breach{fmt.Errorf("what it says cannot be believed: %w", err)}
			}
			for _, a := range some {
				said[a.Addr] = a
			}
			if heard.Part != nil {
				heard.Part(some)
			}
		case f.Sent != nil && f.Left != nil && heard.Progress != nil && *f.Sent >= 0 && *f.Left >= 0:
			heard.Progress(*f.Sent, *f.Left)
		}
		return false, nil
	})
	switch {
	case err == nil:
		return as, raw, nil
	case errors.As(err, &breach{}) || len(said) == 0:
		return nil, false, err
	}
	for _, a := range e.Addresses { // in the order of the errand, with those of which nothing was said
		if said[a] == nil {
			said[a] = &probe.Address{Addr: a}
		}
		as = append(as, said[a])
	}
	return as, raw, err
}

// Snapshot reads the host at the other side, as the user that ssh logs in there.
func (s *Session) Snapshot(ctx context.Context) (b []byte, err error) {
	s.doing = "read a Snapshot"
	defer context.AfterFunc(ctx, s.ssh.Kill)()
	err = s.errand(ctx, func() ([]byte, error) { return []byte(takeSnapshot), nil }, maxStep, func(f frame) (done bool, err error) {
		if f.Size == nil {
			return false, nil
		}
		if *f.Size <= 0 || *f.Size > store.MaxSnapshot {
			return false, breach{fmt.Errorf("a Snapshot of %d bytes", *f.Size)}
		}
		s.allow(uploadTime, "the Snapshot did not arrive in time")
		// It may say that there is much and send little.
		b, err = io.ReadAll(io.LimitReader(s.out, int64(*f.Size)))
		if err == nil && len(b) < *f.Size {
			err = io.EOF
		}
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// errand brings the program there, gives it a line, and hands over each frame of no more
// than so many bytes until one is the answer.
func (s *Session) errand(ctx context.Context, line func() ([]byte, error), most int, frames func(frame) (done bool, err error)) (err error) {
	defer func() {
		s.mu.Lock()
		s.watch.Stop()
		s.mu.Unlock()
		if err != nil {
			err = s.explain(err)
		}
	}()
	s.allow(helloTime, "it did not answer in time")
	defer context.AfterFunc(ctx, func() {
		s.allow(stopTime, "it did not stop in time")
		s.mu.Lock()
		s.stopping = true
		s.mu.Unlock()
		s.send([]byte("stop\n"))
	})()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	s.allow(quietTime, "the program there does not start")
	stop := s.keepAlive()
	defer stop()
	asked := false
	for {
		b, err := readLine(s.out, most, s.count)
		if err != nil && !gone(err) {
			return breach{err}
		}
		if err != nil {
			return err
		}
		if rest, ok := s.mine(b); ok {
			return s.ended(rest)
		}
		var f frame
		if err := json.Unmarshal(b, &f); err != nil {
			return breach{fmt.Errorf("it speaks another language: %w", err)}
		}
		s.allow(quietTime, "nothing was heard of it for a minute")
		switch {
		case f.Problem != "":
			return &Error{Msg: "it could not " + s.doing + ": " + cut(f.Problem)}
		case f.Ready != nil:
			if *f.Ready != protocol || asked {
				return breach{fmt.Errorf("it speaks version %d of the protocol, and this is version %d", *f.Ready, protocol)}
			}
			asked = true
			b, err := line()
			if err != nil {
				return fmt.Errorf("encode errand: %w", err)
			}
			s.send(append(b, '\n'))
			if ctx.Err() != nil {
				s.send([]byte("stop\n"))
			}
		case !asked:
			return breach{errors.New("it answers before it is asked")}
		default:
			if done, err := frames(f); done || err != nil {
				return err
			}
		}
	}
}

// count bounds what is said.
func (s *Session) count(n int) error {
	if s.total += n; s.total > s.most {
		return errors.New("it talks too much")
	}
	return nil
}

// prepare brings the program there and starts it.
func (s *Session) prepare(ctx context.Context) error {
	s.send([]byte(scriptFor(s.nonce, s.program)))
	var no []string
	for range maxSteps {
		step, err := s.step()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("interrupted before it began")
		}
		switch word, rest, _ := strings.Cut(step, " "); word {
		case "hello":
			system, machine, _ := strings.Cut(rest, " ")
			if err := s.program.runs(system, machine); err != nil {
				return err
			}
			s.allow(quietTime, "it found no directory in time")
			s.send([]byte("go\n"))
		case "no":
			no = append(no, rest)
		case "nowhere":
			return &Error{Msg: "there is no directory there to run a program in: " + strings.Join(no, "; "), Hint: "make room, or one of them executable; TMPDIR there may name another"}
		case "send":
			s.allow(uploadTime, "the program was not copied in time")
			go s.upload()
		case "short":
			return &Error{Msg: "the program could not be written there", Hint: "is the disk full?"}
		case "nohash":
			return &Error{Msg: "nothing there can check a hash", Hint: "install sha256sum (coreutils) or openssl there"}
		case "changed":
			return &Error{Msg: "the program came out there with another hash, and was not run", Hint: "is the disk full? otherwise something on the way, or that host, changes what is sent"}
		case "run":
			return nil
		default:
			return s.ended(step)
		}
	}
	return errors.New("it goes round in circles")
}

// upload sends the program. When the other side does not want it any more, it says so.
func (s *Session) upload() {
	s.write.Lock()
	defer s.write.Unlock()
	if _, err := io.Copy(s.ssh.In, io.NewSectionReader(s.program.file, 0, s.program.size)); err == nil {
		s.allow(arriveTime, "the program did not arrive there in time")
	}
}

// send writes; an error shows when we read.
func (s *Session) send(b []byte) {
	s.write.Lock()
	defer s.write.Unlock()
	_, _ = s.ssh.In.Write(b)
}

// keepAlive says every few seconds that somebody is there: else the far end ends itself.
func (s *Session) keepAlive() (stop func()) {
	done := make(chan struct{})
	go func() {
		t := time.NewTicker(aliveTime)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				s.send([]byte("\n"))
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// step reads a line of our script; other lines before the first are those of a login.
func (s *Session) step() (string, error) {
	for {
		line, err := readLine(s.out, maxStep, s.count)
		if err != nil {
			return "", err
		}
		if rest, ok := s.mine(line); ok {
			return rest, nil
		}
		if s.total > maxHello {
			return "", errors.New("it prints other things than were asked for")
		}
	}
}

// mine is what a line of our script says.
func (s *Session) mine(line []byte) (string, bool) {
	return strings.CutPrefix(string(line), s.nonce+" ")
}

func (s *Session) ended(step string) error {
	switch step {
	case "exit 126", "exit 127":
		return &Error{Msg: "the program does not run there", Hint: "is that host of the same architecture, and may programs run where it was put?"}
	case "exit 0":
		return errors.New("it ended without an answer")
	}
	return fmt.Errorf("it ended: %.40q", step)
}

// gone tells that the line is.
func gone(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) }

// explain puts the end of a session into words: what we know, then what ssh says.
func (s *Session) explain(err error) error {
	lost := gone(err)
	patience := grace
	if !lost {
		patience = time.Second
	}
	exit, said := s.ssh.Close(patience)
	s.mu.Lock()
	why := s.why
	s.mu.Unlock()
	out := &Error{Msg: s.doing + " from " + s.Place.String(), Cause: err}
	if e := (*Error)(nil); errors.As(err, &e) {
		out.Hint = e.Hint
	}
	if why != nil {
		out.Cause = why
		lost = true
	} else if lost {
		out.Cause = errors.New("the connection ended")
	}
	if said = cut(said); said != "" && (lost || exit == 255) {
		out.Cause = fmt.Errorf("%w: ssh says: %s", out.Cause, said)
	}
	if !lost {
		return out
	}
	by := s.Place.Host
	switch {
	case strings.Contains(said, "host key is known"), strings.Contains(said, "Host key verification failed"), strings.Contains(said, "REMOTE HOST IDENTIFICATION"):
		out.Hint = "a key that is not known is never taken: connect once by hand (ssh " + by + "), compare the fingerprint, then try again"
	case strings.Contains(said, "Permission denied"), strings.Contains(said, "Too many authentication"):
		out.Hint = "nobody is asked for a password here: let a key or an agent open it (ssh -o BatchMode=yes " + by + " true must work)"
	case exit == 255:
		out.Hint = "see whether this works: ssh -o BatchMode=yes " + by + " true"
	case out.Hint == "":
		out.Hint = "see whether an ordinary shell answers there: ssh " + by + " uname -m"
	}
	return out
}

// cut is the end of what somebody said, on one line. Whoever shows it escapes it.
func cut(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	const most = 600
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return strings.ToValidUTF8(strings.TrimSpace(s), "\uFFFD")
}
