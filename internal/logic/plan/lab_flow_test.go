package plan_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestIdleConnectionsStay: connections that were open before the first rules, out and
// in, over both families, on which the far side speaks next.
func TestIdleConnectionsStay(t *testing.T) {
	host, far := testlab.NewNS(t, "idleh"), testlab.NewNS(t, "idlef")
	testlab.Link(host, "v0", far, "a0")
	host.AddAddr("v0", "2001:db8:1::10/64")
	far.AddAddr("a0", "2001:db8:1::7/64")
	host.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	far.IP("addr", "add", "192.0.2.7/24", "dev", "a0")
	dial := func(from, to *testlab.NS, at string) (here, there net.Conn) {
		var l net.Listener
		var err error
		to.Do(func() { l, err = net.Listen("tcp", at) })
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		from.Do(func() { here, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second) })
		if err != nil {
			t.Fatal(err)
		}
		if there, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = here.Close(), there.Close() })
		return here, there
	}
	type pair struct {
		name      string
		ours, far net.Conn
	}
	var pairs []pair
	var live []plan.Live
	for _, a := range []struct{ host, far string }{{"[2001:db8:1::10]:0", "[2001:db8:1::7]:0"}, {"192.0.2.10:0", "192.0.2.7:0"}} {
		o, f := dial(host, far, a.far)
		pairs = append(pairs, pair{"out to " + a.far, o, f})
		f, o = dial(far, host, a.host)
		pairs = append(pairs, pair{"in to " + a.host, o, f})
	}
	for _, p := range pairs {
		live = append(live, plan.Live{Proto: 6, Local: netip.MustParseAddrPort(p.ours.LocalAddr().String()), Remote: netip.MustParseAddrPort(p.ours.RemoteAddr().String())})
	}
	in := intent.Intent{Role: intent.RoleServer, Interfaces: one(intent.Static), Egress: intent.Egress{IPv6: intent.EgressFamily{Default: "deny"}, IPv4: intent.EgressFamily{Default: "deny"}}}
	rules := rulesOf(t, in)
	load(t, host, rules+plan.Seed(rules, live))
	for _, p := range pairs {
		if _, err := p.far.Write([]byte("ping")); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
		b := make([]byte, 4)
		_ = p.ours.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(p.ours, b); err != nil {
			t.Errorf("%s: the far side spoke next, and was not heard: %v", p.name, err)
		}
		if _, err := p.ours.Write([]byte("pong")); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
		_ = p.far.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(p.far, b); err != nil {
			t.Errorf("%s: the answer was not heard: %v", p.name, err)
		}
	}
	// The lists are what keeps them: another flow is dropped.
	var err error
	far.Do(func() { _, err = net.DialTimeout("tcp", pairs[1].ours.LocalAddr().String(), 300*time.Millisecond) })
	if err == nil {
		t.Error("a connection that was not open came in")
	}
}

// TestFullSets: who fills the sets of the limiters drops neither those who are declared
// nor, at a modest rate, those who are not.
func TestFullSets(t *testing.T) {
	f := newFiring(t, "full")
	in := intent.Intent{Role: intent.RoleServer, Interfaces: one(intent.SLAAC, router), Services: []intent.Service{ssh(), web()}}
	in.Limits.Exempt = prefixes("2600:2::/64")
	load(t, f.Victim, rulesOf(t, in))
	host := f.r.Host
	// One sender alone is held to its rate, also within one flow.
	var burst []attack.Shot
	for i := range 60 {
		g := ndisc.Frame{SrcMAC: f.r.Neighbour.MAC, DstMAC: host.MAC, Src: addr("2600:5::7"), Dst: host.Global, FlowLabel: uint32(i + 1)}
		burst = append(burst, attack.Shot{ID: uint32(i + 1), Frames: [][]byte{g.Echo(7, uint16(i)).Bytes()}})
	}
	if n := count(f.fire(t, burst)); n < 20 || n > 40 {
		t.Errorf("one sender's 60 echo requests: %d came through", n)
	}
	// 70,000 prefixes, 5,000 MAC addresses.
	for i := range 70000 {
		b := [16]byte{0x26, 0x00, 0x99}
		binary.BigEndian.PutUint32(b[4:], uint32(i))
		b[15] = 1
		f.Wire.Send(ndisc.Frame{SrcMAC: f.r.Rogue.MAC, DstMAC: host.MAC, Src: netip.AddrFrom16(b), Dst: host.Global}.Echo(8, 1).Bytes())
	}
	for i := range 5000 {
		m := ndisc.MAC{0x02, 0xee, 0, 0, byte(i >> 8), byte(i)}
		src := testlab.LinkLocal(m)
		f.Wire.Send(ndisc.Frame{SrcMAC: m, DstMAC: host.MAC, Src: src, Dst: host.LL}.NS(host.LL, m).Bytes())
	}
	f.fire(t, nil)
	for set, size := range map[string]int{"echo6_senders": 65536, "nd_senders": 4096} {
		if n := strings.Count(f.Victim.Run("nft", "list", "set", "inet", "sixfence", set), " expires "); n < size*9/10 {
			t.Fatalf("%s holds %d of %d: it was not filled", set, n, size)
		}
	}
	time.Sleep(300 * time.Millisecond) // the limit that all share recovers
	shot := func(id uint32, name string, g ndisc.Frame, make func(ndisc.Frame) ndisc.Frame) attack.Shot {
		g.FlowLabel, g.DstMAC = id, host.MAC
		return attack.Shot{ID: id, Name: name, Frames: [][]byte{make(g).Bytes()}}
	}
	echo := func(g ndisc.Frame) ndisc.Frame { g.Dst = host.Global; return g.Echo(9, 1) }
	ns := func(g ndisc.Frame) ndisc.Frame { g.Dst = host.LL; return g.NS(host.LL, g.SrcMAC) }
	fresh := ndisc.MAC{0x52, 0x54, 0, 0, 0, 0x77}
	shots := []attack.Shot{
		shot(1, "echo of an administrator", ndisc.Frame{SrcMAC: f.r.Neighbour.MAC, Src: addr("2001:db8:1::99")}, echo),
		shot(2, "echo of a monitor", ndisc.Frame{SrcMAC: routerMAC, Src: addr("2600:2::5")}, echo),
		shot(3, "echo of a newcomer", ndisc.Frame{SrcMAC: routerMAC, Src: addr("2600:3::5")}, echo),
		shot(4, "NS of the router", ndisc.Frame{SrcMAC: routerMAC, Src: addr("fe80::1")}, ns),
		shot(5, "NS of a newcomer", ndisc.Frame{SrcMAC: fresh, Src: testlab.LinkLocal(fresh)}, ns),
	}
	seen := f.fire(t, shots)
	for _, s := range shots {
		if !seen[s.ID] {
			t.Errorf("with full sets: %s was dropped", s.Name)
		}
	}
	// Forging the router's MAC uses up what that MAC may send, not what the router may.
	var forged []attack.Shot
	for i := range 400 {
		forged = append(forged, shot(uint32(100+i), "", ndisc.Frame{SrcMAC: routerMAC, Src: addr(fmt.Sprintf("2001:db8:1::%x", i+1000))}, ns))
	}
	forged = append(forged, shot(4, "NS of the router", ndisc.Frame{SrcMAC: routerMAC, Src: addr("fe80::1")}, ns))
	seen = f.fire(t, forged)
	if !seen[4] {
		t.Error("who forges the router's MAC address keeps its solicitations away")
	}
}

func count(seen map[uint32]bool) (n int) {
	for _, s := range seen {
		if s {
			n++
		}
	}
	return n
}
