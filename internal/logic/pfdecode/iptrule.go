package pfdecode

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// maxExpanded bounds the rules that one line with several addresses stands for.
const maxExpanded = 1 << 16

// tableText reads the lines of one table.
type tableText struct {
	p      *saveParser
	t      *rs.Table
	x      *xtable
	legacy *legacyDecoder
	chains map[string]*rs.Chain
	// jumps are rules whose target may be a chain that a later line declares.
	jumps []pendingJump
	n     int // line
}

type pendingJump struct {
	rule   *rs.Rule
	line   int
	target *textExt // of a rule that names no chain
	name   string
	isGoto bool
}

func (b *tableText) fail(word, msg, hint string) error { return b.p.fail(b.n, word, msg, hint) }

func (b *tableText) line(l savedLine) error {
	b.n = l.n
	w := l.words
	if len(w) == 0 {
		return b.fail("", "an empty text where a command is expected", restoreHint)
	}
	if strings.HasPrefix(w[0], ":") {
		return b.declare(w)
	}
	if strings.HasPrefix(w[0], "[") { // counters of iptables-save -c
		if !isCounters(w[0]) {
			return b.fail(w[0], "counters are [packets:bytes]", restoreHint)
		}
		w = w[1:]
		_, l.text, _ = strings.Cut(l.text, " ")
	}
	for len(w) > 0 && (w[0] == "-4" || w[0] == "-6" || w[0] == "--ipv4" || w[0] == "--ipv6") {
		// A rule for the other program only is skipped by this one.
		if strings.HasSuffix(w[0], "6") == b.x.is4() {
			return nil
		}
		w = w[1:]
	}
	if len(w) == 0 {
		return b.fail("", "a rule is missing", restoreHint)
	}
	command, args := w[0], w[1:]
	if len(command) > 2 && command[0] == '-' && command[1] != '-' { // -AINPUT
		command, args = command[:2], append([]string{w[0][2:]}, args...)
	}
	switch command {
	case "-A", "--append":
		return b.rule(l.text, args, -1)
	case "-I", "--insert":
		at := 1
		if len(args) > 1 {
			if n, err := strconv.ParseUint(args[1], 10, 31); err == nil {
				at = int(n)
				args = slices.Delete(slices.Clone(args), 1, 2)
			}
		}
		return b.rule(l.text, args, at)
	case "-N", "--new-chain", "--new":
		if len(args) != 1 {
			return b.fail(command, "one chain is expected", restoreHint)
		}
		return b.declare([]string{":" + args[0], "-"})
	case "-P", "--policy":
		if len(args) != 2 {
			return b.fail(command, "a chain and a policy are expected", restoreHint)
		}
		return b.declare([]string{":" + args[0], args[1]})
	case "-F", "--flush":
		return b.flush(args)
	case "-Z", "--zero":
		return nil
	}
	hint := "a table's lines begin with ':' (a chain) or -A (a rule)"
	if strings.HasPrefix(command, "-") {
		hint = "load the file, and give what iptables-save prints then"
	}
	return b.fail(w[0], "this command is not read", hint)
}

func isCounters(s string) bool {
	p, q, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), ":")
	_, err1 := strconv.ParseUint(p, 10, 64)
	_, err2 := strconv.ParseUint(q, 10, 64)
	return ok && err1 == nil && err2 == nil && strings.HasSuffix(s, "]")
}

// declare reads ":CHAIN POLICY [packets:bytes]".
func (b *tableText) declare(w []string) error {
	name := w[0][1:]
	if name == "" && len(w) > 1 {
		name, w = w[1], w[1:]
	}
	switch {
	case name == "" || len(name) > 28 || strings.HasPrefix(name, "-") || strings.HasPrefix(name, "!"):
		return b.fail(name, "no name of a chain", "a chain has a name of at most 28 characters")
	case len(w) < 2:
		return b.fail(w[0], "the chain has no policy", `write ":`+name+` - [0:0]" for a chain of your own`)
	case len(w) > 3 || len(w) == 3 && !isCounters(w[2]):
		return b.fail(w[2], "counters are [packets:bytes]", restoreHint)
	}
	c := b.chains[name]
	switch policy := w[1]; {
	case policy == "-" && c == nil:
		if len(b.chains) >= maxChains {
			return b.fail(name, "too many chains", fmt.Sprintf("at most %d are read", maxChains))
		}
		c = &rs.Chain{Table: b.t, Name: name}
		b.chains[name] = c
		b.t.Chains = append(b.t.Chains, c)
	case policy == "-":
		if c.Base == nil { // declared again: emptied
			c.Rules = nil
		}
	case c == nil || c.Base == nil:
		return b.fail(policy, "only built-in chains have a policy, and "+name+" is none of table "+b.t.Name, `write ":`+name+` - [0:0]"`)
	case policy == "ACCEPT":
		c.Base.Policy = rs.Accept
	case policy == "DROP":
		c.Base.Policy = rs.Drop
	default:
		return b.fail(policy, "this is no policy", "a policy is ACCEPT or DROP")
	}
	return nil
}

func (b *tableText) flush(args []string) error {
	if len(args) == 0 {
		for _, c := range b.t.Chains {
			c.Rules = nil
		}
		return nil
	}
	c := b.chains[args[0]]
	if c == nil || len(args) > 1 {
		return b.fail(args[0], "there is no such chain", "declare it before")
	}
	c.Rules = nil
	return nil
}

// rule reads the options of a rule and adds it to its chain; at is its number, -1 the end.
func (b *tableText) rule(text string, args []string, at int) error {
	if len(args) == 0 {
		return b.fail("", "the rule names no chain", "write -A CHAIN")
	}
	c := b.chains[args[0]]
	if c == nil {
		return b.fail(args[0], "there is no such chain in table "+b.t.Name, `declare it before its rules: ":`+args[0]+` - [0:0]"`)
	}
	r := &ruleText{b: b, x: b.x, srcs: one6, dsts: one6}
	if err := r.options(args[1:]); err != nil {
		return err
	}
	rules, err := r.lower(c, text)
	if err != nil {
		return err
	}
	switch {
	case at < 0:
		c.Rules = append(c.Rules, rules...)
	case at < 1 || at > len(c.Rules)+1:
		return b.fail(strconv.Itoa(at), fmt.Sprintf("the chain has %d rules", len(c.Rules)), "insert at a number that is there")
	default:
		slices.Reverse(rules)
		c.Rules = slices.Insert(c.Rules, at-1, rules...)
	}
	return nil
}

// resolve settles jumps, now that every chain is known.
func (b *tableText) resolve() error {
	for _, j := range b.jumps {
		b.n = j.line
		c := b.chains[j.name]
		switch {
		case c != nil && c.Base != nil:
			return b.fail(j.name, "a rule cannot jump to a built-in chain", "jump to a chain of your own")
		case c != nil && j.target != nil && j.target.used:
			return b.fail(j.name, "a chain takes no options", restoreHint)
		case c != nil:
			v := rs.Jump
			if j.isGoto {
				v = rs.Goto
			}
			j.rule.Exprs = append(j.rule.Exprs, rs.Conclude{Verdict: v, Chain: c.Name})
		case j.isGoto:
			return b.fail(j.name, "there is no such chain in table "+b.t.Name, `declare it: ":`+j.name+` - [0:0]"`)
		default:
			j.rule.Exprs = append(j.rule.Exprs, b.x.target(j.name, 0, nil)...)
		}
	}
	for _, c := range b.t.Chains {
		for i, r := range c.Rules {
			r.Index = i + 1
		}
	}
	return nil
}

// ruleText is a rule on its way from words to expressions.
type ruleText struct {
	b          *tableText
	x          *xtable
	srcs, dsts []textAddr
	inv        uint8 // inv* of the entry's header
	iif, oif   textIface
	proto      int // -1: not given
	hasProto   bool
	fragments  bool
	exts       []*textExt // matches in order
	target     *textExt
	standard   string // verdict, or a chain
	isGoto     bool
	last       *textExt // named by the -m or -j before this word
}

// textAddr is an address with its mask.
type textAddr struct{ addr, mask []byte }

var one6 = []textAddr{{}}

type textIface struct{ name, mask [16]byte }

// textExt is a match or target that a rule names, on its way to the structure that
// the kernel would get.
type textExt struct {
	*extSyntax
	x      *xtable
	name   string
	rev    uint32
	b      []byte
	used   bool      // it got an option
	opaque string    // why it is not understood
	exprs  []rs.Expr // what it is, where no structure says it
}

func (r *ruleText) newExt(s *extSyntax, name string) *textExt {
	e := &textExt{extSyntax: s, x: r.x, name: name, rev: s.rev, b: make([]byte, s.size)}
	if s.init != nil {
		s.init(e)
	}
	return e
}

// word is an option as it is written: negated before or behind its name.
type wordReader struct {
	words []string
	i     int
}

func (w *wordReader) next() (string, bool) {
	if w.i >= len(w.words) {
		return "", false
	}
	w.i++
	return w.words[w.i-1], true
}

// isOption tells an option from a value; a negative number is a value.
func isOption(s string) bool {
	return len(s) > 1 && s[0] == '-' && (s[1] < '0' || s[1] > '9' || s == "-4" || s == "-6")
}

func (r *ruleText) options(words []string) error {
	w := &wordReader{words: words}
	for {
		word, ok := w.next()
		if !ok {
			return r.check()
		}
		not := false
		if word == "!" {
			not = true
			if word, ok = w.next(); !ok || word == "!" {
				return r.b.fail("!", "nothing is negated", "a ! stands before an option")
			}
		}
		if !isOption(word) {
			return r.b.fail(word, "an option is expected", "a value with blanks needs quotes around it")
		}
		name, value, attached := word, "", false
		if word[1] != '-' && len(word) > 2 {
			name, value, attached = word[:2], word[2:], true
		} else if n, v, ok := strings.Cut(word, "="); ok && word[1] == '-' {
			name, value, attached = n, v, true
		}
		if attached {
			w.i--
			w.words = slices.Clone(w.words)
			w.words[w.i] = value
		}
		if err := r.option(name, not, w); err != nil {
			return err
		}
	}
}

// values reads the n values of an option, before which an old-style ! may stand.
func (r *ruleText) values(name string, n int, not *bool, w *wordReader) ([]string, error) {
	var out []string
	for len(out) < n {
		v, ok := w.next()
		if ok && v == "!" && len(out) == 0 && !*not {
			*not = true
			continue
		}
		if !ok {
			return nil, r.b.fail(name, "its value is missing", restoreHint)
		}
		out = append(out, v)
	}
	return out, nil
}

// generic are the options of every rule, with the number of their values and the words
// they are also known by.
var generic = map[string]string{
	"-p": "-p", "--protocol": "-p", "--proto": "-p", "-s": "-s", "--source": "-s", "--src": "-s",
	"-d": "-d", "--destination": "-d", "--dst": "-d", "-i": "-i", "--in-interface": "-i", "-o": "-o", "--out-interface": "-o",
	"-f": "-f", "--fragment": "-f", "--fragments": "-f", "-m": "-m", "--match": "-m", "-j": "-j", "--jump": "-j", "-g": "-g", "--goto": "-g",
	"-c": "-c", "--set-counters": "-c", "-4": "-4", "-6": "-6", "--ipv4": "-4", "--ipv6": "-6",
}

func (r *ruleText) option(name string, not bool, w *wordReader) error {
	if g := generic[name]; g != "" {
		return r.generic(g, name, not, w)
	}
	e, o, full, err := r.find(name)
	if err != nil {
		return err
	}
	if e == nil {
		return r.unknown(name, w)
	}
	if r.last != nil && r.last != e && r.last.unknown { // it may be its option as well
		e.opaque = "option " + name + " of " + r.last.name
		return r.unknown(name, w)
	}
	v, err := r.values(name, o.n, &not, w)
	if err != nil {
		return err
	}
	if not && !o.inv {
		return r.b.fail("! "+name, "this option cannot be negated", restoreHint)
	}
	e.used = true
	if o.set == nil {
		return nil
	}
	if err := o.set(e, v, not); err != nil {
		return r.b.fail(strings.Join(v, " "), full+" of "+e.name+": "+err.Error(), restoreHint)
	}
	return nil
}

// find looks an option up, also one that is cut short: of the extension that was named
// last first. That of the protocol needs no -m.
func (r *ruleText) find(name string) (*textExt, *optSyntax, string, error) {
	look := func() (*textExt, *optSyntax, string, error) {
		list := slices.Clone(r.exts)
		if r.target != nil {
			list = append(list, r.target)
		}
		slices.SortStableFunc(list, func(a, b *textExt) int { return r.order(b) - r.order(a) })
		for _, e := range list {
			if o := e.opts[name]; o != nil {
				return e, o, name, nil
			}
		}
		var found *textExt
		full := ""
		for _, e := range list {
			for _, k := range sortedKeys(e.opts) {
				if strings.HasPrefix(k, name) && len(name) > 2 {
					if full != "" && full != k {
						return nil, nil, "", r.b.fail(name, "this may be "+full+" or "+k, "write the option out")
					}
					if full == "" {
						found, full = e, k
					}
				}
			}
		}
		if found != nil {
			return found, found.opts[full], full, nil
		}
		return nil, nil, "", nil
	}
	e, o, full, err := look()
	if e != nil || err != nil {
		return e, o, full, err
	}
	if s := r.protoMatch(); s != "" && !slices.ContainsFunc(r.exts, func(e *textExt) bool { return e.name == s }) {
		m := r.newExt(matchSyntax[s], s)
		r.exts = append(r.exts, m)
		if e, o, full, err = look(); e != nil || err != nil {
			return e, o, full, err
		}
		r.exts = r.exts[:len(r.exts)-1]
	}
	return nil, nil, "", nil
}

func sortedKeys(m map[string]*optSyntax) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// order is when an extension was named.
func (r *ruleText) order(e *textExt) int {
	if e == r.target {
		return len(r.exts)
	}
	return slices.Index(r.exts, e)
}

// protoMatch is the match that comes with -p.
func (r *ruleText) protoMatch() string {
	if !r.hasProto || r.inv&invProto != 0 {
		return ""
	}
	switch r.proto {
	case 1:
		if r.x.is4() {
			return "icmp"
		}
	case 58:
		if !r.x.is4() {
			return "icmp6"
		}
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 33:
		return "dccp"
	case 50:
		return "esp"
	case 51:
		return "ah"
	case 132:
		return "sctp"
	case 108:
		return "ipcomp"
	case 135:
		if !r.x.is4() {
			return "mh"
		}
	}
	return ""
}

// unknown is an option that nobody here knows: it belongs to the extension before it,
// which is not understood then. Without one the line is wrong.
func (r *ruleText) unknown(name string, w *wordReader) error {
	e := r.last
	if e == nil || !strings.HasPrefix(name, "--") {
		return r.b.fail(name, "unknown option", "an option of a match stands behind its -m, that of a protocol behind its -p")
	}
	for w.i < len(w.words) && !isOption(w.words[w.i]) && w.words[w.i] != "!" {
		w.i++
	}
	e.used = true
	e.opaque = "option " + name
	return nil
}
