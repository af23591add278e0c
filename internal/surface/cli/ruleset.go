package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// maxRuleset bounds a ruleset file.
const maxRuleset = 256 << 20

// spaces are the namespaces that a question may be about.
type spaces struct {
	snap *fact.Snapshot // nil: a ruleset file
	all  []*fact.Namespace
	mu   sync.Mutex
	made map[string]*reach.Space
	only *reach.Space // of a ruleset file
}

// rulesOptions say where rules come from.
type rulesOptions struct{ snapshot, ruleset string }

func (o *rulesOptions) check() error {
	if o.snapshot != "" && o.ruleset != "" {
		return &usageError{msg: "--snapshot and --ruleset exclude each other", hint: "a Snapshot has its own ruleset; --ruleset asks about a file"}
	}
	return nil
}

// rules reads the rules to ask about. On return the process is sealed.
func (a *app) rules(o rulesOptions, out *store.Output, quiet bool) (*spaces, error) {
	if o.ruleset != "" {
		b, err := a.readFile(o.ruleset)
		if err != nil {
			return nil, err
		}
		return a.parseRules(o.ruleset, b, &sink{file: out})
	}
	snap, err := a.facts(source{snapshot: o.snapshot, elements: true}, out, quiet)
	if err != nil {
		return nil, err
	}
	return spacesOf(snap), nil
}

func spacesOf(snap *fact.Snapshot) *spaces {
	s := &spaces{snap: snap, made: map[string]*reach.Space{}}
	for i := range snap.Namespaces {
		s.all = append(s.all, &snap.Namespaces[i])
	}
	return s
}

// get returns a namespace by its name; "" is the host's own.
func (s *spaces) get(name string) (*reach.Space, error) {
	if s.only != nil {
		return s.only, nil
	}
	if name == "" {
		name = s.home()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp := s.made[name]; sp != nil {
		return sp, nil
	}
	for _, n := range s.all {
		if n.Name == name {
			sp := reach.NewSpace(s.snap, n, nil, false)
			s.made[name] = sp
			return sp, nil
		}
	}
	return nil, &usageError{msg: fmt.Sprintf("no network namespace %q", name), hint: "known: " + strings.Join(s.names(), ", ")}
}

func (s *spaces) home() string {
	for _, n := range s.all {
		if n.IsSelf {
			return n.Name
		}
	}
	for _, n := range s.all {
		if n.IsInit {
			return n.Name
		}
	}
	if len(s.all) > 0 {
		return s.all[0].Name
	}
	return "init"
}

func (s *spaces) names() []string {
	var out []string
	for i, n := range s.all {
		if i == 16 {
			return append(out, fmt.Sprintf("and %d more", len(s.all)-i))
		}
		out = append(out, n.Name)
	}
	return out
}

func (a *app) readFile(path string) ([]byte, error) {
	var in io.Reader = a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, &usageError{msg: "read ruleset", cause: err, hint: "give an nft script, the output of `nft -j list ruleset`, or of iptables-save"}
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxRuleset+1))
	if err != nil {
		return nil, &usageError{msg: "read ruleset", cause: err, hint: "check the path"}
	}
	if len(b) > maxRuleset {
		return nil, &usageError{msg: fmt.Sprintf("ruleset %s is larger than %d MiB", path, maxRuleset>>20), hint: "take a snapshot instead: sixfence snapshot"}
	}
	return b, nil
}

// errNoLoader is returned for a format that this build cannot read.
var errNoLoader = errors.New("this format is not read by this build")

func isSnapshot(b []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) && bytes.Contains(b[:min(len(b), 4096)], []byte(`"schemaVersion"`))
}

// parseRules turns a file into what can be asked. The process is sealed before the
// file is interpreted.
func (a *app) parseRules(path string, b []byte, out *sink) (*spaces, error) {
	var file *store.Output
	if out != nil {
		file = out.file
	}
	if isSnapshot(b) {
		a.seal(sealing{output: file})
		snap, err := store.ReadSnapshot(bytes.NewReader(b), path, 0)
		if err != nil {
			return nil, err
		}
		return spacesOf(snap), nil
	}
	sp, err := a.parseRuleset(path, b, file)
	if err != nil {
		return nil, err
	}
	return &spaces{only: sp}, nil
}

func (a *app) parseRuleset(path string, b []byte, out *store.Output) (*reach.Space, error) {
	return nil, &usageError{msg: "read ruleset " + path, cause: errNoLoader, hint: "take a snapshot on the host: sixfence snapshot -o FILE"}
}
