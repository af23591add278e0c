package fact

import "strings"

// Sysctls are the net.* settings of one namespace as the kernel holds them now.
//
// Values are keyed by path below /proc/sys ("net/ipv6/conf/eth0.100/accept_ra"):
// interface names may contain dots, so the dotted form is ambiguous. Values are
// trimmed text. A key that a complete listing does not have is unsupported by
// this kernel.
type Sysctls struct {
	Values map[string]string `json:"values"`
	// Gaps are the keys that exist and could not be read.
	Gaps map[string]Gap `json:"gaps,omitempty"`
	// Complete lists the directories that were listed to the end, e.g.
	// "net/ipv6/conf/eth0": a key below them that is missing is unsupported.
	Complete []string `json:"complete,omitempty"`
}

// Get returns the setting at path. Below a directory that was listed to the
// end a missing key is unsupported; elsewhere it is a Gap.
func (s Sysctls) Get(path string) Known[string] {
	if v, ok := s.Values[path]; ok {
		return Value(v)
	}
	if g, ok := s.Gaps[path]; ok {
		return Missing[string](g)
	}
	dir := path
	for {
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			break
		}
		dir = dir[:i]
		for _, c := range s.Complete {
			if c == dir {
				return Unsupported[string]()
			}
		}
	}
	return Missing[string](Gap{Reason: NotCollected, What: "/proc/sys/" + path})
}
