package oracle

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

// xtGen writes random rules of x_tables over what is modelled exactly.
type xtGen struct {
	r  *rand.Rand
	v6 bool
}

func (g *xtGen) of(l ...string) string { return l[g.r.IntN(len(l))] }

func (g *xtGen) chance(percent int) bool { return g.r.IntN(100) < percent }

func (g *xtGen) not() string {
	if g.chance(30) {
		return "! "
	}
	return ""
}

func (g *xtGen) net() string {
	if g.v6 {
		return g.of("2001:db8:1::/48", "2001:db8:1:ffff::/64", "2001:db8:1::1", "2001:db8:2::/47", "fd00::/7", "2001:db8::/33", "2000::/3", "2001:db8:0:0:ffff::/ffff:ffff:0:0:ffff::")
	}
	return g.of("10.1.2.0/25", "10.1.2.3", "10.0.0.0/8", "10.1.0.0/255.255.0.255", "172.16.0.0/12", "198.51.100.128/25", "10.1.2.126/31", "0.0.0.0/0")
}

// ctNet has no mask that the tools take for another one among addresses of connections.
func (g *xtGen) ctNet() string {
	n, mask, _ := strings.Cut(g.net(), "/")
	if strings.ContainsAny(mask, ".:") {
		mask = ""
	}
	return strings.TrimSuffix(n+"/"+mask, "/")
}

func (g *xtGen) dst() string {
	if g.v6 {
		return g.of("2001:db8::1", "2001:db8:5::/48", "2001:db8:f::9", "2001:db8::/64")
	}
	return g.of("192.0.2.1", "198.51.100.0/24", "203.0.113.9", "192.0.2.0/24")
}

func (g *xtGen) ports() string {
	return g.of("22", "80", "22:80", "443", "0:1024", "1024:65535", "53", "4000:4010", "450", ":79", "81:")
}

func (g *xtGen) list() string {
	return g.of("22,80,443", "53,4000:4005,9", "1:21,23:79,450", "65535", "22,1023:1025,53")
}

// match is one condition; proto is -p of the rule so far.
func (g *xtGen) match(proto *string, chain string) string {
	n := g.not()
	nat := strings.HasPrefix(chain, "nat ")
	switch g.r.IntN(22) {
	case 0:
		return n + "-s " + g.net()
	case 1:
		return n + "-d " + g.dst()
	case 2:
		if strings.HasSuffix(chain, "OUTPUT") || strings.HasSuffix(chain, "POSTROUTING") || strings.Contains(chain, " u") {
			return ""
		}
		return n + "-i " + g.of("eth0", "wlan1", "eth+", "wlan+", "x+", "lo")
	case 3, 4, 5, 6, 7:
		if *proto == "" {
			*proto = g.of("tcp", "tcp", "udp", "icmp", "99")
			if *proto == "icmp" && g.v6 {
				*proto = "ipv6-icmp"
			}
			return "-p " + *proto
		}
		switch *proto {
		case "tcp":
			return g.of(n+"--dport "+g.ports(), n+"--sport "+g.ports(), n+"--syn", n+"--tcp-flags "+g.of("ALL", "SYN,ACK", "SYN,RST,FIN", "FIN")+" "+g.of("SYN", "NONE", "FIN", "SYN,ACK"),
				"-m multiport "+n+g.of("--dports ", "--sports ", "--ports ")+g.list())
		case "udp":
			return g.of(n+"--dport "+g.ports(), n+"--sport "+g.ports(), "-m multiport "+n+g.of("--dports ", "--sports ", "--ports ")+g.list())
		case "icmp":
			return n + "--icmp-type " + g.of("8", "3", "3/1", "1", "any", "0")
		case "ipv6-icmp":
			return n + "--icmpv6-type " + g.of("128", "3", "1", "1/3", "135", "255", "no-route")
		}
		return ""
	case 8, 9:
		return "-m conntrack " + n + "--ctstate " + g.of("NEW", "INVALID", "ESTABLISHED", "RELATED,ESTABLISHED", "NEW,INVALID", "UNTRACKED", "UNTRACKED,NEW")
	case 10:
		return "-m conntrack " + g.of("--ctdir ORIGINAL", "--ctdir REPLY", n+"--ctproto tcp", n+"--ctproto 17", n+"--ctstatus NONE") + " --ctstate " + g.of("NEW", "NEW,INVALID", "NEW,UNTRACKED")
	case 11:
		return "-m conntrack --ctstate NEW " + n + g.of("--ctorigsrc "+g.ctNet(), "--ctorigdst "+g.dst())
	case 12:
		if g.v6 {
			return "-m hl " + g.of(n+"--hl-eq 64", "--hl-lt 64", "--hl-gt 9", n+"--hl-eq 255")
		}
		return "-m ttl " + g.of(n+"--ttl-eq 64", "--ttl-lt 64", "--ttl-gt 9", n+"--ttl-eq 9")
	case 13:
		if strings.HasSuffix(chain, "OUTPUT") || strings.HasSuffix(chain, "POSTROUTING") {
			return ""
		}
		return "-m length " + n + "--length " + g.of("40:48", ":60", "60:", "20:39", "48")
	case 14:
		return "-m mark " + n + "--mark " + g.of("0", "1", "5/0xf", "0x10/0x10", "0/1")
	case 15:
		return "-m addrtype " + n + "--dst-type " + g.of("LOCAL", "MULTICAST")
	case 16:
		if g.v6 {
			return "-m iprange " + n + g.of("--src-range 2001:db8:1::-2001:db8:1:fff0::", "--dst-range 2001:db8::1-2001:db8:5::1")
		}
		return "-m iprange " + n + g.of("--src-range 10.1.2.100-10.2.0.0", "--dst-range 192.0.2.1-198.51.100.200")
	case 17:
		if g.v6 {
			if g.chance(50) {
				return "-m ipv6header " + n + "--header " + g.of("hop", "frag,prot", "dst,hop,prot", "prot", "route") + g.of("", " --soft")
			}
			return g.of("-m frag", "-m frag --fragfirst", "-m frag --fraglast", "-m frag --fragmore", "-m rt", "-m rt "+n+"--rt-type 0", "-m rt "+n+"--rt-segsleft 0", "-m hbh", "-m dst "+n+"--dst-len 8", "-m hbh "+n+"--hbh-len 16")
		}
		return n + "-f"
	case 18:
		if g.v6 {
			return "-m set " + n + "--match-set " + g.of("n6 src", "q6 src,dst", "n6 dst")
		}
		return "-m set " + n + "--match-set " + g.of("s4 src", "n4 src", "p4 src,dst", "l4 src", "m4 src", "b4 src", "n4 dst", "t4 src,dst,dst")
	case 19:
		return "-m " + g.of("tos "+n+"--tos 0x10/0x3f", "dscp "+n+"--dscp 4", "tos --tos 0")
	case 20:
		return "-m connmark " + n + "--mark " + g.of("0", "1", "0/5")
	default:
		if nat || g.chance(50) {
			return ""
		}
		return "-m recent " + n + "--set --name r" + strconv.Itoa(g.r.IntN(100))
	}
}

func (g *xtGen) rule(table, chain string, targets []string) string {
	proto := ""
	b := "-A " + chain
	seen := map[string]bool{}
	for range g.r.IntN(4) {
		m := g.match(&proto, table+" "+chain)
		f := strings.Fields(strings.TrimPrefix(m, "! "))
		if m == "" || seen[f[0]] && f[0] != "-m" || f[0] == "-m" && seen[f[1]] {
			continue
		}
		if seen[f[0]] = true; f[0] == "-m" {
			seen[f[1]] = true
		}
		// -p stands first: what follows belongs to it.
		b += " " + m
	}
	t := g.of(targets...)
	switch {
	case t == "REJECT":
		if proto == "tcp" && g.chance(50) {
			t += " --reject-with tcp-reset"
		}
	case strings.Contains(t, "--to-ports"), strings.HasPrefix(t, "DNAT") && strings.Contains(t, ":8"):
		if proto != "tcp" && proto != "udp" {
			if proto != "" {
				t = "ACCEPT"
			} else {
				b += " -p " + g.of("tcp", "udp")
			}
		}
	}
	switch {
	case t == "":
	case strings.HasPrefix(t, "-g"):
		b += " " + t
	default:
		b += " -j " + t
	}
	return b
}

// text is a ruleset.
func (g *xtGen) text() string {
	var b strings.Builder
	table := func(name string, chains []string, rules int, targets []string, policy bool) {
		fmt.Fprintf(&b, "*%s\n", name)
		for _, c := range chains {
			p := "ACCEPT"
			if policy && g.chance(50) {
				p = "DROP"
			}
			fmt.Fprintf(&b, ":%s %s [0:0]\n", c, p)
		}
		const users = 4
		for u := range users {
			fmt.Fprintf(&b, ":u%d - [0:0]\n", u)
		}
		jumps := func(from int) []string {
			out := slices.Clone(targets)
			for u := from; u < users; u++ {
				out = append(out, fmt.Sprintf("u%d", u), fmt.Sprintf("-g u%d", u))
			}
			return append(out, "RETURN", "")
		}
		for range rules {
			c := g.of(chains...)
			b.WriteString(g.rule(name, c, jumps(0)) + "\n")
		}
		for u := range users {
			for range g.r.IntN(4) {
				b.WriteString(g.rule(name, fmt.Sprintf("u%d", u), jumps(u+1)) + "\n")
			}
		}
		b.WriteString("COMMIT\n")
	}
	if g.chance(30) {
		table("raw", []string{"PREROUTING", "OUTPUT"}, 4, []string{"CT --notrack", "ACCEPT", "DROP"}, false)
	}
	if g.chance(50) {
		table("mangle", []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, 8, []string{
			"MARK --set-mark 1", "MARK --set-xmark 5/0xf", "MARK --or-mark 0x10", "MARK --xor-mark 5", "MARK --and-mark 0xe", "CONNMARK --set-mark 1",
			"CONNMARK --save-mark", "CONNMARK --restore-mark --mask 0xf", "CONNMARK --or-mark 4", "ACCEPT", "DROP", "CONNMARK --set-xmark 3/5",
		}, false)
	}
	if g.chance(30) {
		to := []string{"ACCEPT", "REDIRECT --to-ports 443", "REDIRECT", "DNAT --to-destination 192.0.2.1", "DNAT --to-destination 203.0.113.9:80"}
		if g.v6 {
			to = []string{"ACCEPT", "REDIRECT --to-ports 443", "DNAT --to-destination 2001:db8::1", "DNAT --to-destination [2001:db8:f::9]:80"}
		}
		b.WriteString("*nat\n:PREROUTING ACCEPT [0:0]\n")
		for range 3 {
			b.WriteString(g.rule("nat", "PREROUTING", to) + "\n")
		}
		b.WriteString("COMMIT\n")
	}
	table("filter", []string{"INPUT", "FORWARD", "OUTPUT"}, 14, []string{"ACCEPT", "ACCEPT", "DROP", "REJECT"}, true)
	if g.chance(20) {
		table("security", []string{"INPUT", "FORWARD", "OUTPUT"}, 4, []string{"ACCEPT", "DROP", "MARK --set-mark 1"}, true)
	}
	return b.String()
}

// testRandomXT loads random rules of x_tables. The seed is fixed; XT_ROUNDS asks for more.
func testRandomXT(t *testing.T, backend string) {
	for _, p := range []string{"iptables-" + backend + "-restore", "ip6tables-" + backend + "-restore"} {
		testlab.RequireTool(t, p)
	}
	l := NewLab(t)
	l.makeSets(t)
	rounds, seed := 6, 1
	if s := os.Getenv("XT_ROUNDS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("XT_SEED"); s != "" {
		seed, _ = strconv.Atoi(s)
	}
	before, verdicts, uncertain, refused := "", 0, 0, 0
	for i := range rounds {
		if s := os.Getenv("XT_ONLY"); s != "" && !slices.Contains(strings.Split(s, ","), strconv.Itoa(i)) {
			continue
		}
		v6 := i%2 == 1
		fam := "4"
		if v6 {
			fam = "6"
		}
		g := &xtGen{r: rand.New(rand.NewPCG(uint64(seed), uint64(i))), v6: v6}
		f := form{fam: fam, rule: g.text(), vague: "route after NAT"}
		if err := l.loadXT(backend, fam, f.rule, &before); err != nil {
			if refused++; os.Getenv("XT_ROUNDS") != "" {
				t.Logf("round %d: %v", i, err)
			}
			continue
		}
		ts, err := l.tables()
		if err != nil {
			t.Errorf("round %d: %v", i, err)
			continue
		}
		types := map[string]uint16{"lo": 772, Interfaces[0]: 1, Interfaces[1]: 1}
		shapes, probes := hostShapes(v6)
		written := l.written(t, backend, fam, f, ts)
		accepted, err := l.Fire(shapes, probes)
		if err != nil {
			t.Errorf("round %d: %v", i, err)
			continue
		}
		f.rule = fmt.Sprintf("XT_SEED=%d round %d", seed, i)
		for _, tables := range [][]*rs.Table{ts, written} {
			uncertain += l.compareXT(t, f, &rs.Ruleset{Tables: tables, Interfaces: l.names, Types: types}, shapes, probes, accepted)
			verdicts += len(probes)
		}
		if t.Failed() && os.Getenv("XT_ROUNDS") != "" {
			t.Log(g.r, "\n", f.rule, "\n", textOf(seed, i))
			return
		}
	}
	t.Logf("%s: %d rulesets (%d refused), %d verdicts compared with the kernel, %d uncertain", backend, rounds, refused, verdicts, uncertain)
	if refused > rounds/3 {
		t.Errorf("%d of %d rulesets were refused", refused, rounds)
	}
}

func textOf(seed, i int) string {
	g := &xtGen{r: rand.New(rand.NewPCG(uint64(seed), uint64(i))), v6: i%2 == 1}
	return g.text()
}

func TestRandomXTNFT(t *testing.T)    { t.Parallel(); testRandomXT(t, "nft") }
func TestRandomXTLegacy(t *testing.T) { t.Parallel(); testRandomXT(t, "legacy") }
