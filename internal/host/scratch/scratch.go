// Package scratch lets the kernel itself read a ruleset: it loads nft scripts into a
// throw-away network namespace and returns the messages that the kernel then dumps,
// the same that host/collect/packetfilter reads on a live host.
//
// The caller's namespaces are never touched. A script may be a stranger's, so that
// nft runs as nobody (or as the caller, who is no root) in user, network, mount, PID,
// IPC and UTS namespaces of its own, with no file system but its own libraries, a few
// public lists of names and copies of the script and of what it includes, without any
// capability but CAP_NET_ADMIN over its empty network, with bounds on memory, time
// and files. All of it is in memory and in namespaces that die with the process.
//
// The program starts itself anew for that (see helper.go). Use it in two steps where
// the process gives up its rights before it interprets anything:
//
//	s, err := scratch.Start()      // with rights: namespaces are made
//	err = script.Gather()          // with rights: included files are read
//	sandbox.Seal(…)
//	l, err := s.Load(ctx, scratch.Options{Scripts: …})
//
// or in one, with Load.
package scratch

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Limits of a load.
const (
	// maxTime bounds a load as a whole; nft's share of processor time is less.
	maxTime = 2 * time.Minute
	// maxMemory bounds the address space of nft, in bytes. A hundred thousand rules
	// take a fifth of it.
	maxMemory = 2 << 30
	// maxCPU bounds the processor time of one run of nft, in seconds.
	maxCPU = 90
	// maxAnswer bounds what the helper may answer, in bytes.
	maxAnswer = 2 << 30
	// maxElements is how many elements of one set are read.
	maxElements = 2_000_000
)

// Script is one file of rules.
type Script struct {
	Name string // as the user wrote it: what messages say
	// Path is where the file is; its directory is what the script may include from.
	// Empty: standard input or text made here, which may include nothing.
	Path string
	Text []byte
	JSON bool // what `nft -j list ruleset` prints

	files []file // included ones, by Gather
	bare  string // a note of Gather
}

// Interface is a network interface that rules may name.
type Interface struct {
	Name  string
	Index uint32 // 0: any
}

// Options of Load.
type Options struct {
	Scripts []Script // loaded in this order, each a transaction
	// Interfaces are those of the host that the rules are for: a rule that names one by
	// number (iif, oif) gets the same number. Others that the scripts name are made up.
	Interfaces []Interface

	memory uint64 // of nft, in bytes; 0: maxMemory
}

// Loaded is a ruleset as the kernel holds it.
type Loaded struct {
	NFTables fact.NFTables
	// Interfaces are the stand-ins that rules refer to, and lo, by index.
	Interfaces map[uint32]string
	// Made are the interfaces that the scripts name and Options.Interfaces did not have.
	Made []string
	// Opaque describes what JSON lost, by rule: such a rule holds an expression that
	// no decoder knows.
	Opaque []string
	// Notes are what the scripts leave to this machine: names of its users, and where
	// includes are looked for.
	Notes []string
}

// UnavailableError tells that nothing could be loaded here, whatever the scripts say.
type UnavailableError struct{ Why, Hint string }

// Error implements error.
func (e *UnavailableError) Error() string { return e.Why }

// Problem is one reason why a script was refused.
type Problem struct {
	File         string
	Line, Column int    // from 1; 0: not known
	Text         string // the line
	Reason       string // nft's words
	Advice       string // what to do, where it is known
}

// String is "FILE:LINE: reason: text".
func (p Problem) String() string {
	at := p.File
	if p.Line > 0 {
		at = fmt.Sprintf("%s:%d", p.File, p.Line)
		if p.Column > 0 {
			at += fmt.Sprintf(":%d", p.Column)
		}
	}
	s := at + ": " + p.Reason
	if t := strings.TrimSpace(p.Text); t != "" {
		s += ": " + t
	}
	return s
}

// RefusedError tells that nft or the kernel refused a script: nothing was loaded.
type RefusedError struct{ Problems []Problem }

// Error implements error: the first problem, and how many more there are.
func (e *RefusedError) Error() string {
	if len(e.Problems) == 0 {
		return "nft refused it without a reason"
	}
	s := e.Problems[0].String()
	if n := len(e.Problems) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}

// Load reads what the scripts include, loads them and returns what the kernel holds.
// The errors are *UnavailableError, *RefusedError, or a failure of the helper.
func Load(ctx context.Context, o Options) (*Loaded, error) {
	for i := range o.Scripts {
		if err := o.Scripts[i].Gather(); err != nil {
			return nil, err
		}
	}
	s, err := Start()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Load(ctx, o)
}

// Session is a namespace that waits for its scripts.
type Session struct {
	p     *run.Apart
	out   *bufio.Reader
	kinds []string // of interfaces, that can be made
}

// Start makes the namespace. It needs no right but to make user namespaces.
func Start() (*Session, error) {
	if run.Inside() {
		return nil, errors.New("start scratch namespace: already inside one")
	}
	nft := findNFT()
	if nft == "" {
		return nil, &UnavailableError{"nft is not installed here, and only it reads nft scripts", "install the package nftables, or take a Snapshot where the rules run: sixfence snapshot -o FILE"}
	}
	stand, err := present()
	if err != nil {
		return nil, err
	}
	p, err := self.Start(nft)
	if err != nil {
		return nil, unavailable(err)
	}
	s := &Session{p: p, out: bufio.NewReaderSize(p.Out, 1<<16), kinds: stand}
	kind, b, err := readFrame(s.out, 1<<20)
	switch {
	case err != nil:
		why := strings.TrimSpace(p.Close())
		if why == "" {
			why = err.Error()
		}
		return nil, fmt.Errorf("start scratch namespace: %s", why)
	case kind == frameSetup:
		_ = p.Close()
		var f failure
		if json.Unmarshal(b, &f) != nil || f.Why == "" {
			f.Why = "the scratch namespace could not be set up"
		}
		if f.Errno != 0 {
			return nil, unavailable(fmt.Errorf("%s: %w", f.Why, unix.Errno(f.Errno)))
		}
		return nil, &UnavailableError{f.Why, snapshotHint}
	case kind != frameReady:
		_ = p.Close()
		return nil, errors.New("start scratch namespace: the helper says something else than ready")
	}
	return s, nil
}

const snapshotHint = "take a Snapshot where the rules run, and give it instead: sixfence snapshot -o FILE"

// unavailable explains why namespaces could not be made.
func unavailable(err error) error {
	why := "nft scripts are read in a throw-away namespace, and this system does not let us make one"
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		hint := "user namespaces are forbidden here (a container, AppArmor, user.max_user_namespaces or kernel.unprivileged_userns_clone); allow them, try as root on the host, or " + snapshotHint
		if os.Geteuid() == 0 {
			hint = "user namespaces are forbidden here (a container's seccomp filter, or user.max_user_namespaces); allow them, or " + snapshotHint
		}
		return &UnavailableError{why + ": " + err.Error(), hint}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return &UnavailableError{why + ": this kernel has no user namespaces: " + err.Error(), snapshotHint}
	}
	return &UnavailableError{why + ": " + err.Error(), snapshotHint}
}

// Close ends the namespace.
func (s *Session) Close() {
	if s.p != nil {
		_ = s.p.Close()
		s.p = nil
	}
}

// Load loads the scripts, once a Session. What comes back was made by the scripts:
// it is as hostile as they are.
func (s *Session) Load(ctx context.Context, o Options) (*Loaded, error) {
	ctx, cancel := context.WithTimeout(ctx, maxTime+10*time.Second)
	defer cancel()
	type answer struct {
		l   *Loaded
		err error
	}
	done := make(chan answer, 1)
	go func() {
		if err := s.send(o); err != nil {
			done <- answer{nil, &deadError{err}} // nobody reads the request
			return
		}
		l, err := s.receive()
		done <- answer{l, err}
	}()
	select {
	case a := <-done:
		var died *deadError
		if errors.As(a.err, &died) {
			a.err = died.because(strings.TrimSpace(s.p.Close()))
			s.p = nil
		}
		for i := range o.Scripts {
			rename(a.err, &o.Scripts[i])
			if a.err == nil {
				a.l.Notes = append(a.l.Notes, o.Scripts[i].notes()...)
			}
		}
		return a.l, a.err
	case <-ctx.Done():
		s.Close()
		return nil, tooLong
	}
}

// request is what the helper is asked; the texts follow, one frame a file.
type request struct {
	Files      []requestFile
	Scripts    []requestScript
	Interfaces []Interface
	Kinds      []string
	Memory     uint64
}

type requestFile struct {
	Path    string
	Refused string // it exists and may not be read: why
}

type requestScript struct {
	Path string
	JSON bool
	Dir  string // "": it may include nothing
}

// inputDir is where text without a file goes.
const inputDir = "/.sixfence/input"

func (s *Script) place(i int) string {
	if s.Path != "" {
		return s.Path
	}
	return fmt.Sprintf("%s/%d", inputDir, i)
}

func (s *Session) send(o Options) error {
	var r request
	var texts [][]byte
	seen := map[string]bool{}
	add := func(f file) {
		if !seen[f.path] {
			seen[f.path] = true
			r.Files = append(r.Files, requestFile{f.path, f.refused})
			texts = append(texts, f.text)
		}
	}
	for i := range o.Scripts {
		x := &o.Scripts[i]
		p := x.place(i)
		add(file{path: p, text: x.Text})
		for _, f := range x.files {
			add(f)
		}
		r.Scripts = append(r.Scripts, requestScript{Path: p, JSON: x.JSON, Dir: x.dir()})
	}
	r.Interfaces, r.Kinds, r.Memory = o.Interfaces, s.kinds, cmp.Or(o.memory, maxMemory)
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	w := bufio.NewWriterSize(s.p.In, 1<<16)
	writeFrame(w, frameRequest, b)
	for _, t := range texts {
		writeFrame(w, frameText, t)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	return nil
}

// deadError tells that the helper ended without an answer.
type deadError struct{ err error }

func (e *deadError) Error() string { return "load ruleset: the helper ended: " + e.err.Error() }
func (e *deadError) Unwrap() error { return e.err }

// tooLong tells which bound was met.
var tooLong = &UnavailableError{
	fmt.Sprintf("the kernel took longer to load and list the rules than the %d minutes they may take", int(maxTime.Minutes())),
	"many thousands of sets in one table take it long (`{ 22, 80 }` in a rule is a set as well): use fewer, named ones, split the ruleset, or " + snapshotHint,
}

// because explains it by what the helper wrote to standard error.
func (e *deadError) because(said string) error {
	switch {
	case strings.HasSuffix(said, run.OutOfTime):
		return tooLong
	case said == "":
		return &UnavailableError{
			"the program that loads the rules was ended from outside, most likely because memory ran out: " + e.err.Error(),
			"free some memory, or " + snapshotHint,
		}
	}
	return fmt.Errorf("load ruleset: %s", said)
}

// end is the helper's last word.
type end struct {
	Interfaces map[uint32]string
	Made       []string
	Opaque     []string
	Failure    *failure
	Problems   []Problem
	Unexpanded []fact.UnexpandedSet
	Truncated  *fact.Gap
	Generation uint32
}

// failure is an error on its way to the caller.
type failure struct {
	Why   string
	Hint  string
	Errno int
}

func (s *Session) receive() (*Loaded, error) {
	l := &Loaded{}
	n := &l.NFTables
	to := map[byte]*[][]byte{
		frameTable: &n.Tables, frameChain: &n.Chains, frameRule: &n.Rules,
		frameSet: &n.Sets, frameElement: &n.Elements, frameObject: &n.Objects,
	}
	for left := maxAnswer; ; {
		kind, b, err := readFrame(s.out, left)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, &deadError{err}
			}
			return nil, fmt.Errorf("load ruleset: %w", err)
		}
		left -= len(b) + frameHeader
		if list := to[kind]; list != nil {
			*list = append(*list, b)
			continue
		}
		if kind != frameEnd {
			return nil, fmt.Errorf("load ruleset: the helper says something unknown (%q)", kind)
		}
		var e end
		if err := json.Unmarshal(b, &e); err != nil {
			return nil, fmt.Errorf("load ruleset: %w", err)
		}
		switch {
		case len(e.Problems) > 0:
			return nil, &RefusedError{e.Problems}
		case e.Failure != nil:
			return nil, &UnavailableError{e.Failure.Why, e.Failure.Hint}
		}
		n.ElementsRead, n.Generation, n.Unexpanded, n.Truncated = true, e.Generation, e.Unexpanded, e.Truncated
		l.Interfaces, l.Made, l.Opaque = e.Interfaces, e.Made, e.Opaque
		markOpaque(n)
		return l, nil
	}
}

// rename says a script's name as the user wrote it.
func rename(err error, s *Script) {
	var r *RefusedError
	if !errors.As(err, &r) {
		return
	}
	for i := range r.Problems {
		p := &r.Problems[i]
		p.File = s.display(p.File)
		p.Reason = s.displayIn(p.Reason)
	}
}

// findNFT looks where distributions put it; $PATH has no say.
func findNFT() string {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/run/current-system/sw/bin"} {
		p := dir + "/nft"
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}
