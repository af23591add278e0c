package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

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

// maxPacket is more than any interface carries.
const maxPacket = 1 << 24

// plausible tells whether somebody else may say this of an address: each new field of Path
// is bounded here.
func (m *Path) plausible(of netip.Addr) error {
	switch {
	case !slices.Contains(PathVerdicts(), m.Verdict):
		return fmt.Errorf("%.40q is no verdict", m.Verdict)
	case m.Hop.Zone() != "" || m.Hop.IsValid() && m.Hop.BitLen() != of.BitLen():
		return fmt.Errorf("a router that cannot be: %.80q", m.Hop)
	case !slices.Contains([]string{"", "there", "back"}, m.Way):
		return fmt.Errorf("%.40q is no way", m.Way)
	case len(m.Why) > maxNote:
		return errors.New("a text that is too long")
	}
	for _, n := range []int{m.LinkMTU, m.MTU, m.HopMTU} {
		if n < 0 || n > maxPacket {
			return fmt.Errorf("a size that cannot be: %d", n)
		}
	}
	return nil
}
