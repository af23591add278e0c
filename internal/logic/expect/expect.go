// Package expect compares three answers to one question: what the operator wants, what
// the rules of the target say, and what the wire shows. It names the odd one out.
package expect

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/probe"
)

// Word is what somebody expects of a port: a state, or one of the words below. Empty:
// nothing is expected.
type Word string

// Words besides the states.
const (
	// Blocked is filtered or rejected: the packet does not get through. Closed is not
	// blocked: nobody listens, and the next one who does is open.
	Blocked Word = "blocked"
	// Silent: an earlier run heard nothing, which proved nothing. Nobody writes it down.
	Silent Word = "silent"
	// Unknown: there is an answer, and it cannot be known.
	Unknown Word = "unknown"
)

// Words lists what can be expected.
func Words() []Word {
	return []Word{Word(probe.Open), Word(probe.Closed), Word(probe.Rejected), Word(probe.Filtered), Blocked, Word(probe.Unreachable)}
}

// Question is a port as it is seen from one place.
type Question struct {
	Target string
	Addr   netip.Addr // of the target
	Source netip.Addr // of the probes
	Proto  string     // tcp | udp | icmp | icmpv6
	Port   uint16     // of the last two the type
}

// Family is ipv4 or ipv6.
func (q Question) Family() string { return probe.FamilyOf(q.Addr) }

// Source knows what to expect.
type Source interface {
	Expect(q Question) Word
}

// Verdict says which of the answers is not like the others.
type Verdict string

// The verdicts.
const (
	Match Verdict = "match" // all that is known agrees
	// PolicyWrong: the wire does what the rules say, and that is not what is wanted.
	PolicyWrong Verdict = "policy"
	// ModelWrong: the wire does what is wanted, or lets more through than the rules say:
	// the Snapshot is old, or something decides that nobody models.
	ModelWrong Verdict = "model"
	// Between: wanted and predicted agree, and less gets through: something on the way (a
	// security group, a switch, a provider) decides as well.
	Between   Verdict = "between"
	AllDiffer Verdict = "all-differ"
	Differs   Verdict = "differs" // one expectation, and the wire says otherwise
	Undecided Verdict = "unknown" // what was seen proves nothing
	None      Verdict = "none"    // nothing to compare with
)

// Verdicts lists the verdicts.
func Verdicts() []Verdict {
	return []Verdict{Match, PolicyWrong, ModelWrong, Between, AllDiffer, Differs, Undecided, None}
}

// Observed is what the wire showed, and what it is worth.
type Observed struct {
	probe.Reason
	// Proven: there is somebody at the address, so that silence means something.
	Proven bool
	// Self: the probes came from the target itself.
	Self bool
}

type answer int8

const (
	maybe answer = iota
	yes
	no
)

// agrees tells whether an observation is what was expected.
func agrees(w Word, o Observed) answer {
	is := func(states ...probe.State) answer {
		for _, s := range states {
			if o.State == s {
				return yes
			}
		}
		return no
	}
	switch {
	case w == Unknown, o.Self, o.State == "":
		return maybe
	case o.State == probe.Errored && o.Blocked && (w == Word(probe.Open) || w == Word(probe.Closed)):
		return no
	case o.State == probe.Errored && o.Blocked && w == Blocked:
		return yes
	case o.State == probe.Errored:
		return maybe
	case w == Silent:
		return is(probe.Filtered)
	case w == Word(probe.Unreachable):
		return is(probe.Unreachable)
	case o.State == probe.Unreachable && w != Word(probe.Open):
		return maybe // it never came so far that it could be blocked
	case o.State == probe.Filtered && o.MayBeOpen && w != Word(probe.Closed) && w != Word(probe.Rejected):
		return maybe
	case o.State == probe.Filtered && !o.Proven && w != Word(probe.Open):
		return maybe // a host that is down is silent, too
	case w == Blocked:
		return is(probe.Filtered, probe.Rejected)
	}
	return is(probe.State(w))
}

// predicts is agrees for what a ruleset says: a reject may be a reset.
func predicts(w Word, o Observed) answer {
	if w == Word(probe.Rejected) && o.State == probe.Closed && !o.Self {
		return yes
	}
	return agrees(w, o)
}

func blocks(w Word) bool {
	return w == Blocked || w == Word(probe.Filtered) || w == Word(probe.Rejected)
}

// Compare gives the verdict.
func Compare(expected, predicted Word, o Observed) Verdict {
	if predicted == Unknown && expected != "" {
		predicted = ""
	}
	e, p := agrees(expected, o), predicts(predicted, o)
	switch {
	case expected == "" && predicted == "":
		return None
	case predicted == "":
		return single(e)
	case expected == "":
		return single(p)
	case e == yes && p == yes:
		return Match
	case o.MayBeOpen && o.Proven && o.State == probe.Filtered && !o.Self && blocks(expected) && blocks(predicted):
		return Match // silence alone proves nothing; the rules say why it is silent
	case o.Blocked && e == yes && blocks(predicted):
		return Match
	case p == yes && predicted == Word(probe.Rejected) && (expected == Blocked || expected == predicted):
		return Match // a reset, which the rules send
	case e == maybe || p == maybe:
		return Undecided
	case e == yes:
		return ModelWrong
	case p == yes:
		return PolicyWrong
	case expected != predicted && !(blocks(expected) && blocks(predicted)):
		return AllDiffer
	case expected == Word(probe.Open), expected == Word(probe.Closed) && o.State != probe.Open:
		return Between
	}
	return ModelWrong
}

func single(a answer) Verdict {
	return map[answer]Verdict{yes: Match, no: Differs, maybe: Undecided}[a]
}

// Agree tells that a verdict is nothing to complain about.
func (v Verdict) Agree() bool { return v == Match || v == None }
