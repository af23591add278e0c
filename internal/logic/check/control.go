package check

import (
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// Control is one row of the catalogue.
type Control struct {
	ID       string // e.g. SYSCTL-RA-01
	Title    string // one line, says what is wrong when it fails: "Interface would accept rogue router advertisements"
	Severity finding.Severity
	Reason   string // why this severity
	// Positions are where an attacker must stand; required for high and critical.
	Positions []finding.Position
	// Source is where the facts come from, Rule how the kernel combines them.
	Source string
	Rule   string
	// What, Why, Attack, Check teach (`sixfence explain`): what is looked at, why it
	// matters, how it is abused, how we check it. Plain sentences.
	What, Why, Attack, Check string
	// Fix is the generic remediation; an Eval may give a more exact one.
	Fix      []finding.Remediation
	TradeOff string
	// Refs: RFC section, CIS, STIG, ANSSI ids.
	Refs []finding.Reference
	// Live is true when the control needs a running kernel: on a directory
	// tree (--root) it is unknown with one shared Gap and Eval is not called.
	Live bool
	// Eval answers for every subject. No result at all means that there was no
	// subject, which is reported as one not-applicable.
	Eval func(*Context) []Result
}

// Result is a control's answer for one subject.
type Result struct {
	Subject   finding.Subject
	Effective finding.Status // pass, fail, unknown or not-applicable
	// Compliance is what the benchmark reads; empty means the same as Effective.
	Compliance finding.Status
	// Status is the one that counts; empty means Effective. Controls that
	// only a benchmark cares about set it to Compliance.
	Status finding.Status
	// Severity overrides the control's; empty keeps it.
	Severity finding.Severity
	// Positions override the control's; nil keeps them.
	Positions []finding.Position
	// Title overrides the control's title.
	Title       string
	Message     string // what was found, in one or two sentences; says why when not-applicable
	Evidence    []finding.Evidence
	Remediation []finding.Remediation // empty: the control's Fix
	Gaps        []fact.Gap            // why it is unknown; required when Effective is unknown
	// port is the port that was looked at where the subject must not name it, because
	// the kernel chose it.
	port uint16
	// Foreign is set for subjects inside namespaces that any user could make.
	Foreign bool
}

// Disposition says what became of a row of the catalogue that is not implemented here.
type Disposition struct {
	ID    string
	Title string
	// State: "needs wire" | "dropped"
	State   string
	Because string
}
