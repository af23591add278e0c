package fact

import (
	"slices"
	"strings"
)

// Sysctls are the net.* settings of one namespace as the kernel holds them now.
//
// Values are keyed by path below /proc/sys ("net/ipv6/conf/eth0.100/accept_ra"):
// interface names may contain dots, so the dotted form is ambiguous. Values are
// trimmed text. A key that a complete listing does not have is unsupported by
// this kernel.
type Sysctls struct {
	Values map[string]string `json:"values"`
	// Gaps are the keys and directories that exist and could not be read.
	Gaps map[string]Gap `json:"gaps,omitempty"`
	// Complete lists the directories that were listed to the end, e.g.
	// "net/ipv6/conf/eth0": a key below them that is missing is unsupported.
	Complete []string `json:"complete,omitempty"`
	// Unsupported are keys and directories that were looked for by name and do
	// not exist: no key at or below them is supported.
	Unsupported []string `json:"unsupported,omitempty"`
}

// Get returns the setting at path. A key or directory that could not be read is
// its Gap, and so is everything below it. Below a directory that was listed to
// the end a missing key is unsupported; elsewhere it is a Gap.
func (s Sysctls) Get(path string) Known[string] {
	if v, ok := s.Values[path]; ok {
		return Value(v)
	}
	for at := path; ; {
		if g, ok := s.Gaps[at]; ok {
			return Missing[string](g)
		}
		if slices.Contains(s.Unsupported, at) || at != path && slices.Contains(s.Complete, at) {
			return Unsupported[string]()
		}
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			return Missing[string](Gap{Reason: NotCollected, What: "/proc/sys/" + path})
		}
		at = at[:i]
	}
}
