package reach

import "github.com/sixfence/sixfence/internal/model/fact"

// DocumentVersion is the version of the documents below.
const DocumentVersion = "1.0"

// Document is what `sixfence reach --format json` prints.
type Document struct {
	SchemaVersion string        `json:"schemaVersion"`
	Listeners     []Listener    `json:"listeners"`
	Flows         []Flow        `json:"flows"`
	Lint          []Lint        `json:"lint"`
	Gaps          []DocumentGap `json:"gaps"`
}

// DocumentGap is something that could not be read, or is not modelled: V.Assumes has
// its id.
type DocumentGap struct {
	ID     string      `json:"id"`
	Reason fact.Reason `json:"reason"`
	What   string      `json:"what"`
	NetNS  string      `json:"netns"`
}

// DiffDocument is what `sixfence reach diff --format json` prints.
type DiffDocument struct {
	SchemaVersion string       `json:"schemaVersion"`
	Differences   []Difference `json:"differences"`
}

// Difference is a port that two answers treat differently: before and after, or IPv4
// and IPv6.
type Difference struct {
	NetNS   string `json:"netns"`
	Hook    string `json:"hook"`             // input | forward | output: what this host sends; before and after are then destinations
	Proto   string `json:"proto"`            // tcp, udp, icmp, icmpv6 … or a number
	Port    uint16 `json:"port"`             // 0: the protocol has none; of ICMP the type
	PortTo  uint16 `json:"portTo,omitempty"` // the last of a range of ports that differ alike
	Process string `json:"process"`
	// Interface is the incoming one, where rules name it; empty: those that they do not name, or all.
	Interface string `json:"interface,omitempty"`
	Family    string `json:"family,omitempty"` // of before ↔ after
	Before    string `json:"before"`           // who gets in; or over IPv4
	After     string `json:"after"`            // or over IPv6
	Change    Change `json:"change"`
	// DecidedBy are the rules of the wider side.
	DecidedBy []RuleRef `json:"decidedBy"`
	Witness   *Witness  `json:"witness"`
}

// Change is what became of a port.
type Change string

// The changes. Something is opened when a source that surely stayed outside surely
// gets in now, and unclear when one may.
const (
	Opened    Change = "opened"
	Shut      Change = "closed"
	Unsure    Change = "unclear"
	WiderIPv6 Change = "wider-ipv6"
	WiderIPv4 Change = "wider-ipv4"
)
