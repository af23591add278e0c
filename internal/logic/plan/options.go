package plan

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Table is the target of the step that loads our rules: the only table that is ours.
const Table = "inet sixfence"

// Options are what a Plan depends on besides the intent and the Snapshot.
type Options struct {
	// Namespace is the name of the one to harden; empty: the caller's own.
	Namespace string
	// Decode reads an nft script as the kernel does, without loading it where it would
	// act. Without it nothing can be said about reach after the change, and the Plan
	// has a Gap.
	Decode func(script string) (*rs.Ruleset, error)
	// Read returns a file as it is now; Absent when there is none. Without it all files
	// that are written count as new.
	Read func(path string) (change.Image, error)
	// Learned is the directory for what is learned once: that of the intent's drop-ins,
	// so that the next plan reads what this one learned. Empty: there is none.
	Learned string
	// Table is our table as `nft -s list table inet sixfence` prints it, for the inverse;
	// empty when there is none.
	Table string
	// Program is where this program lies, for the unit that restores what others undo;
	// empty: where packages put it.
	Program string
	// NoSystemd: nothing on this host would load our rules when it starts.
	NoSystemd bool
	// Administered are the connections by which people administer the host now.
	Administered []change.Way
}

// Live is a connection that is open when our rules are loaded, as this host sees it.
type Live struct {
	Proto  uint8 // 6 TCP, 17 UDP, 132 SCTP …
	Local  netip.AddrPort
	Remote netip.AddrPort
}

// Problem is something in an intent that cannot be carried out as it is written.
type Problem struct {
	Path string // into the intent: services[2].from
	Why  string
	Hint string
}

// Error implements error.
func (p *Problem) Error() string { return p.Path + ": " + p.Why }

// Defaults of limits, in packets.
const (
	echoPerSecond = intent.EchoPerSecond // of one source
	ndPerSecond   = intent.NDPerSecond   // of one MAC
	fullPerSecond = 1000                 // of all senders together that no longer fit into a set
	echoSenders   = 65536
	ndSenders     = 4096
	ndNeighbours  = 65536 // more than all newcomers together may add before one is forgotten
)

// namespace finds the namespace to harden.
func namespace(s *fact.Snapshot, name string) *fact.Namespace {
	if name == "" {
		// Any other than the host's own may be a container's.
		if n := s.Home(); n != nil && (n.IsSelf || n.IsInit) {
			return n
		}
		return nil
	}
	for i := range s.Namespaces {
		if s.Namespaces[i].Name == name {
			return &s.Namespaces[i]
		}
	}
	return nil
}

// manages tells for which families rules are written.
func manages(in *intent.Intent) (v4, v6 bool) {
	switch in.Firewall.Manage {
	case intent.ManageNone:
		return false, false
	case intent.ManageIPv6:
		return false, true
	}
	return true, true
}

// disabled tells that the host is to have no IPv6.
func disabled(in *intent.Intent) bool {
	return in.Families == intent.Disabled || in.Families == intent.DisabledKeepLoopback
}

// routes tells that what passes through the host is ours to decide.
func routes(in *intent.Intent) bool {
	return !in.Forwarding.Unmanaged && (in.Role == intent.RoleRouter || len(in.Forwarding.Allow) > 0)
}
