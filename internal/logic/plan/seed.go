package plan

import (
	"fmt"
	"slices"
	"strings"
)

// liveTimeout is how long a flow that was open when the rules were loaded may stay
// silent: as long as conntrack remembers one.
const liveTimeout = "5d"

// Seed is the nft script that lists open flows in our table, for the transaction that
// loads its rules: a first stateful ruleset would otherwise cut those on which the far
// side speaks next. It is empty when there is nothing to list, and it is no part of the
// Plan, since what is open changes while a person reads.
func Seed(rules string, flows []Live) string {
	v4, v6 := strings.Contains(rules, "\tset live4 {\n"), strings.Contains(rules, "\tset live6 {\n")
	var four, six []string
	for _, f := range flows {
		l, r := f.Local.Addr().Unmap().WithZone(""), f.Remote.Addr().Unmap().WithZone("")
		if !l.IsValid() || !r.IsValid() || l.Is4() != r.Is4() || l.IsUnspecified() || r.IsUnspecified() || r.IsLoopback() || f.Remote.Port() == 0 || f.Local.Port() == 0 {
			continue
		}
		e := fmt.Sprintf("%d . %s . %d . %s . %d timeout %s", f.Proto, r, f.Remote.Port(), l, f.Local.Port(), liveTimeout)
		switch {
		case l.Is4() && v4:
			four = append(four, e)
		case l.Is6() && v6:
			six = append(six, e)
		}
	}
	var b strings.Builder
	for _, s := range []struct {
		name string
		list []string
	}{{"live6", six}, {"live4", four}} {
		slices.Sort(s.list)
		s.list = slices.Compact(s.list)
		if len(s.list) > liveSize {
			s.list = s.list[:liveSize]
		}
		if len(s.list) > 0 {
			b.WriteString("add element " + Table + " " + s.name + " { " + strings.Join(s.list, ", ") + " }\n")
		}
	}
	return b.String()
}
