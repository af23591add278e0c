package finding

// Exposure is a service that outsiders get to: over one family only, or from anywhere.
type Exposure struct {
	NetNS   string `json:"netns"`
	Proto   string `json:"proto"`
	Port    uint16 `json:"port"`
	Process string `json:"process,omitempty"` // executable
	PID     int    `json:"pid,omitempty"`
	Unit    string `json:"unit,omitempty"`
	// Differs tells which family is wider: ipv6 or ipv4; empty when both are as open.
	Differs string `json:"differs,omitempty"`
	IPv4    Access `json:"ipv4"`
	IPv6    Access `json:"ipv6"`
}

// Access is who gets to a service over one family.
type Access struct {
	// State: none (it takes no packet of this family) | closed | some | open | unknown.
	State     string    `json:"state"`
	Sources   string    `json:"sources,omitempty"` // in words: who, by which interfaces
	DecidedBy []RuleRef `json:"decidedBy"`         // the rules, or the policy, that decide
	Witness   string    `json:"witness,omitempty"` // one packet that shows it: source → destination
}

// The states of an Access.
const (
	AccessNone    = "none"
	AccessClosed  = "closed"
	AccessSome    = "some"
	AccessOpen    = "open"
	AccessUnknown = "unknown"
)

// RuleRef names a rule, or the policy of a base chain (handle 0).
type RuleRef struct {
	Table  string `json:"table"` // family and name: "inet filter"
	Chain  string `json:"chain"`
	Handle uint64 `json:"handle,omitempty"`
	Rule   string `json:"rule"`
}
