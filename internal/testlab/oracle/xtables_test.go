package oracle

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

// form is a rule of x_tables. With a target of its own it stands before an accept
// of everything, else it accepts and all else is dropped.
type form struct {
	rule string
	fam  string // "4", "6" or both ("")
	// vague is why an answer may be uncertain: a rate, or what is not understood. Other
	// forms must be answered exactly.
	vague string
	table string // filter, or where the rule stands
	chain string // other than INPUT and FORWARD
	after string // rules of the filter table behind it, instead of an accept
	only  string // "nft" or "legacy": the other back-end cannot load it
}

// forms are matches and targets, each also inverted where it can be.
var forms = []form{
	{rule: "-p tcp"},
	{rule: "! -p tcp"},
	{rule: "-p udp"},
	{rule: "-p 99"},
	{rule: "! -p 99"},
	{rule: "-s 10.1.2.0/25", fam: "4"},
	{rule: "! -s 10.1.2.0/25", fam: "4"},
	{rule: "-s 10.1.2.3", fam: "4"},
	{rule: "-s 10.0.2.0/255.0.255.0", fam: "4"},
	{rule: "-s 2001:db8:1::/48", fam: "6"},
	{rule: "! -s 2001:db8:1::/48", fam: "6"},
	{rule: "! -s 2001:db8:1::1", fam: "6"},
	{rule: "-d 192.0.2.1", fam: "4"},
	{rule: "! -d 192.0.2.1", fam: "4"},
	{rule: "! -d 2001:db8::1", fam: "6"},
	{rule: "-i eth0"},
	{rule: "! -i eth0"},
	{rule: "-i eth+"},
	{rule: "! -i wlan+"},
	{rule: "-f", fam: "4"},
	{rule: "! -f", fam: "4"},
	{rule: "-p tcp --dport 22"},
	{rule: "-p tcp ! --dport 22"},
	{rule: "-p tcp --dport 22:80"},
	{rule: "-p tcp ! --dport 22:80"},
	{rule: "-p tcp --sport 1024:65535 --dport 443"},
	{rule: "-p tcp ! --sport 1024:65535"},
	{rule: "-p tcp --dport 0:1024"},
	{rule: "-p tcp --syn"},
	{rule: "-p tcp ! --syn"},
	{rule: "-p tcp --tcp-flags ALL FIN"},
	{rule: "-p tcp ! --tcp-flags SYN,ACK SYN"},
	{rule: "-p tcp --tcp-option 2", vague: "header options"},
	{rule: "-p udp --dport 53"},
	{rule: "-p udp ! --dport 53"},
	{rule: "-p udp --sport 4000 ! --dport 50:60"},
	{rule: "-p tcp -m multiport --dports 22,80,400:500"},
	{rule: "-p tcp -m multiport ! --dports 22,80,400:500"},
	{rule: "-p tcp -m multiport --sports 4000,22"},
	{rule: "-p udp -m multiport --ports 53,4000:4010"},
	{rule: "-p udp -m multiport ! --ports 53,4000:4010"},
	{rule: "-m conntrack --ctstate NEW"},
	{rule: "-m conntrack ! --ctstate NEW"},
	{rule: "-m conntrack --ctstate INVALID,UNTRACKED"},
	{rule: "-m conntrack --ctstate RELATED,ESTABLISHED"},
	{rule: "-m conntrack --ctstate SNAT,DNAT", only: "legacy"},
	{rule: "-m conntrack ! --ctstate DNAT"},
	{rule: "-m conntrack --ctdir ORIGINAL"},
	{rule: "-m conntrack --ctdir REPLY"},
	{rule: "-m conntrack --ctstate NEW --ctdir ORIGINAL"},
	{rule: "-m conntrack --ctproto tcp"},
	{rule: "-m conntrack ! --ctproto tcp --ctstate NEW,INVALID"},
	{rule: "-m conntrack --ctorigsrc 10.1.0.0/16", fam: "4"},
	{rule: "-m conntrack ! --ctorigsrc 2001:db8:1::/48", fam: "6"},
	{rule: "-m conntrack --ctorigsrc fd00::1/7", fam: "6"}, // with bits that the mask does not have
	{rule: "-m conntrack --ctorigsrc 10.1.2.3/16", fam: "4"},
	{rule: "-m conntrack --ctproto tcp --ctorigdstport 22"},
	{rule: "-m conntrack --ctproto udp ! --ctorigsrcport 4000:4100"},
	{rule: "-m conntrack --ctstatus NONE"},
	{rule: "-m conntrack ! --ctstatus ASSURED"},
	{rule: "-m state --state NEW"},
	{rule: "-m state --state INVALID"},
	{rule: "-m state ! --state NEW"},
	{rule: "-m comment --comment hello -p tcp --dport 80"},
	{rule: "-m mark --mark 0"},
	{rule: "-m mark ! --mark 0"},
	{rule: "-m mark --mark 0x10/0xf0"},
	{rule: "-m connmark --mark 0"},
	{rule: "-m connmark ! --mark 1/1"},
	{rule: "-p icmp --icmp-type any", fam: "4"},
	{rule: "-p icmp --icmp-type echo-request", fam: "4"},
	{rule: "-p icmp ! --icmp-type echo-request", fam: "4"},
	{rule: "-p icmp --icmp-type 3/1", fam: "4"},
	{rule: "-p icmp ! --icmp-type 3", fam: "4"},
	{rule: "-p ipv6-icmp --icmpv6-type echo-request", fam: "6"},
	{rule: "-p ipv6-icmp ! --icmpv6-type echo-request", fam: "6"},
	{rule: "-p ipv6-icmp --icmpv6-type 1/3", fam: "6"},
	{rule: "-p ipv6-icmp --icmpv6-type neighbour-solicitation -m hl --hl-eq 255", fam: "6"},
	{rule: "-m ttl --ttl-eq 64", fam: "4"},
	{rule: "-m ttl ! --ttl-eq 64", fam: "4"},
	{rule: "-m ttl --ttl-lt 64", fam: "4"},
	{rule: "-m ttl --ttl-gt 64", fam: "4"},
	{rule: "-m hl --hl-eq 64", fam: "6"},
	{rule: "-m hl ! --hl-eq 64", fam: "6"},
	{rule: "-m hl --hl-lt 64", fam: "6"},
	{rule: "-m hl --hl-gt 64", fam: "6"},
	{rule: "-m mac --mac-source 02:00:00:00:00:05"},
	{rule: "-m mac ! --mac-source 02:00:00:00:00:05"},
	{rule: "-m iprange --src-range 10.1.2.3-10.1.2.100", fam: "4"},
	{rule: "-m iprange ! --src-range 10.1.2.3-10.1.2.100", fam: "4"},
	{rule: "-m iprange --src-range 2001:db8:1::1-2001:db8:1::ffff ! --dst-range 2001:db8::-2001:db8::ff", fam: "6"},
	{rule: "-m length --length 40:48"},
	{rule: "-m length ! --length 40:48"},
	{rule: "-m length --length 0:60"},
	{rule: "-m length --length 60:65535"},
	{rule: "-m tos --tos 0x10/0x3f"},
	{rule: "-m tos ! --tos 0x10/0xff"},
	{rule: "-m dscp --dscp 4"},
	{rule: "-m dscp ! --dscp 4"},
	{rule: "-m pkttype --pkt-type unicast"},
	{rule: "-m pkttype ! --pkt-type unicast"},
	{rule: "-m pkttype --pkt-type broadcast"},
	{rule: "-m addrtype --dst-type LOCAL"},
	{rule: "-m addrtype ! --dst-type LOCAL"},
	{rule: "-m addrtype --dst-type UNICAST", fam: "6"},
	{rule: "-m addrtype --src-type UNICAST", fam: "6"},
	{rule: "-m addrtype ! --src-type MULTICAST", fam: "6"},
	{rule: "-m addrtype --dst-type MULTICAST"},
	{rule: "-m addrtype --src-type LOCAL", vague: "fib"},
	{rule: "-m addrtype --dst-type LOCAL --limit-iface-in", vague: "fib"},
	{rule: "-m limit --limit 1/hour --limit-burst 3", vague: "limit"},
	{rule: "-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 2 --hashlimit-name a --hashlimit-mode srcip", vague: "limit"},
	{rule: "-m hashlimit --hashlimit-above 1/hour --hashlimit-burst 2 --hashlimit-name b --hashlimit-mode srcip,dstport", vague: "limit"},
	{rule: "-m connlimit --connlimit-upto 5", vague: "limit"},
	{rule: "-m connlimit --connlimit-above 0"},
	{rule: "-m recent --name r1 --set"},
	{rule: "-m recent --name r2 ! --set"},
	{rule: "-m recent --name r3 --rcheck", vague: "recent"},
	{rule: "-m recent --name r4 --update --seconds 30 --hitcount 6", vague: "limit"},
	{rule: "-m statistic --mode random --probability 0.5", vague: "statistic"},
	{rule: "-m quota --quota 100", vague: "limit"},
	{rule: "-p tcp -m tcpmss --mss 1:100", vague: "tcpmss"},
	{rule: "-m policy --dir in --pol none", vague: "policy"},
	{rule: "-m physdev --physdev-is-bridged"},
	{rule: "-m physdev ! --physdev-is-bridged"},
	{rule: "-m physdev --physdev-in eth0"},
	{rule: "-m physdev ! --physdev-in eth+"},
	{rule: "-m physdev ! --physdev-is-in"},
	{rule: "-m time --timestart 00:00", vague: "time"},
	{rule: "-m u32 --u32 0&0xf0000000=0", vague: "u32"},
	{rule: "-m string --algo bm --string xyz", vague: "string"},
	{rule: "-m socket --nowildcard -j MARK --set-mark 5", table: "mangle", chain: "PREROUTING", after: "-A INPUT -m mark ! --mark 5 -j ACCEPT", vague: "socket"},
	{rule: "-m cpu --cpu 0", vague: "cpu"},
	{rule: "-m helper --helper ftp", vague: "helper"},
	{rule: "-m connbytes --connbytes 1: --connbytes-dir both --connbytes-mode packets", vague: "connbytes"},
	{rule: "-m frag", fam: "6"},
	{rule: "-m frag --fragfirst --fragmore", fam: "6"},
	{rule: "-m frag --fraglast", fam: "6"},
	{rule: "-m frag ! --fragid 0:10", fam: "6"},
	{rule: "-m frag --fragres", fam: "6"},
	{rule: "-m rt", fam: "6"},
	{rule: "-m rt --rt-type 0", fam: "6"},
	{rule: "-m rt ! --rt-type 0 --rt-segsleft 0", fam: "6"},
	{rule: "-m rt --rt-len 8", fam: "6"},
	{rule: "-m hbh", fam: "6"},
	{rule: "-m hbh --hbh-len 8", fam: "6"},
	{rule: "-m hbh ! --hbh-len 8", fam: "6"},
	{rule: "-m dst", fam: "6"},
	{rule: "-m dst --dst-opts 1", fam: "6", vague: "dst"},
	{rule: "-m ipv6header --header hop-by-hop --soft", fam: "6"},
	{rule: "-m ipv6header --header prot", fam: "6"},
	{rule: "-m ipv6header ! --header dst,prot", fam: "6"},
	{rule: "-m ipv6header --header frag,prot --soft", fam: "6"},
	// What connection tracking cannot reassemble it passes on.
	{rule: "-m ipv6header --header frag --soft -m conntrack --ctstate NEW", fam: "6"},
	{rule: "-m eui64", fam: "6", vague: "eui64"},
	{rule: "-p sctp --dport 22"},
	{rule: "-p esp -m esp --espspi 1:100"},
	{rule: "-p ah -m ah --ahspi 5", fam: "4"},
	{rule: "-m devgroup --src-group 0"},
	{rule: "-m devgroup ! --src-group 5"},
	{rule: "-m devgroup --src-group 4/6"},
	{rule: "-m set --match-set s4 src", fam: "4"},
	{rule: "-m set ! --match-set s4 src", fam: "4"},
	{rule: "-m set --match-set n4 src", fam: "4"},
	{rule: "-m set ! --match-set n4 src", fam: "4"},
	{rule: "-m set --match-set p4 src,dst", fam: "4"},
	{rule: "-m set ! --match-set p4 src,dst", fam: "4"},
	{rule: "-m set --match-set l4 src", fam: "4"},
	{rule: "-m set --match-set m4 src", fam: "4"},
	{rule: "-m set --match-set t4 src,dst,dst", fam: "4"},
	{rule: "-m set ! --match-set t4 src,dst,dst", fam: "4"},
	{rule: "-m set --match-set bp dst"},
	{rule: "-m set ! --match-set bp dst"},
	{rule: "-m set --match-set b4 src", fam: "4"},
	{rule: "-m set --match-set n6 src", fam: "6"},
	{rule: "-m set ! --match-set n6 src", fam: "6"},
	{rule: "-m set --match-set i6 src,src", fam: "6"},
	{rule: "-m set --match-set q6 src,dst", fam: "6"},

	{rule: "-p tcp --dport 22 -j DROP"},
	{rule: "-p tcp --dport 22 -j REJECT --reject-with tcp-reset"},
	{rule: "-p udp -j REJECT"},
	{rule: "-p tcp --dport 22 -j LOG --log-prefix x"},
	{rule: "-p tcp -j NFLOG"},
	{rule: "-j AUDIT --type accept"},
	{rule: "-p tcp --dport 22 -j RETURN", after: "-A INPUT -p udp -j ACCEPT"},
	{rule: "-p tcp --dport 22 -j MARK --set-mark 5", table: "mangle", chain: "PREROUTING", after: "-A INPUT -m mark --mark 5 -j ACCEPT\n-A FORWARD -m mark ! --mark 5 -j ACCEPT"},
	{rule: "-p tcp -j MARK --or-mark 0x30", table: "mangle", chain: "PREROUTING", after: "-A INPUT -m mark --mark 0x10/0x10 -j ACCEPT"},
	{rule: "-p tcp -j CONNMARK --set-mark 7", table: "mangle", chain: "PREROUTING", after: "-A INPUT -m connmark --mark 7 -j ACCEPT"},
	{rule: "-p udp -j CONNMARK --save-mark", table: "mangle", chain: "PREROUTING", after: "-A INPUT -m connmark --mark 0 -j ACCEPT"},
	{rule: "-p udp -j CONNMARK --restore-mark", table: "mangle", chain: "PREROUTING", after: "-A INPUT -m mark --mark 0 -j ACCEPT"},
	{rule: "-p tcp -j CT --notrack", table: "raw", chain: "PREROUTING", after: "-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT"},
	{rule: "-p tcp --dport 22 -j DNAT --to-destination 192.0.2.1:80", fam: "4", table: "nat", chain: "PREROUTING", after: "-A INPUT -p tcp --dport 80 -j ACCEPT"},
	{rule: "-p tcp --dport 22 -j DNAT --to-destination [2001:db8::1]:80", fam: "6", table: "nat", chain: "PREROUTING", after: "-A INPUT -p tcp --dport 80 -j ACCEPT"},
	{rule: "-p tcp --dport 22 -j REDIRECT --to-ports 443", table: "nat", chain: "PREROUTING", after: "-A INPUT -p tcp --dport 443 -j ACCEPT"},
	{rule: "-p tcp --dport 22 -j DNAT --to-destination 192.0.2.1:80-82", fam: "4", table: "nat", chain: "PREROUTING", after: "-A INPUT -p tcp --dport 80:82 -j ACCEPT"},
	{rule: "-p udp -j REDIRECT --to-ports 443-445", table: "nat", chain: "PREROUTING", after: "-A INPUT -i eth0 -d 192.0.2.1 -p udp --dport 443:445 -j ACCEPT", fam: "4"},
	{rule: "-p udp -j REDIRECT --to-ports 443-445", table: "nat", chain: "PREROUTING", after: "-A INPUT -d 2001:db8:5::80 -p udp --dport 443:445 -j ACCEPT", fam: "6"},
	{rule: "-p udp -j NETMAP --to 198.51.100.128/25", fam: "4", table: "nat", chain: "PREROUTING", after: "-A INPUT -d 198.51.100.129 -j ACCEPT"},
	{rule: "-p tcp -j NETMAP --to 2001:db8:5::/64", fam: "6", table: "nat", chain: "PREROUTING", after: "-A INPUT -d 2001:db8:5::80 -j ACCEPT"},
	{rule: "-d 198.51.100.129 -j NETMAP --to 192.0.2.0/25", fam: "4", table: "nat", chain: "PREROUTING", after: "-A INPUT -d 192.0.2.1 -j ACCEPT"},
	{rule: "-m ttl --ttl-gt 1 -j TTL --ttl-set 9", fam: "4", table: "mangle", chain: "PREROUTING", after: "-A INPUT -m ttl --ttl-eq 9 -j ACCEPT", vague: "a field that the question does not have"},
	{rule: "-j TOS --set-tos 0x10", table: "mangle", chain: "PREROUTING", after: "-A INPUT -p tcp -m tos --tos 0x10 -j ACCEPT", vague: "a field that the question does not have"},
	{rule: "-p tcp --syn -j TCPMSS --set-mss 1000", table: "mangle", chain: "FORWARD", after: "-A INPUT -p tcp -j ACCEPT\n-A FORWARD -p tcp --dport 22 -j ACCEPT"},
	{rule: "-p tcp --dport 22 -j NFQUEUE", vague: "queue"},
	{rule: "-p tcp -j SET --add-set dyn src", fam: "4"},
	{rule: "-p tcp -j SET --add-set dyn6 src", fam: "6"},
}

const ufwRules = `*filter
:INPUT DROP
:FORWARD DROP
:ufw-before - [0:0]
:ufw-user - [0:0]
:ufw-limit - [0:0]
:ufw-not-local - [0:0]
:ufw-skip - [0:0]
-A INPUT -j ufw-before
-A INPUT -j ufw-user
-A INPUT -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
-A ufw-before -i lo -j ACCEPT
-A ufw-before -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before -m conntrack --ctstate INVALID -j DROP
%s
-A ufw-before -j ufw-not-local
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -j DROP
-A ufw-user -p tcp --dport 80 -j ACCEPT
-A ufw-user -p tcp -m multiport --dports 400:500,8080 -j ACCEPT
-A ufw-user -p udp --dport 53 -g ufw-skip
-A ufw-user -p tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name ssh
-A ufw-user -p tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 20 --name ssh -j ufw-limit
-A ufw-user -p tcp --dport 22 -j ACCEPT
-A ufw-limit -m limit --limit 3/min -j LOG
-A ufw-limit -j REJECT
-A ufw-skip -s %s -j ACCEPT
COMMIT
`

// rulesets are what tools write.
var rulesets = map[string]form{
	"ufw 4": {fam: "4", vague: "limit", rule: fmt.Sprintf(ufwRules, "-A ufw-before -p icmp --icmp-type 8 -j ACCEPT", "10.1.0.0/16")},
	"ufw 6": {fam: "6", vague: "limit", rule: fmt.Sprintf(ufwRules, "-A ufw-before -m rt --rt-type 0 -j DROP\n-A ufw-before -p ipv6-icmp --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT\n-A ufw-before -p ipv6-icmp --icmpv6-type 128 -j ACCEPT", "2001:db8:1::/48")},
	// Which way a packet leaves after DNAT, the lab's routes do not say.
	"docker 4": {fam: "4", vague: "route after NAT", rule: `*nat
:PREROUTING ACCEPT
:POSTROUTING ACCEPT
:OUTPUT ACCEPT
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 203.0.113.9:443
COMMIT
*filter
:INPUT ACCEPT
:FORWARD DROP
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o wlan1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o wlan1 -j DOCKER
-A FORWARD -i wlan1 ! -o wlan1 -j ACCEPT
-A DOCKER -d 203.0.113.9/32 ! -i wlan1 -o wlan1 -p tcp -m tcp --dport 443 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i wlan1 ! -o wlan1 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o wlan1 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -s 10.1.2.0/24 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
`},
}

// text is what iptables-restore loads.
func (f form) text() string {
	if strings.HasPrefix(f.rule, "*") {
		return f.rule
	}
	var b strings.Builder
	chains := []string{"INPUT", "FORWARD"}
	policy := "DROP"
	if f.table == "" && !strings.Contains(f.rule, " -j ") && !strings.HasPrefix(f.rule, "-j") {
		f.rule += " -j ACCEPT"
	} else if f.after == "" {
		policy = "ACCEPT"
	}
	if f.table != "" {
		fmt.Fprintf(&b, "*%s\n-A %s %s\nCOMMIT\n", f.table, f.chain, f.rule)
	}
	fmt.Fprintf(&b, "*filter\n:INPUT %s\n:FORWARD %s\n", policy, policy)
	for _, c := range chains {
		if f.table == "" {
			fmt.Fprintf(&b, "-A %s %s\n", c, f.rule)
		}
	}
	fmt.Fprintf(&b, "%s\nCOMMIT\n", f.after)
	return b.String()
}

// excused tells whether an uncertain answer names the reason that the form allows, or
// one that any rule may have.
func (f form) excused(s *Shape, a *reach.Answer, limited bool) bool {
	why := strings.Join(append(append([]string(nil), a.Needs...), a.Opaque...), ", ")
	if s.Ct == reach.CtEstablished && (strings.Contains(why, "ct key") || strings.Contains(why, "which side opened the flow")) {
		return true // what its connection holds
	}
	// After reassembly the question has no bytes any more.
	if slices.ContainsFunc(s.Ext, func(e reach.Ext) bool { return e.Number == fragment }) &&
		(strings.Contains(why, "a field that the question does not have") || strings.Contains(why, "packet length")) {
		return true
	}
	if strings.Contains(why, "the other fragments") || strings.Contains(why, "transport header of a later fragment") {
		return true
	}
	return f.vague != "" && (f.vague == "limit" && limited || strings.Contains(why, f.vague))
}

// xtShapes are the packets that every rule meets.
func xtShapes(v6 bool) ([]Shape, []Probe) {
	echo, icmp := uint8(8), uint8(protoICMP)
	if v6 {
		echo, icmp = 128, protoICMPv6
	}
	kinds := []Shape{
		{Proto: protoTCP, Dport: 22, Sport: 4000, Flags: 2},
		{Proto: protoTCP, Dport: 80, Sport: 1023, Flags: 2},
		{Proto: protoTCP, Dport: 443, Sport: 65535, Flags: 2},
		{Proto: protoTCP, Dport: 22, Sport: 4000, Flags: 16},
		{Proto: protoTCP, Dport: 450, Sport: 22, Flags: 1},
		{Proto: protoTCP, Dport: 1025, Sport: 1024, Flags: 0x12},
		{Proto: protoUDP, Dport: 53, Sport: 4000},
		{Proto: protoUDP, Dport: 4005, Sport: 53, Body: 30},
		{Proto: protoUDP, Dport: 9, Sport: 4011},
		{Proto: icmp, Type: echo, Sport: 7},
		{Proto: icmp, Type: 3, Code: 1},
		{Proto: icmp, Type: 1, Code: 3},
		{Proto: 99},
	}
	if v6 {
		kinds = append(kinds, Shape{Proto: icmp, Type: 135, HopLimit: 255, Body: 16}, Shape{Proto: icmp, Type: 255})
		for _, e := range [][]reach.Ext{
			{{Number: hopByHop}},
			{{Number: destOpts}},
			{{Number: routing}},
			{{Number: hopByHop}, {Number: destOpts}},
			{{Number: fragment, Frag: reach.Atomic}},
			{{Number: fragment, Frag: reach.First}},
			{{Number: fragment, Frag: reach.Later}},
		} {
			kinds = append(kinds, Shape{Proto: protoTCP, Dport: 22, Sport: 4000, Flags: 2, Ext: e}, Shape{Proto: protoUDP, Dport: 9, Sport: 4011, Ext: e})
		}
	}
	srcs := []string{"10.1.2.3", "10.1.2.127", "10.1.2.128", "10.2.2.9", "198.51.100.200", "172.17.0.5"}
	dsts := []string{"192.0.2.1", "198.51.100.129", "203.0.113.9"}
	if v6 {
		srcs = []string{"2001:db8:1::1", "2001:db8:1:ffff::9", "2001:db8:2::", "2001:db8:0:ffff:ffff:ffff:ffff:ffff", "2001:db8:5::2", "fd00::1"}
		dsts = []string{"2001:db8::1", "2001:db8:5::80", "2001:db8:f::9"}
	}
	var ss []Shape
	var ps []Probe
	for i, k := range kinds {
		for d, dst := range dsts {
			k.IPv6, k.Dst, k.Forward, k.Iface, k.MAC = v6, netip.MustParseAddr(dst), d == 2, 0, [2]byte{2, 0}
			if d == 1 {
				k.Iface = 1
			}
			if k.HopLimit == 0 {
				k.HopLimit = []uint8{64, 9, 200}[(i+d)%3]
			}
			k.TOS = []uint8{0, 0x10}[(i+d)%2]
			k.Ct = ctState(&k)
			ss = append(ss, k)
			for _, s := range srcs {
				ps = append(ps, Probe{len(ss) - 1, netip.MustParseAddr(s)})
			}
			k.HopLimit = kinds[i].HopLimit
		}
	}
	return ss, ps
}

// tables decodes everything the host filters with, but the recorder's own.
func (l *Lab) tables() ([]*rs.Table, error) {
	var n fact.Namespace
	l.host.Do(func() {
		a := ask.New(func(string) bool { return true }, false)
		packetfilter.Read(a, ask.NewBudget("oracle", time.Minute, 1e9, 1e9), packetfilter.Options{Elements: true}).Decode(&n)
	})
	order := binary.LittleEndian
	sets, err := pfdecode.IPSetsOf(&n.PacketFilter, order)
	if err != nil {
		return nil, err
	}
	l.sets = sets
	nft, err := l.Dump()
	if err != nil {
		return nil, err
	}
	out, err := pfdecode.FromFactWithSets(nft, sets, order)
	if err != nil {
		return nil, err
	}
	for _, f := range []string{"ipv4", "ipv6"} {
		t, err := pfdecode.LegacyOf(&n.PacketFilter, f, sets, order)
		if err != nil {
			return nil, err
		}
		out = append(out, t...)
	}
	return out, nil
}

var tableLines = regexp.MustCompile(`(?m)^\*.*$`)

// loadXT replaces the rules of a family in a back-end. before holds which tables the last
// call loaded.
func (l *Lab) loadXT(backend, fam, text string, before *string) error {
	if err := l.Load(""); err != nil {
		return err
	}
	ip := "ip"
	if fam == "6" {
		ip = "ip6"
	}
	tables := fam + strings.Join(tableLines.FindAllString(text, -1), "")
	clean := *before == tables
	*before = tables
	if backend == "legacy" && !clean { // its tables are not flushed with nft's
		for _, p := range []string{"ip", "ip6"} {
			names, _ := l.host.Command("cat", "/proc/net/"+p+"_tables_names").Output()
			var empty strings.Builder
			for _, t := range strings.Fields(string(names)) {
				fmt.Fprintf(&empty, "*%s\n", t)
				for _, chain := range map[string][]string{
					"filter": {"INPUT", "FORWARD", "OUTPUT"}, "security": {"INPUT", "FORWARD", "OUTPUT"},
					"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
				}[t] {
					fmt.Fprintf(&empty, ":%s ACCEPT\n", chain)
				}
				empty.WriteString("COMMIT\n")
			}
			c := l.host.Command(p + "tables-legacy-restore")
			c.Stdin = strings.NewReader(empty.String())
			if out, err := c.CombinedOutput(); err != nil {
				return fmt.Errorf("empty legacy tables: %w\n%s", err, out)
			}
		}
	}
	f := filepath.Join(l.dir, "rules")
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		return err
	}
	if out, err := l.host.Command(ip+"tables-"+backend+"-restore", f).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (l *Lab) compareXT(t *testing.T, f form, set *rs.Ruleset, shapes []Shape, probes []Probe, accepted []bool) (uncertain int) {
	t.Helper()
	model := (&Case{Host: l.facts}).model(set)
	bad := 0
	fail := func(id int, what string, a *reach.Answer) {
		if bad++; bad <= 2 {
			t.Errorf("%s: %s\n%+v from %v: kernel accepted=%v\n%s", f.rule, what, shapes[probes[id].Shape], probes[id].Src, accepted[id], path(a))
		}
	}
	var open *reach.Answer
	last := -1
	for id, p := range probes {
		s := &shapes[p.Shape]
		a := model.Ask(s.question(p.Src, uint32(id), true), s.hook(), false)
		must, may := a.End(0) == reach.Accepted, a.End(0)&(reach.Accepted|reach.Stolen) != 0
		limited := !a.Limited.Empty()
		switch k := accepted[id]; {
		case must && !k && !limited:
			fail(id, "the model says accepted", a)
		case !may && k:
			fail(id, "the model says dropped", a)
		case must != may || limited:
			if uncertain++; !f.excused(s, a, limited) {
				fail(id, "the model does not know", a)
			}
		}
		if p.Shape != last {
			last = p.Shape
			open = model.Ask(s.question(noAddr, 0, false), s.hook(), false)
		}
		x := packetset.FromIP(p.Src)
		if k := accepted[id]; open.Must().Contains(x) && !k && !open.Limited.Has(open.Space.Cell(x)) || k && !open.May().Contains(x) {
			fail(id, "asked about every source", open)
		}
	}
	return uncertain
}

// written is the same rules read as text: as a person wrote them, and as the back-end
// saves them. A legacy table's bytes and both its texts must be the same rules.
func (l *Lab) written(t *testing.T, backend, fam string, f form, kernel []*rs.Table) []*rs.Table {
	t.Helper()
	tool := "iptables-" + backend + "-save"
	if fam == "6" {
		tool = "ip6tables-" + backend + "-save"
	}
	out, err := l.host.Command(tool).Output()
	if err != nil {
		t.Fatalf("%s: %v", tool, err)
	}
	var first []*rs.Table
	head := ""
	if backend == "legacy" {
		head = "# Generated by " + strings.Replace(tool, "-legacy", "", 1) + " v1.8.9\n"
	}
	for _, text := range []string{head + f.text(), string(out)} {
		s, err := pfdecode.ParseXTables("rules.v"+fam, text, binary.LittleEndian, l.sets)
		if err != nil {
			t.Errorf("IPv%s %s: %v", fam, f.rule, err)
			return nil
		}
		if backend == "legacy" {
			for _, x := range s.Tables {
				sameTable(t, f, x, kernel)
			}
		}
		if first == nil {
			first = s.Tables
		}
	}
	return first
}

func sameTable(t *testing.T, f form, text *rs.Table, kernel []*rs.Table) {
	t.Helper()
	for _, k := range kernel {
		if k.Source != rs.XTables || k.Family != text.Family || k.Name != text.Name {
			continue
		}
		for _, c := range k.Chains {
			x := text.Chain(c.Name)
			if x == nil || len(x.Rules) != len(c.Rules) || !reflect.DeepEqual(x.Base, c.Base) {
				t.Errorf("%s: chain %s is %+v in the text, and %+v in the kernel", f.rule, c.Name, x, c)
				continue
			}
			for i, r := range c.Rules {
				if a, b := nameless(x.Rules[i].Exprs), nameless(r.Exprs); !reflect.DeepEqual(a, b) {
					t.Errorf("%s is\n%#v\nand the kernel has\n%#v", x.Rules[i].Text, a, b)
				}
			}
		}
		return
	}
	t.Errorf("%s: the kernel has no %s table %s", f.rule, text.Family, text.Name)
}

// nameless takes away what only one of bytes and text has.
func nameless(l []rs.Expr) []rs.Expr {
	var out []rs.Expr
	for _, e := range l {
		if o, ok := e.(rs.Opaque); ok {
			o.Data = nil
			o.Name, _, _ = strings.Cut(o.Name, " (")
			e = o
		}
		out = append(out, e)
	}
	return out
}

func testXTables(t *testing.T, backend string) {
	for _, p := range []string{"iptables-" + backend + "-restore", "ip6tables-" + backend + "-restore"} {
		testlab.RequireTool(t, p)
	}
	l := NewLab(t)
	l.makeSets(t)
	list := append([]form(nil), forms...)
	if s := os.Getenv("XT_FORM"); s != "" {
		list = []form{{rule: s}}
	}
	for _, f := range rulesets {
		if len(list) == 1 {
			break
		}
		list = append(list, f)
	}
	verdicts, loaded, vague, uncertain, before := 0, 0, 0, 0, ""
	for _, fam := range []string{"4", "6"} {
		shapes, probes := xtShapes(fam == "6")
		for i, f := range list {
			// A fixed slice, the same in every run; make oracle asks for the whole.
			if i%10 != 0 && os.Getenv("ORACLE_VERDICTS") == "" && os.Getenv("XT_FORM") == "" {
				continue
			}
			if f.fam != "" && f.fam != fam || f.only != "" && f.only != backend {
				continue
			}
			if fam == "6" {
				f.rule = strings.ReplaceAll(f.rule, "ipt_", "ip6t_")
			}
			if err := l.loadXT(backend, fam, f.text(), &before); err != nil {
				t.Errorf("IPv%s %s: %v", fam, f.rule, err)
				continue
			}
			ts, err := l.tables()
			if err != nil {
				t.Errorf("IPv%s %s: %v", fam, f.rule, err)
				continue
			}
			types := map[string]uint16{"lo": 772, Interfaces[0]: 1, Interfaces[1]: 1}
			set := &rs.Ruleset{Tables: ts, Interfaces: l.names, Types: types, Groups: labGroups}
			written := &rs.Ruleset{Tables: l.written(t, backend, fam, f, ts), Interfaces: l.names, Types: types, Groups: labGroups}
			accepted, err := l.Fire(shapes, probes)
			if err != nil {
				t.Errorf("IPv%s %s: %v", fam, f.rule, err)
				continue
			}
			u := l.compareXT(t, f, set, shapes, probes, accepted)
			l.compareXT(t, f, written, shapes, probes, accepted)
			verdicts, loaded, uncertain = verdicts+len(probes), loaded+1, uncertain+u
			if f.vague != "" {
				vague++
			}
		}
	}
	t.Logf("%s: %d rulesets (%d of them with a rate or something not understood), %d verdicts compared with the kernel, %d uncertain", backend, loaded, vague, verdicts, uncertain)
}

func TestXTablesNFT(t *testing.T)    { t.Parallel(); testXTables(t, "nft") }
func TestXTablesLegacy(t *testing.T) { t.Parallel(); testXTables(t, "legacy") }
