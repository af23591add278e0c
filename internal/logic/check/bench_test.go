package check

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// large is the size that docs/performance.md speaks of: 3 namespaces, 20
// interfaces, 500 processes, 1,000 sockets.
func large() *fact.Snapshot {
	s := host()
	addNamespace(s, "lab")
	addNamespace(s, "web")
	for n := range s.Namespaces {
		ns := &s.Namespaces[n]
		for i := range 5 {
			addLinkIn(ns, fmt.Sprintf("eth0.%d", 100+i))
		}
		for i := range 333 {
			addSocketIn(ns, fact.Socket{
				Family: "ipv6", Protocol: "tcp", State: "listen", Local: netip.IPv6Unspecified(), Port: uint16(2000 + i),
				V6Only: fact.Value(i%2 == 0), Inode: uint64(10000*n + i), Owners: fact.Value([]int{1000 + i}), Source: "inet_diag",
			})
		}
		for i := range 1000 {
			r := route(fmt.Sprintf("2001:db8:%x::/48", i+2), "fe80::1", 2, fact.ProtoStatic)
			ns.Routes = fact.Value(append(must(ns.Routes), r))
		}
	}
	for i := range 500 {
		addProcess(s, 1000+i, fmt.Sprintf("/usr/bin/service%d", i))
	}
	return s
}

func BenchmarkEvaluate(b *testing.B) {
	s := large()
	b.ReportAllocs()
	for b.Loop() {
		Evaluate(s, Options{})
	}
}
