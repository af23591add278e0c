package probe

import "net/netip"

// PathVerdict says what became of path-MTU discovery.
type PathVerdict string

// The verdicts.
const (
	PathHonoured PathVerdict = "honoured"  // the target sends smaller packets when it is told to
	PathIgnored  PathVerdict = "ignored"   // it goes on sending large ones
	PathHole     PathVerdict = "blackhole" // large packets are lost, and nobody says so
	PathUnknown  PathVerdict = "unknown"
)

// PathVerdicts lists the verdicts.
func PathVerdicts() []PathVerdict {
	return []PathVerdict{PathHonoured, PathIgnored, PathHole, PathUnknown}
}

// Path is what is known about the size of packets to an address and back.
type Path struct {
	Verdict PathVerdict `json:"verdict"`
	// LinkMTU is that of the interface here, MTU the largest packet that was answered.
	LinkMTU int `json:"linkMTU"`
	MTU     int `json:"mtu,omitempty"`
	// Hop said Packet Too Big to us, and HopMTU is what it said.
	Hop    netip.Addr `json:"hop,omitzero"`
	HopMTU int        `json:"hopMTU,omitempty"`
	// Way of a blackhole: there, back, or empty when it is not known.
	Way string `json:"way,omitempty"`
	// Why it is unknown.
	Why string `json:"why,omitempty"`
}
