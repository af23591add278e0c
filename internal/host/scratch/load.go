package scratch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/host/run"
)

// maxRounds bounds how often scripts are tried anew because they name an interface that
// was not found beforehand; maxStubs how many there may be.
const (
	maxRounds = 24
	maxStubs  = 2048
)

// madeIndex is the first number of an interface that is made up.
const madeIndex = 1 << 28

// loader works inside the helper.
type loader struct {
	tool    *tool
	r       request
	stubs   map[string]uint32 // made, by name
	made    []string          // of them, those that the host does not have
	link    *netlink.Conn
	refused map[string]string // files that nft may not read: why
	texts   map[string][]byte
	items   map[string][]item // of JSON
	lost    []string          // what it lost
}

// load loads the scripts and dumps what the kernel then holds.
func (l *loader) load(texts [][]byte, send func(kind byte, b []byte)) end {
	problems, err := l.prepare(texts)
	if err != nil {
		return end{Failure: &failure{Why: err.Error(), Hint: snapshotHint}}
	}
	if len(problems) > 0 {
		return end{Problems: l.explain(problems)}
	}
	var e end
	for round := 0; ; round++ {
		problems, err := l.scripts()
		if err != nil {
			return end{Failure: &failure{Why: err.Error(), Hint: snapshotHint}}
		}
		if len(problems) == 0 {
			break
		}
		more := l.missing(problems)
		grown, err := l.stubAll(more)
		if err != nil {
			return end{Failure: &failure{Why: err.Error(), Hint: snapshotHint}}
		}
		if grown == 0 || round == maxRounds {
			return end{Problems: l.explain(problems)}
		}
		if err := l.flush(); err != nil {
			return end{Failure: &failure{Why: err.Error(), Hint: snapshotHint}}
		}
	}
	present := func(m string) bool { return m == "nfnetlink" || m == "nf_tables" }
	known := packetfilter.ReadNFTables(ask.New(present, false), ask.NewBudget("ruleset", maxTime, 20_000_000, maxAnswer), maxElements)
	n, ok := known.Get()
	if g, gap := known.Gap(); gap {
		return end{Failure: &failure{Why: "read the ruleset back: " + g.What, Hint: snapshotHint}}
	}
	if ok {
		if n.Truncated != nil {
			return end{Failure: &failure{Why: "read the ruleset back: " + n.Truncated.What, Hint: "the ruleset is too large to be read here; " + snapshotHint}}
		}
		for _, part := range []struct {
			kind byte
			msgs [][]byte
		}{{frameTable, n.Tables}, {frameChain, n.Chains}, {frameSet, n.Sets}, {frameRule, n.Rules}, {frameObject, n.Objects}, {frameElement, n.Elements}} {
			for _, m := range part.msgs {
				send(part.kind, m)
			}
		}
		e.Generation, e.Unexpanded = n.Generation, n.Unexpanded
	}
	e.Interfaces = map[uint32]string{1: "lo"}
	for name, i := range l.stubs {
		e.Interfaces[i] = name
	}
	e.Made, e.Opaque = l.made, l.lost
	return e
}

// prepare writes the files and makes the interfaces that the scripts seem to name.
func (l *loader) prepare(texts [][]byte) ([]problem, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	l.link, l.refused, l.texts, l.items = c, map[string]string{}, map[string][]byte{}, map[string][]item{}
	for i, f := range l.r.Files {
		mode := uint32(0o444)
		if f.Refused != "" {
			mode, l.refused[f.Path] = 0, f.Refused
		}
		l.texts[f.Path] = texts[i]
		if slices.ContainsFunc(l.r.Scripts, func(s requestScript) bool { return s.JSON && s.Path == f.Path }) {
			items, lost, err := jsonRules(texts[i])
			if err != nil {
				return []problem{{Problem: Problem{File: f.Path, Reason: err.Error(), Advice: "give the output of nft -j list ruleset as it is"}}}, nil
			}
			l.items[f.Path], texts[i] = items, document(items)
			l.lost = append(l.lost, lost...)
		} else if p := commentedOut(f.Path, texts[i]); p != nil {
			return []problem{*p}, nil
		}
		if err := place(f.Path, texts[i], 0); err != nil {
			return nil, fmt.Errorf("copy %s: %w", f.Path, err)
		}
		if err := unix.Chmod(f.Path, mode); err != nil {
			return nil, fmt.Errorf("copy %s: %w", f.Path, err)
		}
	}
	for i := range l.r.Scripts {
		s := &l.r.Scripts[i]
		if s.Dir == "" {
			s.Dir = inputDir
		}
	}
	var names []string
	for _, s := range l.r.Scripts {
		if s.JSON {
			names = append(names, namesInJSON(l.texts[s.Path])...)
		}
	}
	for _, f := range l.r.Files {
		if !slices.ContainsFunc(l.r.Scripts, func(s requestScript) bool { return s.JSON && s.Path == f.Path }) {
			names = append(names, namesInScript(l.texts[f.Path])...)
		}
	}
	_, err = l.stubAll(names)
	return nil, err
}

// stubAll makes the interfaces that are not there yet, and says how many it made.
func (l *loader) stubAll(names []string) (int, error) {
	n := 0
	for _, name := range names {
		if _, ok := l.stubs[name]; ok || name == "lo" || !validName(name) || len(l.stubs) >= maxStubs {
			continue
		}
		index, here := uint32(0), false
		for _, i := range l.r.Interfaces {
			if i.Name == name {
				index, here = i.Index, true
			}
		}
		if !here {
			// A number that no interface of the host has, and no script means by chance.
			index = madeIndex + uint32(len(l.made))
		}
		got, err := l.stub(name, index)
		if err != nil {
			return n, err
		}
		if index != 0 && got != index {
			return n, fmt.Errorf("interface %s has number %d on its host, and here that number is taken", name, index)
		}
		if !here {
			l.made = append(l.made, name)
		}
		l.stubs[name] = got
		n++
	}
	return n, nil
}

// scripts runs nft for each; it stops at the first that is refused.
func (l *loader) scripts() ([]problem, error) {
	for _, s := range l.r.Scripts {
		args := []string{"-I", s.Dir, "-f", s.Path}
		if s.JSON {
			args = append([]string{"-j"}, args...)
		}
		res, err := l.nft(s.Dir, args...)
		switch {
		case errors.Is(err, run.ErrTime):
			return []problem{{Problem: Problem{File: s.Path, Reason: "nft took longer than it may", Advice: "split the ruleset, or " + snapshotHint}}}, nil
		case err != nil:
			return nil, err
		case res.Exit == 0 && len(bytes.TrimSpace(res.Stderr)) == 0:
			continue
		case res.Signal == syscall.SIGXCPU || res.Signal == syscall.SIGKILL:
			return []problem{{Problem: Problem{File: s.Path, Reason: "nft took more processor time than it may", Advice: "split the ruleset, or " + snapshotHint}}}, nil
		case res.Signal != 0:
			return []problem{{Problem: Problem{File: s.Path, Reason: "nft crashed: " + res.Signal.String(), Advice: "this is a fault of nft: try a newer one, or " + snapshotHint}}}, nil
		}
		list := parseProblems(res.Stderr)
		if res.Exit == 0 {
			// nft went on after a complaint: only warnings may do that.
			list = slices.DeleteFunc(list, func(p problem) bool { return p.warning })
			if len(list) == 0 {
				continue
			}
		}
		if len(list) == 0 {
			why := trimmed(res.Stderr, 300)
			if why == "" {
				why = fmt.Sprintf("nft ended with code %d and without a word", res.Exit)
			}
			list = []problem{{Problem: Problem{File: s.Path, Reason: why}}}
		}
		for i := range list {
			if list[i].File == "" || list[i].File == "internal" {
				list[i].File = s.Path
			}
		}
		if s.JSON {
			list = l.locate(s, list)
		}
		return list, nil
	}
	return nil, nil
}

// locate finds the object of a JSON list that is refused, since nft does not say: the
// last one of the shortest beginning that is.
func (l *loader) locate(s requestScript, list []problem) []problem {
	items := l.items[s.Path]
	if slices.ContainsFunc(list, func(p problem) bool { return strings.Contains(p.Reason, "Interface does not exist") }) || len(items) == 0 {
		return list
	}
	path := inputDir + "/part"
	deadline := time.Now().Add(maxTime / 4)
	first := sort.Search(len(items), func(n int) bool {
		if n+1 == len(items) || time.Now().After(deadline) || l.flush() != nil {
			return true
		}
		if err := os.WriteFile(path, document(items[:n+1]), 0o600); err != nil {
			return true
		}
		r, err := l.nft(s.Dir, "-j", "-f", path)
		return err != nil || r.Exit != 0
	})
	if first < len(items) && time.Now().Before(deadline) {
		list[0].Text = fmt.Sprintf("{%q: %s}", items[first].kind, trimmed(items[first].raw, 300))
	}
	return list[:1]
}

func (l *loader) flush() error {
	r, err := l.nft(inputDir, "flush", "ruleset")
	if err == nil && r.Exit != 0 {
		err = errors.New(trimmed(r.Stderr, 200))
	}
	if err != nil {
		return fmt.Errorf("start anew: %w", err)
	}
	return nil
}

// nft runs nft once, on a thread of its own with its system calls watched.
func (l *loader) nft(dir string, args ...string) (run.Result, error) {
	type answer struct {
		r   run.Result
		err error
	}
	done := make(chan answer)
	go func() {
		runtime.LockOSThread() // never unlocked: the filter must not stay
		if err := confine(); err != nil {
			done <- answer{err: err}
			return
		}
		stop, wg := make(chan struct{}), &sync.WaitGroup{}
		// Without it (an old kernel) only large scripts fail, and say so.
		if listener, err := intercept(); err == nil {
			wg.Add(1)
			go attend(listener, stop, wg)
			defer unix.Close(listener)
		}
		r, err := run.Run(context.Background(), run.Program{
			Path: l.tool.path, Name: "nft", Args: args, Env: l.tool.env, Dir: filepath.Clean(dir),
			Timeout: maxTime - 10*time.Second, MaxOutput: 1 << 20,
			Limits: []run.Limit{
				{Resource: unix.RLIMIT_AS, Value: l.r.Memory},
				{Resource: unix.RLIMIT_CPU, Value: maxCPU},
				{Resource: unix.RLIMIT_NOFILE, Value: 64},
				{Resource: unix.RLIMIT_NPROC, Value: 0},
			},
		})
		close(stop)
		wg.Wait()
		done <- answer{r, err}
	}()
	a := <-done
	return a.r, a.err
}
