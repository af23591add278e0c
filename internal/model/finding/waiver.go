package finding

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Waiver accepts failed findings of one control on a named subject until a date.
// It accepts what was seen when it was written (Accepted), not whatever the same
// control finds there later.
type Waiver struct {
	Control string
	Subject WaiverSubject
	Reason  string
	Owner   string
	Until   time.Time // last day on which it holds, at midnight UTC
	// Accepted is the evidence that was accepted. Only Source, Key and Value count.
	Accepted []Evidence
	// Whole accepts whatever the control finds on the subject (on any, when that names
	// none), with any evidence: a waiver of the intent, which is about the host as it is
	// meant to be.
	Whole bool
	// File and Line are where it was written.
	File string
	Line int
}

// WaiverSubject selects findings: every field that is set must be equal.
type WaiverSubject struct {
	NetNS     string
	Interface string
	Family    string
	Proto     string
	Port      uint16
	Address   string
	Process   string // path of the executable's inode
	UID       string // decimal
	Cgroup    string
	File      string
	Key       string
	// Host selects the finding about the machine as a whole, which has no other subject.
	Host bool
}

// UnusedWaiver is a Waiver that matched no failed finding.
type UnusedWaiver struct {
	Control string `json:"control"`
	Subject string `json:"subject"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Owner   string `json:"owner"`
	Until   string `json:"until"`
	Detail  string `json:"detail"` // what the control answers for that subject now
}

// States of a WaiverNote.
const (
	WaiverActive   = "active"
	WaiverExpired  = "expired"
	WaiverReopened = "reopened"
)

// dateLayout is how waivers write dates.
const dateLayout = "2006-01-02"

// Names tells whether the selector names a subject at all: a family or a protocol
// alone would cover things nobody looked at.
func (s WaiverSubject) Names() bool {
	return s.Host || s.NetNS != "" || s.Interface != "" || s.Port != 0 || s.Address != "" ||
		s.Process != "" || s.UID != "" || s.Cgroup != "" || s.File != "" || s.Key != ""
}

// Matches tells whether a finding's subject is selected.
func (s WaiverSubject) Matches(f Subject) bool {
	if s.Host && f != (Subject{}) {
		return false
	}
	eq := func(want, got string) bool { return want == "" || want == got }
	return eq(s.NetNS, f.NetNS) && eq(s.Interface, f.Interface) && eq(s.Family, f.Family) &&
		eq(s.Proto, f.Proto) && (s.Port == 0 || s.Port == f.Port) && eq(s.Address, f.Address) &&
		eq(s.Process, f.Process) && eq(s.UID, f.UID) && eq(s.Cgroup, f.Cgroup) &&
		eq(s.File, f.File) && eq(s.Key, f.Key)
}

// String renders the selector for people.
func (s WaiverSubject) String() string {
	if s.Host {
		return "the host"
	}
	f := Subject{
		NetNS: s.NetNS, Interface: s.Interface, Family: s.Family, Proto: s.Proto, Port: s.Port,
		Address: s.Address, Process: s.Process, File: s.File, Key: s.Key,
	}
	out := f.String()
	if s.NetNS == "init" {
		out += " netns init"
	}
	if s.Port != 0 && s.Proto == "" {
		out += fmt.Sprintf(" port %d", s.Port)
	}
	if s.UID != "" {
		out += " uid " + s.UID
	}
	if s.Cgroup != "" {
		out += " cgroup " + s.Cgroup
	}
	return strings.TrimSpace(out)
}

// SelectorOf is the selector that names exactly the subject of a finding.
func SelectorOf(s Subject) WaiverSubject {
	return WaiverSubject{
		NetNS: s.NetNS, Interface: s.Interface, Family: s.Family, Proto: s.Proto, Port: s.Port,
		Address: s.Address, Process: s.Process, UID: s.UID, Cgroup: s.Cgroup, File: s.File, Key: s.Key,
		Host: s == Subject{},
	}
}

// Lasting returns the evidence that a waiver accepts: what is not volatile,
// without the time it was read.
func Lasting(ev []Evidence) []Evidence {
	out := []Evidence{}
	for _, e := range ev {
		if k := (Evidence{Source: e.Source, Key: e.Key, Value: e.Value}); !e.Volatile && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// ApplyWaivers marks the failed findings that a waiver covers at the given time.
// The order of ws is that of precedence. A waiver that expired, or whose finding shows evidence it did not accept, leaves
// the finding failed and says why. Unknown is never waived: it is not a finding
// anyone could have looked at.
func ApplyWaivers(r *Report, ws []Waiver, now time.Time) {
	used := make([]bool, len(ws))
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Status != Fail {
			continue
		}
		for j := range ws {
			w := &ws[j]
			if w.Control != f.Control || !w.Subject.Matches(f.Subject) {
				continue
			}
			used[j] = true
			n := w.note(*f, now)
			// An active waiver wins over one that does not hold; of two of a kind, the
			// first.
			if f.Waiver == nil || n.State == WaiverActive && f.Waiver.State != WaiverActive {
				f.Waiver = n
			}
		}
		if f.Waiver != nil && f.Waiver.State == WaiverActive {
			f.Status = Waived
		}
	}
	r.UnusedWaivers = nil
	for j := range ws {
		if !used[j] {
			r.UnusedWaivers = append(r.UnusedWaivers, unused(r, &ws[j]))
		}
	}
	Sort(r.Findings)
	r.Summary.ByStatus, r.Summary.BySeverity = map[Status]int{}, map[Severity]int{}
	for _, f := range r.Findings {
		r.Summary.ByStatus[f.Status]++
		if f.Status == Fail {
			r.Summary.BySeverity[f.Severity]++
		}
	}
}

func (w *Waiver) note(f Finding, now time.Time) *WaiverNote {
	n := &WaiverNote{Reason: w.Reason, Owner: w.Owner, Until: w.Until.Format(dateLayout), State: WaiverActive, File: w.File, Line: w.Line}
	if !now.Before(w.Until.AddDate(0, 0, 1)) {
		n.State, n.Detail = WaiverExpired, "expired on "+n.Until
		return n
	}
	if w.Whole {
		return n
	}
	accepted := Lasting(w.Accepted)
	var fresh []string
	for _, e := range Lasting(f.Evidence) {
		if !slices.Contains(accepted, e) {
			fresh = append(fresh, e.String())
		}
	}
	if len(fresh) > 0 {
		n.State, n.Detail = WaiverReopened, "not in the accepted evidence: "+strings.Join(fresh, "; ")
	}
	return n
}

// String renders evidence for people.
func (e Evidence) String() string {
	if e.Key == "" {
		return e.Source + ": " + e.Value
	}
	return e.Source + ": " + e.Key + " = " + e.Value
}

func unused(r *Report, w *Waiver) UnusedWaiver {
	u := UnusedWaiver{
		Control: w.Control, Subject: w.Subject.String(), File: w.File, Line: w.Line, Owner: w.Owner,
		Until: w.Until.Format(dateLayout), Detail: "the control found no such subject",
	}
	if w.Whole && w.Subject == (WaiverSubject{}) {
		u.Subject, u.Detail = "anything", "the control did not run"
	}
	for _, f := range r.Findings {
		if f.Control == w.Control && w.Subject.Matches(f.Subject) {
			u.Detail = "the finding is now " + string(f.Status)
			break
		}
	}
	return u
}
