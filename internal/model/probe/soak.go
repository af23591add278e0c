package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// SoakVerdict says whether a neighbour that does not know an address still finds it, when
// everything that keeps it findable had the time to expire.
type SoakVerdict string

// The verdicts.
const (
	SoakKept    SoakVerdict = "kept"    // it is found as on the first day
	SoakLost    SoakVerdict = "lost"    // its group does not reach it: only who knows its MAC address does
	SoakUnknown SoakVerdict = "unknown" // it could not be told, or nothing expired
)

// SoakVerdicts lists the verdicts.
func SoakVerdicts() []SoakVerdict { return []SoakVerdict{SoakKept, SoakLost, SoakUnknown} }

// Asked counts questions.
type Asked struct {
	Sent     int `json:"sent"`
	Answered int `json:"answered"`
}

// Soak is what became of an address while it was left alone.
type Soak struct {
	Verdict SoakVerdict `json:"verdict"`
	// Why it is unknown.
	Why string `json:"why,omitempty"`
	// Seconds between the first question and the last.
	Seconds float64 `json:"seconds"`
	// Group counts the questions to everybody who may have the address (its solicited-node
	// group; all of the link over IPv4), Direct those to its MAC address.
	Group  Asked `json:"group"`
	Direct Asked `json:"direct"`
	// LostAfter is when the group no longer reached it, in seconds; 0: already at first.
	LostAfter *float64 `json:"lostAfter,omitempty"`
	// MAC is the link-layer address that it answered with.
	MAC string `json:"mac,omitempty"`
	// Querier asks this link who is in which group: the last that was heard, how often
	// queries were, and the version of MLD of the last.
	Querier        netip.Addr `json:"querier,omitzero"`
	QuerierVersion int        `json:"querierVersion,omitempty"`
	Queries        int        `json:"queries"`
	// Interval is how long a group lives without a report, in seconds, as the querier's
	// numbers say.
	Interval float64 `json:"interval,omitempty"`
	// Reports of the target for the group of this address that came to this host. A switch
	// that snoops shows none.
	Reports int `json:"reports"`
}

// SavedSoak is a Soak that was cut short.
type SavedSoak struct {
	Begin time.Time `json:"begin"`
	Last  time.Time `json:"last"` // when it was cut
	Found Soak      `json:"found"`
}

// SoakTime is a membership interval with the defaults of RFC 3810 (and of RFC 2710), twice
// 125 seconds and ten, and some room.
const SoakTime = 270 * time.Second

// maxGap is how long a soak may have been cut: the rules are not watched in between.
const maxGap = 10 * time.Minute

// SoakOf is a soak of an address that can be gone on with; nil: there is none.
func (s *Saved) SoakOf(addr, source netip.Addr, now time.Time) *SavedSoak {
	for _, a := range s.Addresses {
		x := a.Soak
		if a.Via == "" && a.Address == addr && a.Source == source && x != nil && !x.Begin.After(x.Last) && !x.Last.After(now) && now.Sub(x.Last) < maxGap && x.Found.Group.Answered > 0 {
			return x
		}
	}
	return nil
}

// plausible tells whether somebody else may say this of an address: each new field of Soak
// is bounded here.
func (m *Soak) plausible() error {
	switch {
	case !slices.Contains(SoakVerdicts(), m.Verdict):
		return fmt.Errorf("%.40q is no verdict", m.Verdict)
	case len(m.Why) > maxNote:
		return errors.New("a text that is too long")
	case len(m.MAC) > len("00:00:00:00:00:00") || strings.Trim(m.MAC, "0123456789abcdef:") != "":
		return fmt.Errorf("%.40q is no MAC address", m.MAC)
	case m.Querier.Zone() != "":
		return fmt.Errorf("a querier that cannot be: %.80q", m.Querier)
	}
	for _, n := range []int{m.Group.Sent, m.Group.Answered, m.Direct.Sent, m.Direct.Answered, m.QuerierVersion, m.Queries, m.Reports} {
		if n < 0 || n > maxCount {
			return fmt.Errorf("a number that cannot be: %d", n)
		}
	}
	times := []float64{m.Seconds, m.Interval}
	if m.LostAfter != nil {
		times = append(times, *m.LostAfter)
	}
	for _, t := range times {
		if t < 0 || t > 1e9 {
			return fmt.Errorf("a time that cannot be: %g", t)
		}
	}
	return nil
}
