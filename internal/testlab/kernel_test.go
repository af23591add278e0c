package testlab

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// These tests show that the encoders say what they mean: a real kernel acts on
// every message exactly as the RFC says it must.

var rogue = netip.MustParsePrefix("2001:db8:bad::/64")

func rogueRA() RA {
	return RA{Lifetime: 1800, Options: [][]byte{PrefixInfo(rogue, 3600, 1800)}}
}

func TestRAIsTaken(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "ra")
	p.Wire.SendRA(rogueRA())
	Eventually(t, 3*time.Second, "default route from the RA", func() bool {
		return strings.Contains(p.Victim.DefaultRoute(), "via "+p.Wire.Addr.String()+" dev v0 proto ra")
	})
	if out := p.Victim.IP("-6", "addr", "show", "dev", "v0", "scope", "global"); !strings.Contains(out, "2001:db8:bad:") {
		t.Errorf("no address from the prefix option:\n%s", out)
	}
}

func TestRAOptionsAreTaken(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "raopt")
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra_rt_info_max_plen", "64")
	r := rogueRA()
	r.HopLimit, r.Retrans, r.Preference = 33, 2000, 1
	dst := netip.MustParsePrefix("2001:db8:77::/48")
	r.Options = append(r.Options, MTUOption(1400), RouteInfo(dst, 1, 600), RDNSS(600, netip.MustParseAddr("2001:db8:bad::53")))
	p.Wire.SendRA(r)
	Eventually(t, 3*time.Second, "route from the route information option", func() bool {
		return strings.Contains(p.Victim.IP("-6", "route", "show", dst.String()), "proto ra")
	})
	for key, want := range map[string]string{"conf/v0/mtu": "1400", "conf/v0/hop_limit": "33", "neigh/v0/retrans_time_ms": "2000"} {
		if got := p.Victim.ReadSysctl("net/ipv6/" + key); got != want {
			t.Errorf("%s = %s, want %s", key, got, want)
		}
	}
	if d := p.Victim.DefaultRoute(); !strings.Contains(d, "pref high") {
		t.Errorf("preference lost: %s", d)
	}
}

func TestRABehindExtensionHeadersIsTaken(t *testing.T) {
	t.Parallel()
	for name, ext := range map[string][]Ext{
		"hop-by-hop":           {{Type: HdrHopByHop}},
		"destination options":  {{Type: HdrDestOpts}},
		"both":                 {{Type: HdrHopByHop}, {Type: HdrDestOpts}},
		"five of destination":  {{Type: HdrDestOpts}, {Type: HdrDestOpts}, {Type: HdrDestOpts}, {Type: HdrDestOpts}, {Type: HdrDestOpts}},
		"hop-by-hop and three": {{Type: HdrHopByHop}, {Type: HdrDestOpts}, {Type: HdrDestOpts}, {Type: HdrDestOpts}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := NewPair(t, "ext")
			f := p.Wire.Frame().RA(rogueRA())
			f.Ext = ext
			p.Wire.Send(f.Bytes())
			Eventually(t, 3*time.Second, "default route", func() bool { return p.Victim.DefaultRoute() != "" })
		})
	}
}

func TestFragmentedRAIsTakenOnlyWithoutRFC6980(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "frag")
	f := p.Wire.Frame().RA(rogueRA())
	p.Wire.Send(f.Fragments(1, 24)...)
	p.Barrier()
	if d := p.Victim.DefaultRoute(); d != "" {
		t.Fatalf("suppress_frag_ndisc=1 let a fragmented RA in: %s", d)
	}
	p.Victim.Sysctl("net/ipv6/conf/v0/suppress_frag_ndisc", "0")
	p.Wire.Send(f.Fragments(2, 24)...)
	Eventually(t, 3*time.Second, "default route from the reassembled RA", func() bool { return p.Victim.DefaultRoute() != "" })
}

func TestRAFromElsewhereIsRefused(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "far")
	f := p.Wire.Frame()
	f.HopLimit = 254
	p.Wire.Send(f.RA(rogueRA()).Bytes())
	g := p.Wire.Frame()
	g.Src = netip.MustParseAddr("2001:db8::1")
	p.Wire.Send(g.RA(rogueRA()).Bytes())
	p.Barrier()
	if d := p.Victim.DefaultRoute(); d != "" {
		t.Fatalf("an RA with hop limit 254 or a global source was taken: %s", d)
	}
}

func TestNeighbourMessagesPoison(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "nd")
	gw := netip.MustParseAddr("fe80::1")
	entry := func() string { return p.Victim.IP("-6", "neigh", "show", gw.String(), "dev", "v0") }

	ns := Frame{SrcMAC: p.Wire.MAC, Src: gw, Dst: AllNodes}.NS(p.VictimLL, MAC{2, 0, 0, 0, 0, 1})
	p.Wire.Send(ns.Bytes())
	Eventually(t, 3*time.Second, "entry made by a neighbour solicitation", func() bool { return strings.Contains(entry(), "02:00:00:00:00:01") })

	na := Frame{SrcMAC: p.Wire.MAC, Src: gw, Dst: AllNodes}.NA(gw, NAOverride, MAC{2, 0, 0, 0, 0, 2})
	p.Wire.Send(na.Bytes())
	Eventually(t, 3*time.Second, "entry overwritten by an unsolicited advertisement", func() bool { return strings.Contains(entry(), "02:00:00:00:00:02") })
}

func TestRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "redir")
	p.Victim.AddAddr("v0", "2001:db8:1::b/64")
	p.Victim.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "v0")
	dst, evil := netip.MustParseAddr("2001:db8:ffff::1"), netip.MustParseAddr("fe80::bad")
	f := Frame{SrcMAC: p.Wire.MAC, DstMAC: p.VictimMAC, Src: netip.MustParseAddr("fe80::1"), Dst: p.VictimLL}
	p.Wire.Send(f.Redirect(evil, dst, p.Wire.MAC).Bytes())
	Eventually(t, 3*time.Second, "route changed by the redirect", func() bool {
		return strings.Contains(p.Victim.IP("-6", "route", "get", dst.String()), "via "+evil.String())
	})
}

func TestDADIsAnswered(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "dad")
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_dad", "1")
	p.Attacker.AnswerDAD("a0")
	p.Victim.IP("-6", "addr", "add", "2001:db8:1::99/64", "dev", "v0")
	Eventually(t, 5*time.Second, "dadfailed", func() bool {
		return strings.Contains(p.Victim.IP("-6", "addr", "show", "dev", "v0"), "dadfailed")
	})
}

func TestUDPWithMappedSourceIsDelivered(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "udp")
	p.Victim.AddAddr("v0", "2001:db8:1::b/64")
	var c *net.UDPConn
	p.Victim.Do(func() {
		var err error
		if c, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv6zero, Port: 7000}); err != nil {
			t.Errorf("listen: %v", err)
		}
	})
	defer c.Close()
	f := Frame{SrcMAC: p.Wire.MAC, DstMAC: p.VictimMAC, Src: netip.MustParseAddr("::ffff:127.0.0.1"), Dst: netip.MustParseAddr("2001:db8:1::b")}
	p.Wire.Send(f.UDP(4000, 7000, []byte("hello")).Bytes())
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	buf := make([]byte, 64)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("read %q: %v", buf[:n], err)
	}
	if got := from.Addr().Unmap(); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the service sees %s, want what looks like 127.0.0.1", got)
	}
}

func TestFragmentsCarryTheWholePayload(t *testing.T) {
	f := Frame{Src: netip.MustParseAddr("fe80::1"), Dst: AllNodes}.RA(rogueRA())
	fr := f.Fragments(7, 24)
	if got := append(append([]byte{}, fr[0][62:]...), fr[1][62:]...); !bytes.Equal(got, f.Payload) {
		t.Errorf("fragments carry %x, want %x", got, f.Payload)
	}
}
