package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// forwarder adds a second link to the victim of a pair: v0 <- attacker, v1 -> inner.
type forwarder struct {
	*testlab.Pair
	inner *testlab.NS
	wire  *testlab.Wire // on the inner end: what comes out of the victim
}

var innerHost = netip.MustParseAddr("2001:db8:2::2")

func newForwarder(t testing.TB) *forwarder {
	t.Helper()
	f := &forwarder{Pair: testlab.NewPair(t, "fw"), inner: testlab.NewNS(t, "fwi")}
	f.inner.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	f.inner.Sysctl("net/ipv6/conf/all/accept_dad", "0")
	testlab.Link(f.Victim, "v1", f.inner, "i0")
	f.Victim.AddAddr("v0", "2001:db8:1::b/64")
	f.Victim.AddAddr("v1", "2001:db8:2::1/64")
	f.inner.AddAddr("i0", innerHost.String()+"/64")
	f.wire = f.inner.Wire("i0")
	return f
}

// forwards sends one echo request through the victim and tells whether it came
// out on the other side.
func (f *forwarder) forwards() bool {
	p := testlab.Frame{SrcMAC: f.Wire.MAC, DstMAC: f.VictimMAC, HopLimit: 64, Src: netip.MustParseAddr("2001:db8:1::a"), Dst: innerHost}
	f.Wire.Send(p.Echo(7, 1).Bytes())
	f.Barrier() // whatever was going to be sent has been sent
	return f.wire.Receive(700*time.Millisecond, func(b []byte) bool {
		return len(b) >= 62 && b[20] == testlab.ProtoICMPv6 && b[54] == testlab.TypeEcho && netip.AddrFrom16([16]byte(b[38:54])) == innerHost
	}) != nil
}

// force_forwarding (since Linux 6.17) forwards what comes in on one interface
// although all.forwarding, the only value that benchmarks read, is 0.
func TestForceForwarding(t *testing.T) {
	t.Parallel()
	var labs []*forwarder
	var names []string
	for _, all := range []string{"0", "1"} {
		for _, v0 := range []string{"0", "1"} { // ingress
			for _, v1 := range []string{"0", "1"} { // egress
				f := newForwarder(t)
				f.Victim.Sysctl("net/ipv6/conf/all/forwarding", all)
				f.Victim.Sysctl("net/ipv6/conf/v0/force_forwarding", v0)
				f.Victim.Sysctl("net/ipv6/conf/v1/force_forwarding", v1)
				labs, names = append(labs, f), append(names, fmt.Sprintf("all.forwarding=%s force_forwarding v0=%s v1=%s", all, v0, v1))
			}
		}
	}
	r := outside(t, labs[0].Victim)
	for i, f := range labs {
		r.netns = f.Victim.Name
		did := f.forwards()
		global := r.one(t, "SYSCTL-FWD-01", finding.Subject{})
		forced := r.one(t, "SYSCTL-FWD-03", on("v0"))
		if said := global.Effective == finding.Fail || forced.Effective == finding.Fail; said != did {
			t.Errorf("%s: SYSCTL-FWD-01 %s, SYSCTL-FWD-03 %s, the kernel forwarded: %v", names[i], global.Effective, forced.Effective, did)
		}
		if f.Victim.ReadSysctl("net/ipv6/conf/all/forwarding") == "1" {
			continue // forwarding is on anyway
		}
		// What leaves on v1 is not what v1's value is about; what comes in there is.
		egress := r.one(t, "SYSCTL-FWD-03", on("v1"))
		if want := f.Victim.ReadSysctl("net/ipv6/conf/v1/force_forwarding"); (egress.Effective == finding.Fail) != (want == "1") {
			t.Errorf("%s: SYSCTL-FWD-03 about v1 is %s", names[i], egress.Effective)
		}
	}
}

// accept_redirects counts on the interface, and only while that is no router.
func TestRedirectVerdictIsWhatTheKernelDoes(t *testing.T) {
	t.Parallel()
	var labs []*testlab.Pair
	var names []string
	for _, all := range []string{"0", "1"} {
		for _, v0 := range []string{"0", "1"} {
			for _, fwd := range []string{"0", "1"} {
				p := testlab.NewPair(t, "red")
				p.Victim.AddAddr("v0", "2001:db8:1::b/64")
				p.Victim.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "v0")
				p.Victim.Sysctl("net/ipv6/conf/all/accept_redirects", all)
				p.Victim.Sysctl("net/ipv6/conf/v0/accept_redirects", v0)
				p.Victim.Sysctl("net/ipv6/conf/v0/forwarding", fwd)
				labs, names = append(labs, p), append(names, fmt.Sprintf("accept_redirects all=%s v0=%s, v0.forwarding=%s", all, v0, fwd))
			}
		}
	}
	r := outside(t, labs[0].Victim)
	for i, p := range labs {
		r.netns = p.Victim.Name
		evil, dst := netip.MustParseAddr("fe80::bad"), netip.MustParseAddr("2001:db8:ffff::1")
		f := testlab.Frame{SrcMAC: p.Wire.MAC, DstMAC: p.VictimMAC, Src: netip.MustParseAddr("fe80::1"), Dst: p.VictimLL}
		p.Wire.Send(f.Redirect(evil, dst, p.Wire.MAC).Bytes())
		p.Barrier()
		followed := strings.Contains(p.Victim.IP("-6", "route", "get", dst.String()), "via "+evil.String())
		if v := r.one(t, "SYSCTL-RED-01", on("v0")); v.Effective != verdict(followed) {
			t.Errorf("%s: verdict %s, the kernel followed the redirect: %v\n  %s", names[i], v.Effective, followed, v.Message)
		}
	}
}
