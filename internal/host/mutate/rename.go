package mutate

import (
	"strings"

	"github.com/sixfence/sixfence/internal/model/change"
)

// Links are the interfaces of the calling process's namespace, by their index.
func Links() (map[uint32]string, error) { return names() }

// Renamed is the target of an object after the interface that it hangs on got another
// name: to has the new names by the old ones.
func Renamed(k change.Kind, target string, to map[string]string) string {
	switch k {
	case change.Sysctl:
		w := strings.Split(target, "/")
		if n, ok := to[InterfaceOf(target)]; ok {
			w[3] = n
		}
		return strings.Join(w, "/")
	case change.Neighbour, change.AddressObj:
		name, rest, _ := strings.Cut(target, " ")
		if n, ok := to[name]; ok {
			return n + " " + rest
		}
	case change.RouteObj:
		w := strings.Fields(target)
		for i := 1; i < len(w); i++ {
			if n, ok := to[w[i]]; ok && w[i-1] == "dev" {
				w[i] = n
			}
		}
		return strings.Join(w, " ")
	}
	return target
}

// InterfaceOf is the interface of a sysctl ("net/ipv6/conf/eth0/accept_ra"); empty when it
// has none.
func InterfaceOf(target string) string {
	w := strings.Split(target, "/")
	if len(w) != 5 || w[0] != "net" || w[2] != "conf" && w[2] != "neigh" {
		return ""
	}
	return w[3]
}
