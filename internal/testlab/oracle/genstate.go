package oracle

import "fmt"

// objects are the stateful objects of a table, one a line.
func objects(family string) []string {
	out := []string{
		" counter cnt { }",
		" quota quo { over 100 mbytes; }",
		" limit lim { rate 1/hour; }",
		" map objs { type inet_service : counter; elements = { 22 : \"cnt\", 80 : \"cnt\" } }",
		" map lims { type inet_service : limit; elements = { 22 : \"lim\", 80 : \"lim\" } }",
	}
	if family == "netdev" {
		return out
	}
	l3 := "ip"
	if family == "ip6" {
		l3 = "ip6"
	}
	return append(out,
		" ct timeout tmo { protocol tcp; l3proto "+l3+"; policy = { established : 100, close : 4 }; }",
		" ct helper hlp { type \"ftp\" protocol tcp; l3proto "+l3+"; }",
		" ct expectation exp { protocol tcp; dport 9876; timeout 2m; size 12; l3proto "+l3+"; }",
	)
}

func (g *Generator) end() string { return pick(g, []string{" accept", " drop", ""}) }

// statement writes one, with a verdict where it needs one.
func (g *Generator) statement(name string, below []*chainText) string {
	v6 := g.family == "ip6" || g.family != "ip" && g.chance(50)
	switch g.goal.v6 {
	case 4:
		v6 = false
	case 6:
		v6 = true
	}
	addr, typ, ip := "ip saddr", "ipv4_addr", "ip"
	if v6 {
		addr, typ, ip = "ip6 saddr", "ipv6_addr", "ip6"
	}
	final := pick(g, []string{" accept", " drop"})
	dynamic := func() string { return g.named("set", "type "+typ+"; flags dynamic; size 100000;") }
	switch name {
	case "jump", "goto":
		if len(below) == 0 {
			return "accept"
		}
		return name + " " + pick(g, below).name
	case "reject":
		return pick(g, []string{"reject", "reject"})
	case "reject tcp":
		return "meta l4proto tcp reject with tcp reset"
	case "reject icmpx":
		return "reject with icmpx type admin-prohibited"
	case "log":
		return "log prefix \"x\" level debug" + g.end()
	case "nftrace":
		return "meta nftrace set 0" + g.end()
	case "counter":
		return "counter" + g.end()
	case "mark set":
		return fmt.Sprintf("meta mark set 0x%x", pick(g, []uint64{1, 2, 0x100, 0xff00}))
	case "mark or":
		return fmt.Sprintf("meta mark set meta mark %s 0x%x", pick(g, []string{"|", "&", "^"}), pick(g, []uint64{1, 2, 0x1ff}))
	case "mark shift":
		return fmt.Sprintf("meta mark set meta mark %s %d", pick(g, []string{"<<", ">>"}), 1+g.r.IntN(9))
	case "mark random":
		return "meta mark set numgen random mod 2"
	case "mark map":
		return "meta mark set meta mark map { 0 : 1, 1 : 2, 2 : 256 }"
	case "ct mark set":
		return pick(g, []string{"ct mark set 1", "ct mark set meta mark", "ct mark set ct mark or 2", "meta mark set ct mark"})
	case "ct zone set":
		return "ct zone set " + pick(g, []string{"0", "1", "2"})
	case "ct label set":
		return "ct label set 1"
	case "ct event set":
		return "ct event set new"
	case "counter object":
		return "counter name cnt" + g.end()
	case "quota object":
		return "quota name quo" + final
	case "limit object":
		return "limit name lim" + final
	case "object map":
		return pick(g, []string{"counter name tcp dport map @objs", "limit name tcp dport map @lims"}) + g.end()
	case "ct timeout":
		return "meta l4proto tcp ct timeout set \"tmo\""
	case "ct helper":
		return "meta l4proto tcp ct helper set \"hlp\""
	case "ct expectation":
		return "meta l4proto tcp ct expectation set \"exp\""
	case "synproxy":
		return "meta l4proto tcp synproxy mss 1460 wscale 7"
	case "limit":
		return "limit rate 1/hour burst 1 packets" + final
	case "limit over":
		return "limit rate over 1/hour burst 1 packets" + final
	case "quota":
		return pick(g, []string{"quota over 1 kbytes", "quota until 1 kbytes"}) + final
	case "ct count":
		return pick(g, []string{"ct count over 2", "ct count 2"}) + final
	case "dynset add":
		return "add " + dynamic() + " { " + addr + " }" + g.end()
	case "dynset update":
		return "update " + g.named("set", "type "+typ+"; flags dynamic, timeout; timeout 1h; size 100000;") + " { " + addr + " timeout 10m }" + g.end()
	case "dynset delete":
		return "delete " + dynamic() + " { " + addr + " }" + g.end()
	case "dynset limit":
		return pick(g, []string{"add ", "update "}) + dynamic() + " { " + addr + pick(g, []string{" limit rate 1/hour burst 1 packets }", " limit rate over 1/hour burst 1 packets }"}) + final
	case "dynset map":
		return "add " + g.named("map", "type "+typ+" : mark; flags dynamic; size 100000;") + " { " + addr + " : meta mark }" + g.end()
	case "dynset lookup":
		return addr + " " + dynamic() + final
	case "payload ttl":
		return map[bool]string{false: "ip ttl set 9", true: "ip6 hoplimit set 9"}[v6]
	case "payload dscp":
		return ip + " dscp set cs1"
	case "payload port":
		what := map[uint8]string{0: "th dport", protoTCP: "tcp dport", protoUDP: "udp sport"}[g.goal.proto]
		if what == "" {
			return "accept"
		}
		return what + " set " + fmt.Sprint(g.port())
	case "payload daddr":
		return fmt.Sprintf("%s daddr set %s", ip, g.destination(v6, g.chance(50)))
	case "payload saddr":
		return fmt.Sprintf("%s saddr set %s", ip, g.source(v6))
	case "payload mss":
		return "tcp flags syn tcp option maxseg size set 1200"
	case "pkttype set":
		return "meta pkttype set " + pick(g, []string{"host", "broadcast", "multicast", "other"})
	case "priority set":
		return "meta priority set 1:2"
	case "tproxy":
		to := fmt.Sprintf("127.0.0.1:%d", flowTCP)
		if v6 {
			to = fmt.Sprintf("[::1]:%d", flowTCP)
		}
		if g.family != "inet" {
			return "meta l4proto tcp tproxy to " + to
		}
		return "meta l4proto tcp tproxy " + ip + " to " + to
	case "dup":
		return "dup to \"eth0\""
	case "fwd":
		return "fwd to \"eth0\""
	case "redirect":
		return fmt.Sprintf("meta l4proto tcp redirect to :%d", g.port())
	case "redirect range":
		return fmt.Sprintf("meta l4proto tcp redirect to :%d-%d", 1000, 1010)
	case "masquerade":
		return pick(g, []string{"masquerade", "masquerade random", "meta l4proto tcp masquerade to :4000-5000"})
	case "snat", "snat range":
		to := g.destination(v6, false)
		text := to.String()
		if name == "snat range" {
			text += "-" + to.Next().Next().String()
		}
		return g.inetNat("snat", ip) + " to " + text
	case "dnat", "dnat port", "dnat range", "dnat map":
		to := g.destination(v6, g.chance(30))
		switch {
		case name == "dnat":
			return g.inetNat("dnat", ip) + " to " + to.String()
		case name == "dnat range":
			return g.inetNat("dnat", ip) + " to " + to.String() + "-" + to.Next().String()
		case name == "dnat map":
			return fmt.Sprintf("meta l4proto tcp %s to tcp dport map { %d : %s, 22 : %s }", g.inetNat("dnat", ip), 23+g.r.IntN(1000), to, g.destination(v6, false))
		case v6:
			return fmt.Sprintf("meta l4proto tcp %s to [%s]:%d", g.inetNat("dnat", ip), to, g.port())
		}
		return fmt.Sprintf("meta l4proto tcp %s to %s:%d", g.inetNat("dnat", ip), to, g.port())
	}
	return name
}
