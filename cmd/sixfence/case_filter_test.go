package main

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// Two rulesets that look alike: the first loses what a host lives by and lets in what
// it names by a field that the sender chooses; the second does neither.
const (
	carelessRules = `flush ruleset
table inet t {
	chain in {
		type filter hook input priority 0; policy drop;
		iifname lo accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, echo-request } accept
		tcp sport 443 accept
		ip6 saddr 2001:db8:2::/64 udp dport 514 accept
	}
}`
	carefulRules = `flush ruleset
table inet t {
	chain sane {
		type filter hook prerouting priority -450;
		icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } exthdr frag exists drop
	}
	chain rpf {
		type filter hook prerouting priority -300;
		icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
		fib saddr . iif oif missing drop
	}
	chain in {
		type filter hook input priority 0; policy drop;
		iifname lo accept
		ct state established,related accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, mld-listener-query, echo-request } accept
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
		ip6 saddr 2001:db8:2::/64 udp dport 514 accept
	}
}`
	leasedAddress = "2001:db8:1::77"
	attackersSix  = "2001:db8:1::a"
)

// What the audit says that rules lose or let in, one packet each shows.
func TestFilterLosesWhatItSays(t *testing.T) {
	t.Parallel()
	// Reports that nobody asked for are over in milliseconds.
	p := testlab.NewPair(t, "flt", "net/ipv6/conf/default/mldv2_unsolicited_report_interval=1", "net/ipv6/conf/default/suppress_frag_ndisc=0", "net/ipv6/conf/default/accept_ra=0")
	nft := testlab.RequireTool(t, "nft")
	for _, a := range []string{victim6 + "/64", leasedAddress + "/128"} {
		p.Victim.IP("-6", "addr", "add", a, "dev", "v0", "nodad", "valid_lft", "7200", "preferred_lft", "3600")
	}
	p.Attacker.AddAddr("a0", attackersSix+"/64")
	testlab.Link(p.Victim, "v1", p.Attacker, "a1")
	p.Victim.AddAddr("v1", "2001:db8:2::b/64")
	s := server{t, p.Victim}
	s.tcp("tcp6", "[::]:9999", 1)
	k := filterLab{t: t, p: p, log: s.udp("udp6", "[::]:514", 1), dhcp: s.udp("udp6", "[::]:546", 1), own: s.udp("udp6", "["+victim6+"]:5000", 1)}
	for _, c := range []struct {
		rules string
		bad   bool
	}{{carelessRules, true}, {carefulRules, false}} {
		p.Victim.Run(nft, c.rules)
		v := alone(t, p.Victim)
		severe := func(control string, about finding.Subject, want finding.Severity) {
			f := v.effective(t, control, about, verdict(c.bad))
			if c.bad && f.Severity != want {
				t.Errorf("%s: severity %s, want %s", control, f.Severity, want)
			}
		}
		for _, x := range []struct {
			control string
			severe  finding.Severity
			on      string // an interface
			key     string // of a failure that shares the control with others
			harm    func() bool
			what    string
		}{
			{"FW-11", finding.Critical, "", "input/MLD-query", func() bool { return !k.answersMLD() }, "no report answers a query"},
			{"FW-13", finding.High, "", "input/packet-too-big-error", func() bool { return !k.learnsMTU() }, "a packet-too-big error is lost"},
			{"FW-18", finding.High, "v0", "", func() bool { return k.hears(k.log, k.datagram("2001:db8:2::66", 40000, 514)) }, "a forged source gets in"},
			{"FW-24", finding.High, "v0", "", k.takesFragments, "a solicitation in fragments makes a neighbour"},
			{"FW-27", finding.High, "v0", "", func() bool { return !k.hears(k.dhcp, k.reply()) }, "a DHCPv6 reply is lost"},
			{"FW-43", finding.High, "", "", func() bool { return k.connects(443) }, "a connection from port 443 gets in to a port that no rule names"},
		} {
			about := finding.Subject{NetNS: v.netns, Interface: x.on}
			if c.bad && x.key != "" {
				about.Key = x.key
			}
			if c.bad && x.control == "FW-43" {
				about.Proto = "tcp"
			}
			severe(x.control, about, x.severe)
			if got := x.harm(); got != c.bad {
				t.Errorf("%s (bad rules: %v): %s: %v", x.control, c.bad, x.what, got)
			}
		}
		if k.connects(0) || k.hears(k.log, k.datagram("2001:db8:9::66", 40000, 514)) {
			t.Error("an ordinary packet gets in: the rules show nothing")
		}
	}
}

// filterLab fires one packet for each control.
type filterLab struct {
	t              testing.TB
	p              *testlab.Pair
	log, dhcp, own *net.UDPConn
	n              byte
}

// datagram goes to the victim's address by v0.
func (k *filterLab) datagram(src string, sport, dport uint16) []byte {
	return testlab.Frame{SrcMAC: k.p.Wire.MAC, DstMAC: k.p.VictimMAC, HopLimit: 64, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(victim6)}.UDP(sport, dport, []byte("?")).Bytes()
}

// reply is what a DHCPv6 server on the link sends.
func (k *filterLab) reply() []byte {
	f := k.p.Wire.Frame()
	f.DstMAC, f.Dst = k.p.VictimMAC, k.p.VictimLL
	return f.UDP(547, 546, []byte{7, 0, 0, 1}).Bytes()
}

// hears tells whether a frame comes to a socket. What is queued behind the frame was
// answered when this looks.
func (k *filterLab) hears(c *net.UDPConn, frame []byte) bool {
	k.t.Helper()
	k.p.Wire.Send(frame)
	k.p.Barrier()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, _, err := c.ReadFromUDPAddrPort(make([]byte, 64))
	return err == nil
}

// answersMLD asks for all groups and waits for a report.
func (k *filterLab) answersMLD() bool {
	k.t.Helper()
	k.p.Barrier()
	f := k.p.Wire.Frame()
	f.HopLimit = 1
	f.Ext = []testlab.Ext{{Type: testlab.HdrHopByHop, Body: []byte{0, 5, 2, 0, 0, 1, 0}}} // router alert
	body := make([]byte, 24)                                                              // RFC 3810 §5.1
	body[1] = 1                                                                           // answer within a millisecond
	for range 3 {
		k.p.Wire.Send(f.ICMPv6(130, 0, body).Bytes())
		if k.p.Wire.Receive(300*time.Millisecond, func(f []byte) bool { return len(f) > 62 && f[20] == testlab.HdrHopByHop && f[62] == 143 }) != nil {
			return true
		}
	}
	return false
}

// learnsMTU sends a datagram, and answers it with an error as a router would.
func (k *filterLab) learnsMTU() bool {
	k.t.Helper()
	to := netip.MustParseAddrPort("[" + attackersSix + "]:6000")
	if _, err := k.own.WriteToUDPAddrPort([]byte("12345678"), to); err != nil {
		k.t.Fatalf("send: %v", err)
	}
	sent := k.p.Wire.Receive(5*time.Second, func(f []byte) bool {
		return len(f) >= 62+8 && f[20] == testlab.ProtoUDP && f[56] == 6000>>8 && f[57] == 6000&0xff
	})
	if sent == nil {
		k.t.Fatal("the datagram did not leave")
	}
	f := testlab.Frame{SrcMAC: k.p.Wire.MAC, DstMAC: k.p.VictimMAC, HopLimit: 64, Src: netip.MustParseAddr(attackersSix), Dst: netip.MustParseAddr(victim6)}
	k.p.Wire.Send(f.ICMPv6(2, 0, append([]byte{0, 0, 5, 0}, sent[14:]...)).Bytes()) // 1280
	k.p.Barrier()
	return strings.Contains(k.p.Victim.IP("-6", "route", "get", attackersSix), "mtu 1280")
}

// takesFragments solicits the victim from a new address, in one fragment and in two:
// where nothing puts them together before the rules, those may know the first only.
func (k *filterLab) takesFragments() bool {
	k.t.Helper()
	k.n++
	src := netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, 1, 14: 0x77, 15: k.n})
	f := testlab.Frame{SrcMAC: k.p.Wire.MAC, DstMAC: k.p.VictimMAC, Src: src, Dst: netip.MustParseAddr(victim6)}
	f = f.NS(netip.MustParseAddr(victim6), k.p.Wire.MAC)
	k.p.Wire.Send(f.Fragments(uint32(k.n), 16)...)
	f.Ext = []testlab.Ext{{Type: testlab.HdrFragment, Body: []byte{0, 0, 0, 0, 0, 1, k.n}}} // RFC 6946
	k.p.Wire.Send(f.Bytes())
	k.p.Barrier()
	return strings.Contains(k.p.Victim.IP("-6", "neigh", "show", src.String()), k.p.Wire.MAC.String())
}

// connects tells whether a client from a source port (0: any) gets in to a port that no
// rule names.
func (k *filterLab) connects(sport int) (ok bool) {
	k.t.Helper()
	k.p.Attacker.Do(func() {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			k.t.Errorf("socket: %v", err)
			return
		}
		defer unix.Close(fd)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 700_000})
		if err := unix.Bind(fd, &unix.SockaddrInet6{Port: sport, Addr: netip.MustParseAddr(attackersSix).As16()}); err != nil {
			k.t.Errorf("bind: %v", err)
			return
		}
		ok = unix.Connect(fd, &unix.SockaddrInet6{Port: 9999, Addr: netip.MustParseAddr(victim6).As16()}) == nil
	})
	return ok
}
