package rtnl

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// addrFlags are the flags that ip(8) shows, by its name for them.
var addrFlags = map[string]uint32{
	"tentative": fact.AddrTentative, "optimistic": fact.AddrOptimistic, "dadfailed": fact.AddrDADFailed,
	"home": fact.AddrHomeAddress, "deprecated": fact.AddrDeprecated, "mngtmpaddr": fact.AddrManageTemp,
	"noprefixroute": fact.AddrNoPrefixRoute, "nodad": fact.AddrNoDAD, "autojoin": fact.AddrMCAutoJoin,
	"stable-privacy": fact.AddrStablePrivacy,
}

// router starts radvd on an interface of a namespace.
func router(t *testing.T, n *testlab.NS, ifname, options string) {
	t.Helper()
	radvd := testlab.RequireTool(t, "radvd")
	dir := t.TempDir()
	conf := filepath.Join(dir, "radvd.conf")
	text := "interface " + ifname + " { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; " + options + " };\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Sysctl("net/ipv6/conf/all/forwarding", "1")
	n.Start(radvd, "-n", "-C", conf, "-p", filepath.Join(dir, "pid"))
}

// close enough: both sides count down while we look.
func near(a, b uint32) bool {
	return a == b || a != fact.Forever && b != fact.Forever && max(a, b)-min(a, b) <= 3
}

func TestAddressesAgainstIP(t *testing.T) {
	t.Parallel()
	n, peer := testlab.NewNS(t, "addr"), testlab.NewNS(t, "router")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", peer.Name)
	n.Sysctl("net/ipv6/conf/v0/use_tempaddr", "2")
	peer.IP("link", "set", "v1", "up")
	peer.IP("addr", "add", "2001:db8:99::1/64", "dev", "v1", "nodad")
	n.IP("link", "set", "v0", "up")
	router(t, peer, "v1", "AdvDefaultLifetime 600; prefix 2001:db8:1::/64 { AdvValidLifetime 900; AdvPreferredLifetime 300; };")
	n.IP("addr", "add", "2001:db8:99::1/64", "dev", "v0") // the router has it: DAD fails
	n.IP("addr", "add", "2001:db8:2::1/64", "dev", "v0", "nodad", "noprefixroute")
	n.IP("addr", "add", "2001:db8:2::2/64", "dev", "v0", "nodad", "preferred_lft", "0", "valid_lft", "1000")
	n.IP("addr", "add", "2001:db8:3::1", "peer", "2001:db8:3::2/128", "dev", "v0", "nodad")
	n.IP("addr", "add", "192.0.2.1/24", "dev", "v0")
	n.IP("addr", "add", "192.0.2.2/24", "dev", "v0", "valid_lft", "777", "preferred_lft", "555")
	n.IP("addr", "add", "198.51.100.1", "peer", "198.51.100.2/30", "dev", "v0", "scope", "link")

	has := func(flag, without uint32) bool {
		for _, a := range must(t, "addresses", collect(n).Addresses) {
			if a.Flags&flag != 0 && a.Flags&without == 0 {
				return true
			}
		}
		return false
	}
	testlab.Eventually(t, 15*time.Second, "a failed DAD, and a temporary address from an RA", func() bool {
		return has(fact.AddrDADFailed, 0) && has(fact.AddrManageTemp, 0) && has(fact.AddrTemporary, 0) && !has(fact.AddrTentative, fact.AddrDADFailed)
	})

	ours := map[string]fact.Address{}
	ns := collect(n)
	for _, a := range must(t, "addresses", ns.Addresses) {
		ours[fmt.Sprint(a.Index, " ", a.Prefix)] = a
	}
	seen, flagged := 0, map[string]bool{}
	for _, l := range ipJSON(t, n, "addr") {
		for _, x := range l["addr_info"].([]any) {
			r := x.(map[string]any)
			seen++
			addr := netip.MustParseAddr(str(r, "local"))
			key := fmt.Sprint(num(l, "ifindex"), " ", netip.PrefixFrom(addr, num(r, "prefixlen")))
			a, ok := ours[key]
			if !ok {
				t.Errorf("%s: only ip(8) sees it", key)
				continue
			}
			if p := str(r, "address"); p != "" && a.Peer != netip.MustParseAddr(p) || p == "" && a.Peer.IsValid() {
				t.Errorf("%s: peer %v, ip(8) says %q", key, a.Peer, p)
			}
			for name, bit := range addrFlags {
				on, _ := r[name].(bool)
				if on {
					flagged[name] = true
				}
				if on != (a.Flags&bit != 0) {
					t.Errorf("%s: %s %v, flags %#x", key, name, on, a.Flags)
				}
			}
			if dynamic, _ := r["dynamic"].(bool); dynamic == (a.Flags&fact.AddrPermanent != 0) {
				t.Errorf("%s: dynamic %v, flags %#x", key, dynamic, a.Flags)
			}
			if temp, _ := r["temporary"].(bool); temp != (a.Flags&fact.AddrTemporary != 0 && addr.Is6()) {
				t.Errorf("%s: temporary %v, flags %#x", key, temp, a.Flags)
			}
			valid, preferred := uint32(num(r, "valid_life_time")), uint32(num(r, "preferred_life_time"))
			if !near(a.Valid, valid) || !near(a.Preferred, preferred) {
				t.Errorf("%s: lifetimes %d %d, ip(8) says %d %d", key, a.Valid, a.Preferred, valid, preferred)
			}
			// ip(8) shows IFA_PROTO only since 6.3: the kernel's own rule is the oracle.
			want := uint8(0)
			switch {
			case addr == netip.IPv6Loopback():
				want = 1 // IFAPROT_KERNEL_LO
			case a.Flags&fact.AddrManageTemp != 0:
				want = 2 // IFAPROT_KERNEL_RA
			case addr.IsLinkLocalUnicast():
				want = 3 // IFAPROT_KERNEL_LL
			}
			if a.Protocol != want {
				t.Errorf("%s: protocol %d, want %d", key, a.Protocol, want)
			}
			if scope := str(r, "scope"); scope != fmt.Sprint(a.Scope) {
				t.Errorf("%s: scope %d, ip(8) says %q", key, a.Scope, scope)
			}
		}
	}
	if seen != len(ours) || seen < 10 {
		t.Errorf("%d addresses, ip(8) has %d", len(ours), seen)
	}
	for _, name := range []string{"dadfailed", "deprecated", "mngtmpaddr", "noprefixroute"} {
		if !flagged[name] {
			t.Errorf("no address with %s: the comparison proves little", name)
		}
	}
	// The RA's address, by value and not only by comparison.
	for _, a := range ours {
		if a.Flags&fact.AddrManageTemp == 0 {
			continue
		}
		if netip.MustParsePrefix("2001:db8:1::/64") != a.Prefix.Masked() || a.Protocol != 2 || a.Valid < 890 || a.Valid > 900 || a.Preferred < 290 || a.Preferred > 300 {
			t.Errorf("address from the RA: %+v", a)
		}
	}
}

// TestMulticastAgainstProc compares with /proc/net/igmp6, and so tests the
// reader of that file as well.
func TestMulticastAgainstProc(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "mcast")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	n.IP("link", "set", "v0", "up")
	n.IP("addr", "add", "2001:db8::1:2/64", "dev", "v0", "nodad")
	var want []fact.Membership
	testlab.Eventually(t, 20*time.Second, "the kernel to join the address's group", func() bool {
		var file fileAnswer
		n.Do(func() { file = readIGMP6(asker(), budget()) })
		want = must(t, "igmp6", file.decode(""))
		return slices.ContainsFunc(want, func(m fact.Membership) bool { return m.Group.String() == "ff02::1:ff01:2" })
	})
	got := must(t, "multicast", collect(n).Multicast)
	var g, w []string
	for _, m := range got {
		g = append(g, fmt.Sprint(m.Index, " ", m.Group))
	}
	for _, m := range want {
		if m.Users < 1 {
			t.Errorf("%v has %d users", m.Group, m.Users)
		}
		w = append(w, fmt.Sprint(m.Index, " ", m.Group))
	}
	sameLines(t, "memberships", g, w)
}
