package probe

import "strings"

// GuardVerdict says what became of a forged message.
type GuardVerdict string

// The verdicts. Of a message that has to come through, Taken is what is wanted.
const (
	GuardTaken   GuardVerdict = "taken"   // the kernel acted on it: Changed says how
	GuardStopped GuardVerdict = "stopped" // nothing changed
	GuardUnknown GuardVerdict = "unknown" // it could not be told
)

// GuardVerdicts lists the verdicts.
func GuardVerdicts() []GuardVerdict {
	return []GuardVerdict{GuardTaken, GuardStopped, GuardUnknown}
}

// GuardGroup is a sort of message.
type GuardGroup string

// The groups.
const (
	GuardRA        GuardGroup = "router advertisements"
	GuardRedirect  GuardGroup = "redirects"
	GuardNeighbour GuardGroup = "neighbour entries"
)

// GuardGroups lists the groups.
func GuardGroups() []GuardGroup { return []GuardGroup{GuardRA, GuardRedirect, GuardNeighbour} }

// Guards is what a host, made again in namespaces of its own, does about forged messages of
// neighbour discovery.
type Guards struct {
	Kernel string `json:"kernel"` // on which it was tried
	// Reason is why nothing could be tried.
	Reason     string  `json:"reason,omitempty"`
	WayOut     string  `json:"wayOut,omitempty"`
	Interfaces []Guard `json:"interfaces"`
	// Loaded are the rules of the host that were there, NotLoaded those that could not be,
	// with the reason: what they would have done is not known.
	Loaded    []string `json:"loaded"`
	NotLoaded []string `json:"notLoaded"`
	// Limits are what else of the host was not made again.
	Limits []string `json:"limits"`
}

// Guard is one interface, or a port of a bridge.
type Guard struct {
	Interface string `json:"interface"`
	Port      string `json:"port,omitempty"` // of a bridge: frames came in here
	// Unknown is why nothing of it counts.
	Unknown string `json:"unknown,omitempty"`
	// Client takes advertisements in user space here; what it makes of them is not tried.
	Client string `json:"client,omitempty"`
	// Router is the one whose own advertisement has to come through, with its MAC address where
	// that is known.
	Router  string         `json:"router,omitempty"`
	Attacks []GuardAttempt `json:"attacks"`
	// Control is the router's own advertisement; nil: this host takes none, or its router is
	// not known.
	Control *GuardAttempt `json:"control,omitempty"`
}

// GuardAttempt is one message and what became of it.
type GuardAttempt struct {
	Group   GuardGroup   `json:"group"`
	Name    string       `json:"name"`
	Verdict GuardVerdict `json:"verdict"`
	Why     string       `json:"why,omitempty"` // it is unknown
	// By is who stopped it: rules, the kernel (its settings and its own checks), or both.
	By string `json:"by,omitempty"`
	// Bare: without any rules it is taken.
	Bare bool `json:"bare"`
	// Through: it comes through every rule, to whoever listens.
	Through bool     `json:"through"`
	Changed []string `json:"changed,omitempty"`
	Packet  []string `json:"packet,omitempty"` // of what was taken: its frames, in hex
}

// Names are messages by who sends them and how: "of a rogue: plain, hop-by-hop".
func Names(as []GuardAttempt) []string {
	var out, leads []string
	ways := map[string][]string{}
	for _, a := range as {
		lead, way, _ := strings.Cut(a.Name, ": ")
		if ways[lead] == nil {
			leads = append(leads, lead)
		}
		ways[lead] = append(ways[lead], way)
	}
	for _, l := range leads {
		out = append(out, strings.TrimSuffix(l+": "+strings.Join(ways[l], ", "), ": "))
	}
	return out
}
