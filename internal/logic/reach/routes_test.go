package reach_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/testlab/corpus"
)

// TestTypesOfAllSources: the parts by type are what each address is by itself, and every
// address is in one of them.
func TestTypesOfAllSources(t *testing.T) {
	t.Parallel()
	for _, name := range corpus.Names() {
		e, err := corpus.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		r := reach.NewRoutes(&e.Snapshot.Namespaces[0])
		links, _ := e.Snapshot.Namespaces[0].Links.Get()
		for _, l := range append(links[:len(links):len(links)], links[0]) {
			by, ok := r.FibTypes4(l.Name)
			if _, one := r.FibType(netip.MustParseAddr("192.0.2.1"), l.Name); one != ok {
				t.Errorf("%s: known %v, one address %v", name, ok, one)
			}
			var all []packetset.Interval
			for typ, s := range by {
				for _, iv := range s {
					all = append(all, iv)
					for _, a := range []packetset.Addr{iv.From, iv.To} {
						if got, ok := r.FibType(a.IP(true), l.Name); !ok || got != typ {
							t.Errorf("%s on %s: %s is %d, by itself %d", name, l.Name, a.IP(true), typ, got)
						}
					}
				}
			}
			if whole := (packetset.Set{{To: packetset.Last(true)}}); ok && !slices.Equal(packetset.Normalise(all), whole) {
				t.Errorf("%s on %s: the parts are not all addresses: %v", name, l.Name, by)
			}
		}
	}
}

// TestOpenAnswersSayWhy: where a field that no question fixes decides, the answer names
// it and the rule.
func TestOpenAnswersSayWhy(t *testing.T) {
	for rule, want := range map[string]string{
		"ether saddr 02:00:00:00:00:07 tcp dport 22 accept": "rules that depend on the sender's hardware address (ether saddr) (inet t in handle 2)",
		"tcp sport 5000 accept":                             "rules that depend on the source port (inet t in handle 2)",
		"tcp dport 22 fib saddr . iif oif exists accept":    "rules that depend on a route lookup (fib) (inet t in handle 2)",
	} {
		set := load(t, "table inet t { chain in { type filter hook input priority 0; policy drop; "+rule+"; }; }")
		v := reach.FromRuleset(set, binary.LittleEndian).Any("tcp", 22, 10)
		if !slices.Contains(v.Assumes, want) || len(v.Must) > 0 || len(v.May) == 0 {
			t.Errorf("%s: %v, must %v, may %v", rule, v.Assumes, v.Must, v.May)
		}
		if len(v.DecidedBy) == 0 || v.DecidedBy[0].Handle != 2 {
			t.Errorf("%s: decided by %v", rule, v.DecidedBy)
		}
	}
}
