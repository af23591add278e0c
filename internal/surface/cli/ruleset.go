package cli

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// maxRuleset bounds the files of a ruleset together, in bytes.
const maxRuleset = 256 << 20

// spaces are the namespaces that a question may be about.
type spaces struct {
	snap *fact.Snapshot // nil: a ruleset without a host
	all  []*fact.Namespace
	home *fact.Namespace // nil: there is none
	mu   sync.Mutex
	made map[string]*reach.Space
	only *reach.Space // of a ruleset without a host
	// notes are what the files say about this machine instead of the host.
	notes []string
}

// rulesOptions say where rules come from, and the host that they are for.
type rulesOptions struct {
	snapshot string
	ruleset  []string
	netns    string
	expand   bool
}

// expandHelp is the help of --expand-sets.
const expandHelp = "read nf_tables sets of this host whole, up to 4194304 elements each, not 65536; the kernel may take minutes to list one"

func (o *rulesOptions) flags(cmd *cobra.Command, verb string) {
	f := cmd.Flags()
	f.StringVar(&o.snapshot, "snapshot", "", verb+" this Snapshot `FILE` (- is standard input) instead of the host")
	f.StringArrayVar(&o.ruleset, "ruleset", nil, "take the rules from this `FILE` (- is standard input): an nft script, `nft -j list ruleset`, iptables-save, ip6tables-save or ipset save; may be repeated, all files are one ruleset")
	f.StringVar(&o.netns, "netns", "", "only the network namespace `NAME`; by default the host's own for trace and --ruleset, all for reach")
	f.BoolVar(&o.expand, "expand-sets", false, expandHelp)
}

func (o *rulesOptions) check() error {
	in := 0
	for _, f := range append([]string{o.snapshot}, o.ruleset...) {
		if f == "-" {
			in++
		}
	}
	if in > 1 {
		return &usageError{msg: "standard input can be only one of the files", hint: "write the others to files"}
	}
	return nil
}

// usesStdin tells whether standard input is already taken.
func (o *rulesOptions) usesStdin() bool {
	for _, f := range o.ruleset {
		if f == "-" {
			return true
		}
	}
	return o.snapshot == "-"
}

// rules reads the rules to ask about. On return the process is sealed.
func (a *app) rules(o rulesOptions, out *store.Output, quiet bool) (*spaces, error) {
	if len(o.ruleset) == 0 {
		snap, err := a.facts(source{snapshot: o.snapshot, elements: true, expand: o.expand}, out, quiet)
		if err != nil {
			return nil, err
		}
		return spacesOf(snap), nil
	}
	files, err := a.prepare(o.ruleset)
	if err != nil {
		return nil, err
	}
	defer files.close()
	if o.snapshot == "" {
		return a.load(files, nil, "", out, quiet)
	}
	if files := files.files; files[0].format == formatSnapshot {
		return nil, &usageError{msg: "--ruleset " + files[0].name + " is a Snapshot, and --snapshot gives another", hint: "a Snapshot has its own rules: give it as --snapshot alone"}
	}
	in, name, done, err := a.input(o.snapshot)
	if err != nil {
		return nil, err
	}
	defer done()
	return a.load(files, func() (*fact.Snapshot, error) { return store.ReadSnapshot(in, name, 0) }, o.netns, out, quiet)
}

func spacesOf(snap *fact.Snapshot) *spaces {
	s := &spaces{snap: snap, home: snap.Home(), made: map[string]*reach.Space{}}
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
	n, err := s.namespace(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.made[n.Name]
	if sp == nil {
		sp = reach.NewSpace(s.snap, n, nil, false)
		forget(n)
		s.made[n.Name] = sp
	}
	return sp, nil
}

// forget lets go of the messages that the rules were read from, which take as much memory
// as the rules: nobody asks for them again.
func forget(n *fact.Namespace) {
	if nft, ok := n.PacketFilter.NFTables.Get(); ok {
		nft.Chains, nft.Sets, nft.Rules, nft.Elements, nft.Objects = nil, nil, nil, nil, nil
		n.PacketFilter.NFTables = fact.Value(nft)
	}
}

func (s *spaces) namespace(name string) (*fact.Namespace, error) {
	if name == "" {
		if s.home != nil {
			return s.home, nil
		}
		name = "init"
	}
	for _, n := range s.all {
		if n.Name == name {
			return n, nil
		}
	}
	return nil, &usageError{msg: fmt.Sprintf("no network namespace %q", name), hint: "known: " + strings.Join(s.names(), ", ")}
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

// rulesFile is one file of a ruleset, read but not interpreted.
type rulesFile struct {
	name   string // as the user wrote it
	format rulesFormat
	text   []byte
}

// rulesetError says why a ruleset gives no answer: exit 3, never a part of it.
type rulesetError struct {
	msg, hint string
	cause     error
}

// Error implements error.
func (e *rulesetError) Error() string {
	if e.cause != nil {
		return e.msg + ": " + e.cause.Error()
	}
	return e.msg
}

func (e *rulesetError) Unwrap() error { return e.cause }

const rulesetHint = "give an nft script, the output of `nft -j list ruleset`, of iptables-save, ip6tables-save or ipset save, or a Snapshot"

// readRules reads the files of one ruleset and tells their formats apart.
func (a *app) readRules(paths []string) ([]rulesFile, error) {
	var out []rulesFile
	left := maxRuleset
	for _, p := range paths {
		b, err := a.readFile(p, left)
		if err != nil {
			return nil, err
		}
		left -= len(b)
		f := rulesFile{name: p, text: b}
		if p == "-" {
			f.name = "standard input"
		}
		if f.format, err = sniff(b); err != nil {
			return nil, &usageError{msg: "read ruleset " + f.name, cause: err, hint: rulesetHint}
		}
		if f.format == formatSnapshot && len(paths) > 1 {
			return nil, &usageError{msg: "--ruleset " + f.name + " is a Snapshot, which is a whole ruleset by itself", hint: "give it alone, or as --snapshot"}
		}
		out = append(out, f)
	}
	return out, nil
}

func (a *app) readFile(path string, limit int) ([]byte, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, &usageError{msg: "read ruleset", cause: err, hint: rulesetHint}
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	if err != nil {
		return nil, &usageError{msg: "read ruleset", cause: err, hint: "check the path"}
	}
	if len(b) > limit {
		return nil, &usageError{msg: fmt.Sprintf("ruleset %s: more than %d MiB", path, maxRuleset>>20), hint: "take a snapshot instead: sixfence snapshot"}
	}
	return b, nil
}

// offline collects what the files of one ruleset hold.
type offline struct {
	tables []*rs.Table
	sets   *pfdecode.IPSets
	// interfaces are the numbers that the rules give to interfaces (iif, oif).
	interfaces map[uint32]string
	nftRead    bool   // rules of nft are among the files
	lacks      []lack // what the files do not hold
	notes      []string
}

// lack is a part of a family's rules that no file holds.
type lack struct {
	family rs.Family
	what   string
}

// nativeOrder is the byte order of this machine, whose kernel reads the files.
func nativeOrder() reach.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return reach.OrderOf("big")
	}
	return reach.OrderOf("little")
}

// load turns files into what can be asked. The process is sealed before anything of
// them, or of the host's Snapshot, is interpreted. host is nil without a Snapshot.
func (a *app) load(p *prepared, host func() (*fact.Snapshot, error), netns string, out *store.Output, quiet bool) (*spaces, error) {
	defer a.progress(quiet, "reading the rules")()
	a.seal(sealing{output: out})
	files := p.files
	if files[0].format == formatSnapshot {
		snap, err := store.ReadSnapshot(bytes.NewReader(files[0].text), files[0].name, 0)
		if err != nil {
			return nil, err
		}
		return spacesOf(snap), nil
	}
	var s *spaces
	var n *fact.Namespace
	if host != nil {
		snap, err := host()
		if err != nil {
			return nil, err
		}
		s = spacesOf(snap)
		if n, err = s.namespace(netns); err != nil {
			return nil, err
		}
	}
	o := &offline{}
	// ipsets first: rules name them, in whichever order the files came.
	for _, step := range []struct {
		formats []rulesFormat
		read    func([]rulesFile) error
	}{
		{[]rulesFormat{formatNFT, formatNFTJSON}, func([]rulesFile) error { return o.nft(p, n) }},
		{[]rulesFormat{formatIPSet, formatSaves}, o.ipsetSave},
		{[]rulesFormat{formatIPTables, formatSaves}, o.iptablesSave},
	} {
		if these := only(files, step.formats...); len(these) > 0 {
			o.nftRead = o.nftRead || these[0].format == formatNFT || these[0].format == formatNFTJSON
			if err := step.read(these); err != nil {
				return nil, err
			}
		}
	}
	if n == nil {
		set := &rs.Ruleset{Tables: o.tables, Interfaces: o.interfaces}
		s = &spaces{only: o.lacking(reach.FromRuleset(set, nativeOrder())), notes: o.notes}
		a.tell(s.notes)
		return s, nil
	}
	s.all, s.home = []*fact.Namespace{n}, n // the files say nothing about the others
	s.made[n.Name] = o.lacking(reach.WithRules(s.snap, n, o.tables, nativeOrder()))
	s.notes = o.notes
	a.tell(s.notes)
	return s, nil
}

func (o *offline) lacking(sp *reach.Space) *reach.Space {
	for _, l := range o.lacks {
		sp.Lack(l.family, l.what)
	}
	return sp
}

func only(files []rulesFile, formats ...rulesFormat) []rulesFile {
	var out []rulesFile
	for _, f := range files {
		for _, x := range formats {
			if f.format == x {
				out = append(out, f)
			}
		}
	}
	return out
}
