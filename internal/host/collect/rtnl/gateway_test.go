package rtnl

import (
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestGatewaysAndAges: of IPv4's neighbours the gateways are kept, and no others; an
// address is as old as it is.
func TestGatewaysAndAges(t *testing.T) {
	n := testlab.NewNS(t, "gw")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	n.IP("link", "set", "v0", "up")
	n.IP("addr", "add", "192.0.2.1/24", "dev", "v0")
	n.IP("route", "add", "default", "via", "192.0.2.254")
	n.IP("neigh", "add", "192.0.2.254", "lladdr", "02:00:00:00:00:fe", "dev", "v0", "nud", "permanent")
	n.IP("neigh", "add", "192.0.2.7", "lladdr", "02:00:00:00:00:07", "dev", "v0", "nud", "permanent")
	made := time.Now()
	n.IP("addr", "add", "2001:db8::1/64", "dev", "v0", "nodad")
	ns := collect(n)
	gs := must(t, "gateways", ns.Gateways4)
	if len(gs) != 1 || gs[0].MAC != "02:00:00:00:00:fe" || gs[0].Address.String() != "192.0.2.254" {
		t.Errorf("gateways: %+v", gs)
	}
	age := func(ns fact.Namespace) int64 {
		for _, a := range must(t, "addresses", ns.Addresses) {
			if a.Prefix.Addr().String() == "2001:db8::1" {
				return must(t, "age", a.Age)
			}
		}
		t.Fatal("no address")
		return 0
	}
	if got, most := age(ns), int64(time.Since(made).Seconds())+1; got < 0 || got > most {
		t.Errorf("the address is said to be %d s old, and was made %d s ago at most", got, most)
	}
	// It ages, and no faster than the clock.
	testlab.Eventually(t, time.Minute, "the address to be older than a second", func() bool { return age(collect(n)) >= 1 })
	if got, most := age(collect(n)), int64(time.Since(made).Seconds())+1; got > most {
		t.Errorf("the address is said to be %d s old, and was made %d s ago at most", got, most)
	}
}
