package expect

import (
	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// The controls of verify.
const (
	Vantage    = "VERIFY-01"
	Difference = "VERIFY-02"
	Life       = "VERIFY-03"
	Families   = "VERIFY-04"
	Wrapped    = "VERIFY-08"
)

// Controls are what verify decides. They have no Eval: probes answer them, not facts.
func Controls() []check.Control {
	note := func(s string) []finding.Remediation {
		return []finding.Remediation{{Kind: finding.Note, Text: s}}
	}
	return []check.Control{
		{
			ID: Vantage, Title: "The probes came from the target itself", Severity: finding.High,
			What: "Whether the source of the probes is another host than the target.", Why: "What a host sends to itself goes over loopback, where other rules hold: a port that neighbours cannot reach is open to it.",
			Fix: note("run sixfence verify on another host"),
		},
		{
			ID: Difference, Title: "The wire does not show what is expected", Severity: finding.High,
			What: "Whether each port has the state that the intent, the rules or an earlier run say.", Why: "A rule that is written and not in force protects nobody.",
			Fix: note("look at the odd one out: the rules (sixfence reach), the intent, or what is between"),
		},
		{
			ID: Life, Title: "There is no sign of life", Severity: finding.High,
			What: "Whether anything at the address answers.", Why: "Silence is what a firewall and a host without power have in common. Ports that look blocked on a host that is down are not tested.",
			Fix: note("let the host answer something: an echo, or one service"),
		},
		{
			ID: Families, Title: "IPv4 and IPv6 do not agree", Severity: finding.High,
			What: "Whether a port answers alike over every address of the host.", Why: "A service that only one family is protected from is reached over the other.",
			Fix:  note("compare the rules of both families: sixfence reach"),
			Refs: []finding.Reference{{Source: "RFC 9099", ID: "§5"}},
		},
		{
			ID: Wrapped, Title: "Extension headers or fragments get past the rules", Severity: finding.High,
			What: "Whether a probe behind extension headers, or in fragments, gets further than a plain one.", Why: "A rule that reads only the first header does not see what comes behind another.",
			Fix:  note("let the rules drop fragments and unknown headers, or track connections, which puts fragments together"),
			Refs: []finding.Reference{{Source: "RFC 7112"}, {Source: "RFC 9288"}},
		},
	}
}
