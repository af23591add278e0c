package pfdecode

import (
	"encoding/binary"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// TextError is a line of a rule file that cannot be read.
type TextError struct {
	File string
	Line int    // from 1; 0 when it is about the file as a whole
	Word string // the offending one, may be empty
	Msg  string
	Hint string // what to do about it
}

func (e *TextError) Error() string {
	at := e.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Word != "" {
		return fmt.Sprintf("%s: %q: %s", at, e.Word, e.Msg)
	}
	return at + ": " + e.Msg
}

// Saved is what a text of iptables-save or ip6tables-save holds.
type Saved struct {
	Tables []*rs.Table
	// Families are those that the text is about; of others it says nothing.
	Families []rs.Family
	// Lacks are tables of the host that the text itself says are not in it.
	Lacks []Lack
}

// Lack is a part of a host's rules that a text does not hold.
type Lack struct {
	Family rs.Family
	What   string
}

// HasFamily tells whether the text is about a family.
func (s *Saved) HasFamily(f rs.Family) bool { return slices.Contains(s.Families, f) }

// ParseXTables reads what iptables-save, ip6tables-save and their -nft and -legacy
// variants print, also several of them behind each other, and what people write by
// hand for iptables-restore; and what "iptables -S" prints of the filter table. The rules are lowered through the structures that the
// kernel would have got, by the same code as those read from a kernel. name is the
// file's: it is said in errors, and tells the family where nothing else does. sets
// are the ipsets that rules may name; nil when they are not known.
//
// A *TextError says which line and word cannot be read; there is never a part of a
// ruleset. A match or target that is not known is Opaque.
func ParseXTables(name, text string, order binary.ByteOrder, sets *IPSets) (*Saved, error) {
	p := &saveParser{file: name, order: order, out: &Saved{}}
	if err := p.split(text); err != nil {
		return nil, err
	}
	if err := p.families(sets); err != nil {
		return nil, err
	}
	for _, t := range p.tables {
		if err := p.table(t, sets); err != nil {
			return nil, err
		}
	}
	for _, l := range p.lacks {
		if p.note(l.Family); l.What != "" {
			p.out.Lacks = append(p.out.Lacks, l)
		}
	}
	return p.out, nil
}

type saveParser struct {
	file   string
	order  binary.ByteOrder // of the host that the rules are for
	out    *Saved
	tables []*savedTable
	lacks  []Lack
	seen   map[string]bool // tables by family, back-end and name
}

// savedTable is a table's lines.
type savedTable struct {
	name    string
	line    int
	family  rs.Family // 0 until it is known
	backend string    // "nf_tables" or "legacy", as the header says
	part    int       // tables of one part are of one family
	lines   []savedLine
}

type savedLine struct {
	n     int
	text  string
	words []string
}

func (p *saveParser) fail(line int, word, msg, hint string) error {
	return &TextError{File: p.file, Line: line, Word: word, Msg: msg, Hint: hint}
}

// header is what the -save programs begin with. The back-end is in it since 1.8.
var (
	header       = regexp.MustCompile(`^# (?:Generated|Translated) by (\w+?)(?:-nft|-legacy)?-(?:save|restore-translate)(?: (v\S+))?(?: \((\w+)\))?`)
	incompatible = regexp.MustCompile("^# Table `(\\w+)' is incompatible")
	listed       = regexp.MustCompile(`^-[PNA] \S`)
	otherBackend = regexp.MustCompile(`^# Warning: (ip6?)tables-legacy tables present`)
)

const (
	noQuote   = "a quoted text has no end"
	quoteHint = `end it with ", on the same line`
)

const restoreHint = "give what iptables-save or ip6tables-save prints; `iptables-restore --test FILE` tells whether a file can be loaded"

// split finds the tables.
func (p *saveParser) split(text string) error {
	var t, bare *savedTable
	family, backend, part := rs.Family(0), "", 0
	names := map[string]bool{}
	for n := 1; text != ""; n++ {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		line = strings.TrimRight(line, " \t\r")
		trimmed := strings.TrimLeft(line, " \t")
		switch {
		case trimmed == "":
		case trimmed[0] == '#':
			if m := header.FindStringSubmatch(trimmed); m != nil {
				switch m[1] {
				case "iptables", "xtables":
					family = rs.IPv4
				case "ip6tables":
					family = rs.IPv6
				default:
					return p.fail(n, m[1], "rules of another program than iptables and ip6tables", "leave them out: they filter no IP packets by themselves")
				}
				if t == bare {
					t, bare = nil, nil
				}
				if m[2] != "" && m[3] == "" {
					m[3] = "legacy" // which says nothing more
				}
				backend, part, names = m[3], part+1, map[string]bool{}
				p.lacks = append(p.lacks, Lack{Family: family})
			}
			if m := incompatible.FindStringSubmatch(trimmed); m != nil {
				p.lacks = append(p.lacks, Lack{family, "table " + m[1] + ", which iptables-save could not print"})
			}
			if m := otherBackend.FindStringSubmatch(trimmed); m != nil {
				f := rs.IPv4
				if m[1] == "ip6" {
					f = rs.IPv6
				}
				p.lacks = append(p.lacks, Lack{f, "legacy tables, which " + m[1] + "tables-legacy-save prints"})
			}
		case trimmed[0] == '*':
			if t != nil && t == bare {
				t, bare = nil, nil
			}
			if t != nil {
				return p.fail(n, trimmed, "table "+t.name+" ends without COMMIT", "the file seems to be cut off: save it again")
			}
			if names[trimmed] { // a second save, without a header
				names = map[string]bool{}
				part, family = part+1, 0
			}
			names[trimmed] = true
			t = &savedTable{name: strings.TrimSpace(trimmed[1:]), line: n, family: family, backend: backend, part: part}
			if _, ok := hooksOfTable[t.name]; !ok {
				return p.fail(n, t.name, "there is no such table", "the tables are filter, nat, mangle, raw and security")
			}
			p.tables = append(p.tables, t)
		case t == nil && listed.MatchString(trimmed): // iptables -S: one table, without a frame
			bare = &savedTable{name: "filter", line: n, family: family, part: part}
			t = bare
			p.tables = append(p.tables, t)
			fallthrough
		case t != nil && t == bare:
			words, ok := splitWords(trimmed)
			if !ok {
				return p.fail(n, "", noQuote, quoteHint)
			}
			t.lines = append(t.lines, savedLine{n, trimmed, words})
		case t == nil:
			return p.fail(n, firstWord(trimmed), "outside of a table", restoreHint)
		case trimmed == "COMMIT":
			t = nil
		default:
			words, ok := splitWords(trimmed)
			if !ok {
				return p.fail(n, "", noQuote, quoteHint)
			}
			t.lines = append(t.lines, savedLine{n, trimmed, words})
		}
	}
	if t != nil && t != bare {
		return p.fail(t.line, "*"+t.name, "table "+t.name+" ends without COMMIT", "the file seems to be cut off: save it again")
	}
	return nil
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

// splitWords splits a line as iptables-restore does: at blanks, where no quotes are
// open; within quotes a backslash takes the next character as it is.
func splitWords(line string) (words []string, ok bool) {
	var b strings.Builder
	quoted, inWord := false, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quoted && c == '\\' && i+1 < len(line):
			i++
			b.WriteByte(line[i])
		case c == '"':
			quoted = !quoted
			inWord = true
		case !quoted && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, b.String())
				b.Reset()
				inWord = false
			}
		default:
			b.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, b.String())
	}
	return words, !quoted
}

// families settles which family each table is for: by the header before it, else by
// what its rules say, else by those of the same part of the file, else by the file's name.
func (p *saveParser) families(sets *IPSets) error {
	for _, part := range p.parts() {
		four, six := 0, 0
		weak := map[rs.Family]bool{}
		for _, t := range part {
			for _, l := range t.lines {
				switch f, sure := familyOf(l.words, sets); {
				case f != 0 && !sure:
					weak[f] = true
				case f == rs.IPv4:
					four = l.n
				case f == rs.IPv6:
					six = l.n
				}
			}
		}
		f := rs.Family(0)
		switch {
		case part[0].family != 0:
			continue
		case four != 0 && six != 0:
			return p.fail(max(four, six), "", fmt.Sprintf("IPv4 and IPv6 in the same tables (line %d is of the other family)", min(four, six)),
				"iptables-restore and ip6tables-restore each take their own file: give two, or put the line \"# Generated by ip6tables-save\" before the tables for IPv6")
		case six != 0:
			f = rs.IPv6
		case four != 0:
			f = rs.IPv4
		case len(weak) == 1:
			for f = range weak {
			}
		case part[0].part == 0 && p.lastPart() == 0:
			f = familyByName(p.file)
		}
		if f == 0 {
			return p.fail(part[0].line, "*"+part[0].name, "nothing tells whether these rules are for IPv4 or for IPv6",
				"name the file rules.v4 or rules.v6, or put the line \"# Generated by iptables-save\" (or ip6tables-save) before them")
		}
		for _, t := range part {
			t.family = f
		}
	}
	return nil
}

func (p *saveParser) lastPart() int { return p.tables[len(p.tables)-1].part }

func (p *saveParser) parts() [][]*savedTable {
	var out [][]*savedTable
	for _, t := range p.tables {
		if n := len(out); n > 0 && out[n-1][0].part == t.part {
			out[n-1] = append(out[n-1], t)
			continue
		}
		out = append(out, []*savedTable{t})
	}
	return out
}

// familyByName reads names that people give such files: rules.v6, ip6tables.rules, before6.rules.
func familyByName(file string) rs.Family {
	base := strings.ToLower(path.Base(file))
	switch has := func(s string) bool { return strings.Contains(base, s) }; {
	case has("v4") && has("v6"), has("ip4") && has("ip6"):
		return 0
	case has("v6"), has("ip6"), has("6.rules"):
		return rs.IPv6
	case has("v4"), has("ip4"), has("iptables"):
		return rs.IPv4
	}
	return 0
}

// hooksOfTable are the base chains of each table.
var hooksOfTable = map[string][]rs.Hook{
	"filter":   {rs.Input, rs.Forward, rs.Output},
	"security": {rs.Input, rs.Forward, rs.Output},
	"nat":      {rs.Prerouting, rs.Input, rs.Output, rs.Postrouting},
	"mangle":   {rs.Prerouting, rs.Input, rs.Forward, rs.Output, rs.Postrouting},
	"raw":      {rs.Prerouting, rs.Output},
}

// baseChain is a built-in chain of a legacy table.
func baseChain(t *rs.Table, h rs.Hook) (*rs.Chain, bool) {
	prio, ok := hookPriority(t.Name, h)
	typ := "filter"
	switch {
	case t.Name == "nat":
		typ = "nat"
	case t.Name == "mangle" && h == rs.Output:
		typ = "route"
	}
	return &rs.Chain{Table: t, Name: builtin[h], Base: &rs.Base{Type: typ, Hook: h, Priority: prio, Policy: rs.Accept}}, ok
}

func (p *saveParser) note(f rs.Family) {
	if !p.out.HasFamily(f) {
		p.out.Families = append(p.out.Families, f)
	}
}

// table reads the lines of a table.
func (p *saveParser) table(s *savedTable, sets *IPSets) error {
	p.note(s.family)
	id := s.family.String() + " " + s.backend + " " + s.name
	if p.seen[id] {
		return p.fail(s.line, "*"+s.name, "the table is there twice, and loading the second would empty the first", "give the saves of one host and one moment, each family once")
	}
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	p.seen[id] = true
	source := rs.NFTables // what iptables is today, where the text does not say
	if s.backend == "legacy" {
		source = rs.XTables
	}
	t := &rs.Table{Family: s.family, Name: s.name, Source: source, Sets: map[string]*rs.Set{}, Objects: map[string]*rs.Object{}}
	for _, h := range hooksOfTable[s.name] {
		c, _ := baseChain(t, h)
		t.Chains = append(t.Chains, c)
	}
	l := layout4
	if s.family == rs.IPv6 {
		l = layout6
	}
	x := &xtable{order: p.order, family: s.family, table: t, sets: sets}
	b := &tableText{p: p, t: t, x: x, legacy: &legacyDecoder{l: l, order: x.order, t: t, x: x}, chains: map[string]*rs.Chain{}}
	for _, c := range t.Chains {
		b.chains[c.Name] = c
	}
	for _, line := range s.lines {
		if err := b.line(line); err != nil {
			return err
		}
	}
	if err := b.resolve(); err != nil {
		return err
	}
	p.out.Tables = append(p.out.Tables, t)
	return nil
}

// MixedBackends tells where two back-ends have chains of the same name on the same
// hooks: which run first, their texts do not say, and where they change packets it matters.
func MixedBackends(tables []*rs.Table) []Lack {
	var out []Lack
	for i, a := range tables {
		for _, b := range tables[:i] {
			if a.Family == b.Family && a.Name == b.Name && a.Source != b.Source && (changes(a) || changes(b)) {
				out = append(out, Lack{a.Family, "whether table " + a.Name + " of nf_tables or of the legacy back-end runs first"})
			}
		}
	}
	return out
}

// changes tells whether a table's rules change packets or connections.
func changes(t *rs.Table) bool {
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				switch e.(type) {
				case rs.MetaSet, rs.CtSet, rs.PayloadSet, rs.Notrack, rs.Nat, rs.Redirect, rs.Masquerade, rs.Dynset:
					return true
				}
			}
		}
	}
	return false
}

// SplitSaves takes the lines of "ipset save" out of a text that holds tables as well.
// Lines keep their numbers in both.
func SplitSaves(text string) (tables, sets string) {
	var t, s strings.Builder
	for line := range strings.Lines(text) {
		word := firstWord(strings.TrimSpace(line))
		if word == "create" || word == "add" {
			s.WriteString(line)
			t.WriteString("\n")
			continue
		}
		t.WriteString(line)
		s.WriteString("\n")
	}
	return t.String(), s.String()
}
