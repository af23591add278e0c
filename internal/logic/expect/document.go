package expect

import (
	"net/netip"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// Document is what `sixfence verify --format json` prints.
type Document struct {
	SchemaVersion string            `json:"schemaVersion"`
	Tool          string            `json:"tool"`
	At            time.Time         `json:"at"`
	Seconds       float64           `json:"seconds"`
	Complete      bool              `json:"complete"` // nothing was cut short, and every vantage answered
	Addresses     []Seen            `json:"addresses"`
	Parity        []Parity          `json:"parity"`
	Across        []Across          `json:"across"` // what does not look alike from every vantage
	Lost          []Lost            `json:"lost"`   // vantages without an answer
	Names         []probe.Name      `json:"names"`  // what DNS says about targets that are names, and what clients make of it
	Findings      []finding.Finding `json:"findings"`
	Gaps          []finding.Gap     `json:"gaps"`
	// Guards is the test of a host's own guards (--guards).
	Guards  *probe.Guards `json:"guards,omitempty"`
	Results []Result      `json:"results"`
}

// DocumentVersion is the schemaVersion of a Document.
const DocumentVersion = "1.0"

// Seen is how an address was looked at.
type Seen struct {
	Target    string     `json:"target"`
	Via       string     `json:"via,omitempty"` // the host that claims this
	Address   netip.Addr `json:"address"`
	Family    string     `json:"family"`
	Source    netip.Addr `json:"source,omitzero"`
	Interface string     `json:"interface,omitempty"`
	Gateway   netip.Addr `json:"gateway,omitzero"`
	OnLink    bool       `json:"onLink"`
	Self      bool       `json:"self"`
	// SameSite is what shows that source and target are behind the same border; empty: nothing.
	SameSite probe.Site `json:"sameSite"`
	Life     probe.Life `json:"life"` // empty: no sign of it
	Problem  string     `json:"problem,omitempty"`
	Sent     int        `json:"sent"`
	Controls int        `json:"controls"` // probes of which an answer was sure
	Lost     int        `json:"lost"`     // of those
	Complete bool       `json:"complete"`
	// Path is what path-MTU discovery does (--path).
	Path *probe.Path `json:"path,omitempty"`
	// Distances are its answers by the number of routers on their way.
	Distances []probe.Distant `json:"distances"`
	// Traces are the ways to some ports, hop by hop (--hops).
	Traces []probe.Trace `json:"traces,omitempty"`
	// Chains is what became of probes behind headers and in fragments (--variants).
	Chains []probe.Chained `json:"chains,omitempty"`
	// Soak is whether neighbours find it after a while (--soak).
	Soak  *probe.Soak `json:"soak,omitempty"`
	Notes []string    `json:"notes"`
}
