package rtnl

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// routeLine is a route as both sides can write it.
func routeLine(family, dst, src string, table, proto, typ, metric int, pref, prefSrc string, expires bool, hops []string) string {
	return fmt.Sprintf("%s %s from=%s table=%d proto=%d type=%d metric=%d pref=%s src=%s expires=%v via %s",
		family, dst, src, table, proto, typ, metric, pref, prefSrc, expires, strings.Join(hops, " + "))
}

func oracleRoutes(t *testing.T, n *testlab.NS, family string) (lines []string, expiry map[string]int) {
	t.Helper()
	flag, host, all := "-4", "/32", "0.0.0.0/0"
	if family == "ipv6" {
		flag, host, all = "-6", "/128", "::/0"
	}
	full := func(s, none string) string {
		switch {
		case s == "":
			return none
		case s == "default" || s == "0/0":
			return all
		case !strings.Contains(s, "/"):
			return s + host
		}
		return s
	}
	expiry = map[string]int{}
	for _, r := range ipJSON(t, n, flag, "route", "show", "table", "all") {
		number := func(key string, def int) int {
			if s := str(r, key); s != "" {
				v, err := strconv.Atoi(s)
				if err != nil {
					t.Fatalf("%s %q", key, s)
				}
				return v
			}
			return def
		}
		var hops []string
		hop := func(m map[string]any) string {
			gw := str(m, "gateway")
			if via := sub(m, "via"); via != nil {
				gw = str(via, "host")
			}
			enc := ""
			if str(m, "encap") != "" {
				enc = " encap"
			}
			return gw + " dev " + str(m, "dev") + enc
		}
		if list, ok := r["nexthops"].([]any); ok {
			for _, h := range list {
				hops = append(hops, hop(h.(map[string]any)))
			}
		} else if str(r, "dev") != "" {
			hops = append(hops, hop(r))
		}
		pref := str(r, "pref")
		_, expires := r["expires"]
		l := routeLine(family, full(str(r, "dst"), ""), full(str(r, "from"), "-"), number("table", 254), number("protocol", 3),
			number("type", 1), num(r, "metric"), pref, str(r, "prefsrc"), expires, hops)
		lines = append(lines, l)
		if expires {
			expiry[l] = num(r, "expires")
		}
	}
	return lines, expiry
}

func ourRoutes(t *testing.T, ns fact.Namespace, family string) (lines []string, expiry map[string]int) {
	t.Helper()
	names := map[int]string{}
	for _, l := range must(t, "links", ns.Links) {
		names[l.Index] = l.Name
	}
	expiry = map[string]int{}
	for _, r := range must(t, "routes", ns.Routes) {
		if r.Family != family {
			continue
		}
		src, prefSrc, pref := "-", "", ""
		if r.Src.IsValid() {
			src = r.Src.String()
		}
		if r.PrefSrc.IsValid() {
			prefSrc = r.PrefSrc.String()
		}
		if family == "ipv6" {
			pref = map[uint8]string{0: "medium", 1: "high", 3: "low"}[r.Pref]
		}
		var hops []string
		for _, h := range r.NextHops {
			gw, enc := "", ""
			if h.Via.IsValid() {
				gw = h.Via.String()
			}
			if h.Encap != 0 {
				enc = " encap"
			}
			hops = append(hops, gw+" dev "+names[h.Index]+enc)
		}
		secs, expires := r.Expires.Get()
		l := routeLine(family, r.Dst.String(), src, int(r.Table), int(r.Protocol), int(r.Type), int(r.Priority), pref, prefSrc, expires, hops)
		lines = append(lines, l)
		if expires {
			expiry[l] = int(secs)
		}
	}
	return lines, expiry
}

func TestRoutesAgainstIP(t *testing.T) {
	t.Parallel()
	n, peer := testlab.NewNS(t, "route"), testlab.NewNS(t, "router")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", peer.Name)
	n.Sysctl("net/ipv6/conf/v0/accept_ra_rt_info_max_plen", "64")
	n.IP("link", "add", "w0", "type", "veth", "peer", "name", "w1")
	for _, l := range []string{"v0", "w0", "w1"} {
		n.IP("link", "set", l, "up")
	}
	peer.IP("link", "set", "v1", "up")
	router(t, peer, "v1", "AdvDefaultLifetime 600; AdvDefaultPreference high; prefix 2001:db8:1::/64 { AdvValidLifetime 900; AdvPreferredLifetime 300; };"+
		"route 2001:db8:77::/48 { AdvRouteLifetime 1200; AdvRoutePreference low; };")
	n.IP("addr", "add", "192.0.2.1/24", "dev", "w0")
	n.IP("addr", "add", "2001:db8:2::1/64", "dev", "w0", "nodad")
	for _, args := range []string{
		"-6 route add default via 2001:db8:2::fe dev w0 metric 77 proto static",
		"-6 route add default from 2001:db8:5::/48 via 2001:db8:2::fd dev w0",
		"-6 route add 2001:db8:10::/48 via 2001:db8:2::fe table 100 proto 16 pref high",
		"-6 route add 2001:db8:11::/48 via 2001:db8:2::fe table 70000",
		"-6 route add 2001:db8:12::/48 nexthop via 2001:db8:2::a dev w0 nexthop via 2001:db8:2::b dev w0 weight 3",
		"-6 route add blackhole 2001:db8:13::/48",
		"-6 route add unreachable 2001:db8:14::/48 metric 5",
		"-6 route add prohibit 2001:db8:15::/48",
		"-6 route add 2001:db8:16::/48 via 2001:db8:2::fe expires 300",
		"-6 route add 2001:db8:17::/48 encap seg6 mode encap segs 2001:db8::9 dev w0",
		"-6 route add 2001:db8:18::1/128 dev w0 src 2001:db8:2::1",
		"-4 route add default via 192.0.2.254 proto dhcp metric 100",
		"-4 route add 198.51.100.0/24 via inet6 fe80::1 dev w0",
		"-4 route add 203.0.113.0/25 nexthop via 192.0.2.2 dev w0 nexthop via inet6 fe80::2 dev w0",
		"-4 route add blackhole 203.0.113.128/25",
		"-4 route add 10.0.0.0/8 via 192.0.2.9 table 100 src 192.0.2.1",
	} {
		n.IP(strings.Fields(args)...)
	}
	// Any kernel resolves nexthop objects for us unless told not to.
	for _, args := range []string{
		"nexthop add id 1 via 2001:db8:2::1a dev w0", "nexthop add id 2 via 2001:db8:2::1b dev w0", "nexthop add id 10 group 1/2",
		"-6 route add 2001:db8:20::/48 nhid 1", "-6 route add 2001:db8:21::/48 nhid 10",
	} {
		n.IP(strings.Fields(args)...)
	}
	testlab.Eventually(t, 10*time.Second, "a default and a more specific route from an RA, DAD done", func() bool {
		ra := 0
		ns := collect(n)
		for _, r := range must(t, "routes", ns.Routes) {
			if r.Protocol == fact.ProtoRA && r.Type == 1 {
				ra++
			}
		}
		for _, a := range must(t, "addresses", ns.Addresses) {
			if a.Flags&fact.AddrTentative != 0 {
				return false
			}
		}
		return ra >= 2
	})
	ns := collect(n)
	for _, family := range []string{"ipv6", "ipv4"} {
		want, wantLeft := oracleRoutes(t, n, family)
		got, left := ourRoutes(t, ns, family)
		sameLines(t, family+" routes", got, want)
		for l, s := range wantLeft {
			if d := left[l] - s; d < -1 || d > 3 {
				t.Errorf("%s: %d s left, ip(8) says %d", l, left[l], s)
			}
		}
		if family == "ipv6" && len(wantLeft) < 4 {
			t.Errorf("only %d routes expire", len(wantLeft))
		}
	}
	// By value, and not only by comparison.
	find := func(dst string, proto uint8) fact.Route {
		for _, r := range must(t, "routes", ns.Routes) {
			if r.Dst == netip.MustParsePrefix(dst) && r.Protocol == proto && !r.Src.IsValid() {
				return r
			}
		}
		t.Fatalf("no route %s proto %d", dst, proto)
		return fact.Route{}
	}
	if r := find("::/0", fact.ProtoRA); r.Pref != 1 || r.Expires.Or(0) < 590 || r.Expires.Or(0) > 600 || len(r.NextHops) != 1 || !r.NextHops[0].Via.IsLinkLocalUnicast() {
		t.Errorf("default route from the RA: %+v", r)
	}
	if r := find("2001:db8:77::/48", fact.ProtoRA); r.Pref != 3 || r.Expires.Or(0) < 1190 || r.Expires.Or(0) > 1200 {
		t.Errorf("route information from the RA: %+v", r)
	}
	if r := find("2001:db8:17::/48", fact.ProtoBoot); len(r.NextHops) != 1 || r.NextHops[0].Encap != 5 {
		t.Errorf("seg6 route: %+v", r)
	}
	if r := find("2001:db8:16::/48", fact.ProtoBoot); r.Expires.Or(0) < 270 || r.Expires.Or(0) > 300 {
		t.Errorf("route that expires: %+v", r.Expires)
	}
	// With nexthop_compat_mode=0 the kernel names the object only.
	n.Sysctl("net/ipv4/nexthop_compat_mode", "0")
	ns = collect(n)
	for dst, want := range map[string][]string{
		"2001:db8:20::/48": {"2001:db8:2::1a"}, "2001:db8:21::/48": {"2001:db8:2::1a", "2001:db8:2::1b"},
	} {
		r := find(dst, fact.ProtoBoot)
		var via []string
		for _, h := range r.NextHops {
			via = append(via, h.Via.String())
		}
		slices.Sort(via)
		if r.NextHopID == 0 || !slices.Equal(via, want) {
			t.Errorf("%s: id %d via %v, want %v", dst, r.NextHopID, via, want)
		}
	}
}

func TestRulesAgainstIP(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "rule")
	for _, args := range []string{
		"-6 rule add from 2001:db8::/32 to 2001:db8:1::/48 iif lo oif lo fwmark 0x10/0xff table 100 priority 100",
		"-6 rule add not fwmark 0xca6c table 51820 priority 101",
		"-6 rule add table main suppress_prefixlength 0 priority 102",
		"-6 rule add uidrange 10-20 ipproto tcp sport 1-2 dport 443 table 70000 priority 103",
		"-6 rule add goto 32766 priority 104",
		"-6 rule add blackhole from 2001:db8:bad::/48 priority 105",
		"-6 rule add tos 0x10 table 7 priority 106",
		"-4 rule add from 192.0.2.0/24 unreachable priority 100",
		"-4 rule add iif q\xff.1 table 9 priority 101",
		"-4 rule add to 198.51.100.1 lookup 33 priority 102",
	} {
		n.IP(strings.Split(args, " ")...)
	}
	ns := collect(n)
	var got []string
	for _, r := range must(t, "rules", ns.Rules) {
		p := func(p netip.Prefix) string {
			if !p.IsValid() {
				return "all"
			}
			return p.String()
		}
		got = append(got, fmt.Sprintf("%s %d from=%s to=%s iif=%s oif=%s mark=%#x/%#x table=%d action=%d not=%v %q",
			r.Family, r.Priority, p(r.Src), p(r.Dst), r.IIF, r.OIF, r.Mark, r.Mask, r.Table, r.Action, r.Invert, r.Conditions))
	}
	want := []string{
		`ipv6 0 from=all to=all iif= oif= mark=0x0/0x0 table=255 action=1 not=false []`,
		`ipv6 100 from=2001:db8::/32 to=2001:db8:1::/48 iif=lo oif=lo mark=0x10/0xff table=100 action=1 not=false []`,
		`ipv6 101 from=all to=all iif= oif= mark=0xca6c/0xffffffff table=51820 action=1 not=true []`,
		`ipv6 102 from=all to=all iif= oif= mark=0x0/0x0 table=254 action=1 not=false ["suppress_prefixlength 0"]`,
		`ipv6 103 from=all to=all iif= oif= mark=0x0/0x0 table=70000 action=1 not=false ["uidrange 10-20" "sport 1-2" "dport 443-443" "ipproto 6"]`,
		`ipv6 104 from=all to=all iif= oif= mark=0x0/0x0 table=0 action=2 not=false ["goto 32766"]`,
		`ipv6 105 from=2001:db8:bad::/48 to=all iif= oif= mark=0x0/0x0 table=0 action=6 not=false []`,
		`ipv6 106 from=all to=all iif= oif= mark=0x0/0x0 table=7 action=1 not=false ["tos 0x10"]`,
		`ipv6 32766 from=all to=all iif= oif= mark=0x0/0x0 table=254 action=1 not=false []`,
		`ipv4 0 from=all to=all iif= oif= mark=0x0/0x0 table=255 action=1 not=false []`,
		`ipv4 100 from=192.0.2.0/24 to=all iif= oif= mark=0x0/0x0 table=0 action=7 not=false []`,
		`ipv4 101 from=all to=all iif=q\xff.1 oif= mark=0x0/0x0 table=9 action=1 not=false []`,
		`ipv4 102 from=all to=198.51.100.1/32 iif= oif= mark=0x0/0x0 table=33 action=1 not=false []`,
		`ipv4 32766 from=all to=all iif= oif= mark=0x0/0x0 table=254 action=1 not=false []`,
		`ipv4 32767 from=all to=all iif= oif= mark=0x0/0x0 table=253 action=1 not=false []`,
	}
	sameLines(t, "rules", got, want)
	if rows := len(ipJSON(t, n, "-6", "rule")) + len(ipJSON(t, n, "-4", "rule")); rows != len(got) {
		t.Errorf("%d rules, ip(8) has %d", len(got), rows)
	}
}

// TestManyRoutes makes a stranger's namespace full of routes: over budget they
// are a Gap, nothing of them is kept, and what was read before stays.
func TestManyRoutes(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "many")
	const routes = 30000
	var batch strings.Builder
	for i := range routes {
		fmt.Fprintf(&batch, "route add 2001:db8:%x:%x::/64 dev lo\n", i>>8, i&255)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.IP("-6", "-batch", file)

	whole := collect(n)
	if got := len(must(t, "routes", whole.Routes)); got < routes {
		t.Errorf("%d routes, want at least %d", got, routes)
	}
	var d *Dump
	n.Do(func() { d = Read(asker(), ask.NewBudget("foreign", time.Minute, 2000, 1<<30)) })
	if len(d.routes6.datagrams) != 0 {
		t.Errorf("%d datagrams were kept", len(d.routes6.datagrams))
	}
	ns := fact.Namespace{Name: "lab"}
	d.Decode(&ns)
	if g, ok := ns.Routes.Gap(); !ok || g.Reason != fact.Truncated {
		t.Errorf("routes: %v %v", ns.Routes.State(), g)
	}
	if got := must(t, "links", ns.Links); len(got) != 1 {
		t.Errorf("links: %v", got)
	}
	for name, b := range map[string]*ask.Budget{
		"time":  ask.NewBudget("foreign", 0, 1<<20, 1<<30),
		"bytes": ask.NewBudget("foreign", time.Minute, 1<<20, 10),
	} {
		var d *Dump
		n.Do(func() { d = Read(asker(), b) })
		ns := fact.Namespace{Name: "lab"}
		d.Decode(&ns)
		if g, ok := ns.Links.Gap(); !ok || g.Reason != fact.Truncated {
			t.Errorf("%s: links %v %v", name, ns.Links.State(), g)
		}
		if g, ok := ns.Routes.Gap(); !ok || g.Reason != fact.Truncated {
			t.Errorf("%s: routes %v %v", name, ns.Routes.State(), g)
		}
	}
}
