package scratch

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// problem is what nft says, with what the loader needs of it.
type problem struct {
	Problem
	last    int    // last column
	token   string // what the columns mark
	warning bool
}

// nft prints FILE:LINE:FROM-TO: Error: REASON, then the line, then a line of marks.
var complaint = regexp.MustCompile(`^(.*?):(\d+):(\d+)(?:-(\d+))?: (Error|Warning): (.*)$`)

// maxProblems bounds what is kept of nft's complaints.
const maxProblems = 64

func parseProblems(stderr []byte) []problem {
	var out []problem
	sc := bufio.NewScanner(bytes.NewReader(stderr))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() && len(out) < maxProblems {
		t := sc.Text()
		if m := complaint.FindStringSubmatch(t); m != nil {
			p := problem{Problem: Problem{File: m[1], Reason: m[6]}, warning: m[5] == "Warning"}
			p.Line, _ = strconv.Atoi(m[2])
			p.Column, _ = strconv.Atoi(m[3])
			p.last, _ = strconv.Atoi(m[4])
			out = append(out, p)
			continue
		}
		if len(out) == 0 {
			continue
		}
		p := &out[len(out)-1]
		if p.Text == "" && p.Line > 0 && strings.Trim(t, " ^~\t") != "" {
			p.Text = t
			if p.Column > 0 && p.last >= p.Column && p.last <= len(t) {
				p.token = t[p.Column-1 : p.last]
			}
			if len(p.Text) > 400 {
				p.Text = p.Text[:400] + "…"
			}
		}
	}
	return out
}

// Old nft prints what it cannot say of an iptables-nft rule as a comment, which hides
// the rest of the rule as well, and reads back a rule that accepts more.
var commented = regexp.MustCompile(`#\s*xt_\w+`)

func commentedOut(path string, text []byte) *problem {
	at := commented.FindIndex(text)
	if at == nil {
		return nil
	}
	begin := bytes.LastIndexByte(text[:at[0]], '\n') + 1
	line, _, _ := bytes.Cut(text[begin:], []byte("\n"))
	return &problem{Problem: Problem{
		File: path, Line: bytes.Count(text[:begin], []byte("\n")) + 1, Column: at[0] - begin + 1, Text: trimmed(line, 400),
		Reason: "nft list ruleset left a match out of this rule, and wrote a comment in its place",
		Advice: "give the output of iptables-save and ip6tables-save for these tables, or " + snapshotHint,
	}}
}

// missing lists the interfaces that nft or the kernel did not find, as far as its
// complaints tell.
func (l *loader) missing(list []problem) []string {
	var out []string
	for _, p := range list {
		device := strings.Contains(p.Reason, "Interface does not exist") || strings.Contains(p.Reason, "No such device")
		chain := strings.Contains(p.Reason, "No such file or directory") && (strings.Contains(p.Text, "device") || strings.Contains(p.Text, "chain") || strings.Contains(p.Text, "flowtable"))
		if !device && !chain {
			continue
		}
		if t := strings.Trim(p.token, `"`); device && validName(t) {
			out = append(out, t)
			continue
		}
		// A variable, or a place that is not told: every word may be the one.
		if src, ok := l.texts[p.File]; ok {
			out = append(out, allNames(src)...)
		}
		for _, f := range l.texts {
			out = append(out, definedNames(f)...)
		}
	}
	return out
}

// features are expressions that a kernel may lack, by the word in a rule.
var features = []string{
	"queue", "flowtable", "flow add", "synproxy", "tproxy", "osf", "socket", "ipsec", "rt ", "fib", "log", "reject", "dup", "fwd", "masquerade", "redirect",
	"nat", "ct helper", "ct timeout", "ct expectation", "ct count", "limit", "quota", "numgen", "jhash", "symhash", "secmark", "meta ibrname", "xfrm", "tunnel", "geneve", "vxlan", "gre", "destroy", "last",
}

// explain adds to nft's words what to do about them, and puts the errors of the text
// before those of this kernel.
func (l *loader) explain(list []problem) []Problem {
	var first, then []Problem
	for _, p := range list {
		if p.warning {
			continue
		}
		reason := p.Reason
		switch {
		case strings.Contains(reason, "No such file or directory") && strings.Contains(reason, "include"),
			strings.Contains(reason, "could not be opened"), strings.Contains(reason, "not found"), strings.Contains(reason, "Could not open file"), strings.Contains(reason, "Failed to open"):
			p.Advice = "only files in the script's own directory and below it can be included"
			for path, why := range l.refused {
				if strings.Contains(reason, path) || strings.Contains(p.Text, path) || strings.Contains(reason+p.Text, "/"+lastPart(path)) {
					p.Reason = fmt.Sprintf("%s: %s: %s", "the include is refused", path, why)
				}
			}
			if len(l.refused) == 0 && strings.HasPrefix(p.File, inputDir) {
				p.Advice = "a script on standard input has no directory to include from: name the file"
			}
		case strings.Contains(reason, "resolve hostname"):
			p.Advice = "names of hosts are not looked up: the answer would be this machine's, today; write the addresses"
		case strings.Contains(reason, "User does not exist"), strings.Contains(reason, "Group does not exist"):
			p.Advice = "names of users are looked up on this machine; write the number"
		case strings.Contains(reason, "resolve service"):
			p.Advice = "names of services come from /etc/services of this machine; write the number"
		case strings.Contains(reason, "cgroup"):
			p.Advice = "control groups are those of the host that runs the rules: " + snapshotHint
		case strings.Contains(reason, "unsupported xtables compat"):
			p.Advice = "nft cannot load what iptables-nft made: give the output of iptables-save and ip6tables-save instead"
		case strings.Contains(reason, "Message too long"):
			p.Advice = "the transaction is too large for a user namespace of this kernel: " + snapshotHint
		case strings.Contains(reason, "allocation failure"), strings.Contains(reason, "Cannot allocate memory"):
			p.Reason = "it takes more memory than a ruleset may"
			p.Advice = snapshotHint
		case strings.Contains(reason, "Could not process rule"):
			p.Advice = "the kernel of this machine refused it"
			if f := feature(p.Text); f != "" {
				p.Advice += ": it may lack `" + strings.TrimSpace(f) + "`, which is no fault of the script; try on the host that runs the rules, or " + snapshotHint
			} else {
				p.Advice += "; if the host that runs the rules takes it, " + snapshotHint
			}
			then = append(then, p.Problem)
			continue
		}
		first = append(first, p.Problem)
	}
	all := append(first, then...)
	for i := range all {
		if all[i].Advice == "" && l.items[all[i].File] != nil {
			all[i].Advice = "nft cannot read this back from JSON: give the script itself or the text that nft list ruleset prints, or " + snapshotHint
		}
	}
	return all
}

func lastPart(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func feature(text string) string {
	for _, f := range features {
		if strings.Contains(text, f) {
			return f
		}
	}
	return ""
}
