// Package config reads what an operator writes: strict YAML in, errors with file,
// line, the offending text and a remedy out; and it derives the JSON Schemas of
// every published document from the Go types.
package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/sixfence/sixfence/internal/model/finding"
)

// APIVersion of every file an operator writes.
const APIVersion = "sixfence/v1"

// MaxWaivers is the size bound of a waiver file, in bytes.
const MaxWaivers = 256 << 10

// Error is a mistake in a configuration file.
type Error struct {
	File string
	Line int    // 0: the file as a whole
	Text string // the offending line, or empty
	Why  string
	Hint string
}

// Error implements error.
func (e *Error) Error() string {
	at := e.File
	if e.Line > 0 {
		at += ":" + strconv.Itoa(e.Line)
	}
	out := at + ": " + e.Why
	if e.Text != "" {
		out += "\n    " + e.Text
	}
	return out
}

// WaiverFile is the shape of a waiver file.
type WaiverFile struct {
	APIVersion string        `json:"apiVersion" jsonschema:"always sixfence/v1"`
	Waivers    []WaiverEntry `json:"waivers" jsonschema:"accepted findings"`
}

// WaiverEntry is one waiver as it is written.
type WaiverEntry struct {
	Control  string          `json:"control" jsonschema:"control ID, e.g. LISTEN-07"`
	Subject  WaiverSubject   `json:"subject" jsonschema:"what is accepted; every key given must match"`
	Reason   string          `json:"reason" jsonschema:"why the finding is accepted"`
	Owner    string          `json:"owner" jsonschema:"who answers for it"`
	Until    string          `json:"until" jsonschema:"last day on which it holds, YYYY-MM-DD"`
	Accepted []WaiverFinding `json:"accepted" jsonschema:"the evidence that was accepted; more than this reopens the finding"`
}

// WaiverSubject is the subject of a waiver as it is written. A process is named by
// the path of its executable's inode: its comm is whatever the process says.
type WaiverSubject struct {
	NetNS     string  `json:"netns,omitempty" jsonschema:"network namespace, e.g. init"`
	Interface string  `json:"interface,omitempty"`
	Family    string  `json:"family,omitempty" jsonschema:"ipv4 or ipv6"`
	Proto     string  `json:"proto,omitempty" jsonschema:"tcp, udp …"`
	Port      uint16  `json:"port,omitempty"`
	Address   string  `json:"address,omitempty"`
	Process   string  `json:"process,omitempty" jsonschema:"path of the executable"`
	UID       *uint32 `json:"uid,omitempty" jsonschema:"user id of the process"`
	Cgroup    string  `json:"cgroup,omitempty" jsonschema:"cgroup of the process, e.g. /system.slice/nginx.service"`
	File      string  `json:"file,omitempty"`
	Key       string  `json:"key,omitempty"`
	Host      bool    `json:"host,omitempty" jsonschema:"the finding about the machine as a whole"`
}

// WaiverFinding is one piece of accepted evidence.
type WaiverFinding struct {
	Source string `json:"source"`
	Key    string `json:"key,omitempty"`
	Value  string `json:"value"`
}

// hints tell what to write instead of a key that has no meaning here.
var hints = map[string]string{
	"comm":        "a process chooses its own comm; name the executable: process: /usr/sbin/nginx",
	"name":        "name the executable by its path: process: /usr/sbin/nginx",
	"pid":         "a pid changes with every start; name the executable: process: /usr/sbin/nginx",
	"user":        "use uid: and a number",
	"exe":         "the key is process:",
	"path":        "the key is process: for an executable, file: for a file",
	"iface":       "the key is interface:",
	"expires":     "the key is until: and a date, YYYY-MM-DD",
	"expiry":      "the key is until: and a date, YYYY-MM-DD",
	"fingerprint": "write control: and subject:, which people can read; `sixfence audit --waiver-for FINGERPRINT` prints them",
	"id":          "the key is control:",
	"evidence":    "the key is accepted:",
	"severity":    "a waiver accepts a finding; its severity stays",
}

// keys are the keys of each level, for the hint about an unknown one.
const (
	topKeys     = "apiVersion, waivers"
	waiverKeys  = "control, subject, reason, owner, until, accepted"
	subjectKeys = "netns, interface, family, proto, port, address, process, uid, cgroup, file, key, host"
)

// Waivers reads a waiver file. known tells whether a control exists; nil accepts any.
func Waivers(file string, b []byte, known func(id string) bool) ([]finding.Waiver, error) {
	if len(b) > MaxWaivers {
		return nil, &Error{File: file, Why: fmt.Sprintf("larger than %d bytes", MaxWaivers), Hint: "split the file, or check that it is a waiver file"}
	}
	lines := strings.Split(string(b), "\n")
	doc, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, yamlError(file, lines, err)
	}
	var look inspector
	for i, d := range doc.Docs {
		if d.Body != nil {
			ast.Walk(&look, d.Body)
		}
		if i > 0 {
			return nil, &Error{File: file, Why: "more than one YAML document", Hint: "put all waivers into one waivers: list"}
		}
	}
	if n := look.reference; n != nil {
		line := n.GetToken().Position.Line
		return nil, &Error{File: file, Line: line, Text: textOf(lines, line), Why: "anchors and aliases are not accepted", Hint: "write each waiver out in full, so that it can be read alone; quote a value that begins with & or *"}
	}
	var f WaiverFile
	if err := yaml.UnmarshalWithOptions(b, &f, yaml.Strict()); err != nil {
		return nil, yamlError(file, lines, err)
	}
	if f.APIVersion != APIVersion {
		return nil, &Error{File: file, Line: lineOf(lines, regexp.MustCompile(`^apiVersion:`), 0), Why: fmt.Sprintf("apiVersion is %q", f.APIVersion), Hint: "begin the file with: apiVersion: " + APIVersion}
	}
	out := make([]finding.Waiver, 0, len(f.Waivers))
	for i, e := range f.Waivers {
		line := 0
		if len(look.entries) == len(f.Waivers) {
			line = look.entries[i]
		}
		w, why, hint := e.waiver(known)
		if why != "" {
			return nil, &Error{File: file, Line: line, Text: textOf(lines, line), Why: fmt.Sprintf("waiver %d: %s", i+1, why), Hint: hint}
		}
		w.File, w.Line = file, line
		out = append(out, w)
	}
	return out, nil
}

// inspector looks at a document before it is decoded.
type inspector struct {
	reference ast.Node // an anchor or an alias
	entries   []int    // lines on which the items of the waivers list begin
}

// Visit implements ast.Visitor.
func (v *inspector) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		if v.reference == nil {
			v.reference = n
		}
		return nil
	case *ast.MappingValueNode:
		if seq, ok := n.Value.(*ast.SequenceNode); ok && n.Key.String() == "waivers" && v.entries == nil {
			for _, item := range seq.Values {
				line := item.GetToken().Position.Line
				if m, ok := item.(*ast.MappingNode); ok && len(m.Values) > 0 {
					line = m.Values[0].Key.GetToken().Position.Line
				}
				v.entries = append(v.entries, line)
			}
		}
	}
	return v
}

// maxText is how much of an offending line, or of a reason, is shown.
const maxText = 200

// cut keeps the beginning of a text.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

func textOf(lines []string, line int) string {
	if line < 1 || line > len(lines) {
		return ""
	}
	return cut(strings.TrimSpace(lines[line-1]), maxText)
}

func lineOf(lines []string, re *regexp.Regexp, def int) int {
	for i, l := range lines {
		if re.MatchString(l) {
			return i + 1
		}
	}
	return def
}

var unknownField = regexp.MustCompile(`unknown field "([^"]*)"`)

// yamlError makes a decoder's error one that a person can act on.
func yamlError(file string, lines []string, err error) error {
	out := &Error{File: file, Why: firstLine(err.Error()), Hint: "see: sixfence schema waivers"}
	var y yaml.Error
	if !errors.As(err, &y) {
		return out
	}
	out.Why = y.GetMessage()
	if t := y.GetToken(); t != nil && t.Position != nil {
		out.Line = t.Position.Line
		out.Text = textOf(lines, out.Line)
	}
	if m := unknownField.FindStringSubmatch(out.Why); m != nil {
		out.Why = fmt.Sprintf("unknown key %q", m[1])
		out.Hint = "the keys are: " + topKeys + "; of a waiver: " + waiverKeys + "; of a subject: " + subjectKeys
		if h, ok := hints[m[1]]; ok {
			out.Hint = h
		}
	}
	return out
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func (e WaiverEntry) waiver(known func(string) bool) (w finding.Waiver, why, hint string) {
	fail := func(why, hint string) (finding.Waiver, string, string) { return finding.Waiver{}, why, hint }
	if e.Control == "" {
		return fail("control is missing", "name one control: control: LISTEN-07")
	}
	if known != nil && !known(e.Control) {
		return fail(fmt.Sprintf("there is no control %q", e.Control), "`sixfence explain` lists the controls")
	}
	s := e.Subject
	w = finding.Waiver{
		Control: e.Control, Reason: strings.TrimSpace(e.Reason), Owner: strings.TrimSpace(e.Owner),
		Subject: finding.WaiverSubject{
			NetNS: s.NetNS, Interface: s.Interface, Family: s.Family, Proto: s.Proto, Port: s.Port, Address: s.Address,
			Process: s.Process, Cgroup: s.Cgroup, File: s.File, Key: s.Key, Host: s.Host,
		},
	}
	if s.UID != nil {
		w.Subject.UID = strconv.FormatUint(uint64(*s.UID), 10)
	}
	switch {
	case !w.Subject.Names():
		return fail("it names no subject", "add subject: with one of "+subjectKeys+" (family and proto alone are not enough)")
	case s.Host && w.Subject != (finding.WaiverSubject{Host: true}):
		return fail("subject host: true goes with no other key", "drop host: or the other keys")
	case s.Process != "" && !strings.HasPrefix(s.Process, "/"):
		return fail(fmt.Sprintf("process %q is not a path", s.Process), "write the path of the executable: process: /usr/sbin/nginx")
	case s.Family != "" && s.Family != "ipv4" && s.Family != "ipv6":
		return fail(fmt.Sprintf("family %q", s.Family), "use ipv4 or ipv6")
	case w.Reason == "":
		return fail("reason is missing", "say why the finding is accepted: reason: …")
	case w.Owner == "":
		return fail("owner is missing", "say who answers for it: owner: …")
	case e.Until == "":
		return fail("until is missing", "give the last day on which it holds: until: 2027-01-31")
	case e.Accepted == nil:
		return fail("accepted is missing: it does not say what evidence was accepted", "`sixfence audit --waiver-for FINGERPRINT` prints the block with the evidence seen now")
	}
	until, err := time.Parse("2006-01-02", e.Until)
	if err != nil {
		return fail(fmt.Sprintf("until %q is not a date", e.Until), "write YYYY-MM-DD: until: 2027-01-31")
	}
	w.Until = until
	for _, a := range e.Accepted {
		if a.Source == "" {
			return fail("an item of accepted has no source", "copy source, key and value from the finding's evidence")
		}
		w.Accepted = append(w.Accepted, finding.Evidence{Source: a.Source, Key: a.Key, Value: a.Value})
	}
	return w, "", ""
}

// WaiverFor is a ready block for one finding. Reason and owner are left empty, and
// an empty one is refused: accepting a risk takes a person.
func WaiverFor(f finding.Finding, until time.Time) (string, error) {
	s := finding.SelectorOf(f.Subject)
	e := WaiverEntry{
		Control: f.Control, Until: until.Format("2006-01-02"), Accepted: []WaiverFinding{},
		Subject: WaiverSubject{
			NetNS: s.NetNS, Interface: s.Interface, Family: s.Family, Proto: s.Proto, Port: s.Port, Address: s.Address,
			Process: s.Process, Cgroup: s.Cgroup, File: s.File, Key: s.Key, Host: s.Host,
		},
	}
	if n, err := strconv.ParseUint(s.UID, 10, 32); err == nil {
		u := uint32(n)
		e.Subject.UID = &u
	}
	for _, ev := range finding.Lasting(f.Evidence) {
		e.Accepted = append(e.Accepted, WaiverFinding{Source: ev.Source, Key: ev.Key, Value: ev.Value})
	}
	b, err := yaml.MarshalWithOptions(WaiverFile{APIVersion: APIVersion, Waivers: []WaiverEntry{e}}, yaml.IndentSequence(true))
	if err != nil {
		return "", fmt.Errorf("encode waiver: %w", err)
	}
	return string(b), nil
}
