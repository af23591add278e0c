package main

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// Corners in which the kernel does less, or more, than its settings seem to say.

// A socket keeps an address that its host lost; the kernel delivers nothing to it
// until the address is back.
func TestSocketOnALostAddress(t *testing.T) {
	t.Parallel()
	p, s := listenLab(t)
	s.tcp("tcp4", "127.0.0.1:5432", -1)
	s.tcp("tcp6", "["+victim6+"]:5432", -1)
	p.Victim.IP("-6", "addr", "del", victim6+"/64", "dev", "v0")
	p.Attacker.IP("-6", "neigh", "replace", victim6, "lladdr", p.VictimMAC.String(), "dev", "a0", "nud", "permanent")
	check := func() {
		t.Helper()
		open := reaches(t, p.Attacker, victim6, 5432)
		for _, v := range both(t, p.Victim) {
			v.effective(t, "LISTEN-02", finding.Subject{Proto: "tcp", Port: 5432}, verdict(open))
		}
	}
	check()
	p.Victim.AddAddr("v0", victim6+"/64")
	check()
}

// An RA may declare a prefix on-link without making an address. Its route looks like
// one of the kernel's own and outlives accept_ra=0.
func TestDeclaredPrefixSurvives(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "dcl")
	ra := testlab.RA{Options: [][]byte{testlab.PrefixInfo(netip.MustParsePrefix("2001:db8:bad::/64"), 86400, 14400)}}
	ra.Options[0][3] = 0x80 // on-link, not autonomous
	p.Wire.SendRA(ra)
	p.Barrier()
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra", "0")
	left := func() bool { return strings.Contains(p.Victim.IP("-6", "route", "show"), "2001:db8:bad::/64") }
	if !left() {
		t.Fatal("the kernel did not take the prefix: the lab is not what it says")
	}
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-04", on("v0"), finding.Fail)
	}
	p.Victim.IP("-6", "route", "del", "2001:db8:bad::/64", "dev", "v0", "proto", "kernel")
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-04", on("v0"), verdict(left()))
	}
}

// addr_gen_mode none is about the link-local address: a prefix option makes an
// address from the MAC all the same.
func TestNoLinkLocalButTheMAC(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "gen")
	p.Victim.Sysctl("net/ipv6/conf/v0/addr_gen_mode", "1")
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-ADDR-02", on("v0"), finding.Fail)
	}
	p.Wire.SendRA(rogueRA(1800))
	p.Barrier()
	b := p.VictimLL.As16()
	copy(b[:8], []byte{0x20, 0x01, 0x0d, 0xb8, 0x0b, 0xad, 0, 0})
	if !p.Victim.HasAddr(netip.AddrFrom16(b)) {
		t.Errorf("no address from the MAC: %s", p.Victim.IP("-6", "addr", "show", "dev", "v0"))
	}
}

// The chains of a dormant table are listed and filter nothing.
func TestDormantTable(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "dor")
	p.Victim.Run("nft", "add table ip6 guard { flags dormant; }; add chain ip6 guard pre { type filter hook prerouting priority -300; policy drop; }")
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-01", on("v0"), finding.Fail)
	}
	p.Wire.SendRA(rogueRA(1800))
	p.Barrier()
	if p.Victim.DefaultRoute() == "" {
		t.Error("a dormant table dropped the RA")
	}
}

// A tap on a device feeds the program that holds it open, a virtual machine's, and
// not the host's stack.
func TestTapOnADevice(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "tap", "net/ipv6/conf/default/accept_ra=1")
	p.Victim.IP("link", "add", "link", "v0", "name", "t0", "type", "macvtap", "mode", "bridge")
	p.Victim.IP("link", "set", "t0", "up")
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra", "0")
	number := strings.TrimSpace(p.Victim.Run("sh", "-c", "cat /sys/class/net/t0/macvtap/*/dev"))
	major, minor, _ := strings.Cut(number, ":")
	node := t.TempDir() + "/tap"
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(decimal(t, major), decimal(t, minor)))); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-01", on("t0"), finding.Unknown)
	}
	p.Wire.SendRA(rogueRA(1800))
	p.Barrier()
	if d := p.Victim.DefaultRoute(); d != "" {
		t.Errorf("the stack took the RA: %s", d)
	}
	p.Victim.Sysctl("net/ipv6/conf/t0/accept_ra", "0")
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-01", on("t0"), finding.Pass)
	}
}

func decimal(t testing.TB, s string) uint32 {
	t.Helper()
	n := uint32(0)
	for _, c := range s {
		if c < '0' || c > '9' {
			t.Fatalf("%q is no number", s)
		}
		n = n*10 + uint32(c-'0')
	}
	return n
}
