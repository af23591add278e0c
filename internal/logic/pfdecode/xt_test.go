package pfdecode_test

import (
	"encoding/binary"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

// plugin is a use of an extension that Debian's iptables ships.
type plugin struct {
	rule   string
	fam    string // "4", "6", both
	table  string // filter, unless said
	chain  string // INPUT, unless said
	opaque bool   // it is not understood, and must say so
}

// plugins has every libxt_*, libipt_* and libip6t_* that this kernel can load.
var plugins = map[string]plugin{
	"AUDIT": {rule: "-j AUDIT --type drop"}, "CHECKSUM": {rule: "-j CHECKSUM --checksum-fill", table: "mangle"},
	"CLASSIFY": {rule: "-j CLASSIFY --set-class 1:1", table: "mangle", chain: "POSTROUTING"},
	"CONNMARK": {rule: "-j CONNMARK --set-mark 1", table: "mangle"}, "CT": {rule: "-j CT --notrack", table: "raw", chain: "PREROUTING"},
	"NOTRACK": {rule: "-j NOTRACK", table: "raw", chain: "PREROUTING"},
	"DNAT":    {rule: "-p tcp -j DNAT --to-destination :80", table: "nat", chain: "PREROUTING"}, "SNAT": {rule: "-p tcp -j SNAT --to-source :80", table: "nat", chain: "POSTROUTING"},
	"DSCP": {rule: "-j DSCP --set-dscp 1", table: "mangle"}, "TOS": {rule: "-j TOS --set-tos 16", table: "mangle"},
	"HMARK":     {rule: "-j HMARK --hmark-tuple src --hmark-mod 10 --hmark-offset 1 --hmark-rnd 1", table: "mangle", chain: "PREROUTING"},
	"IDLETIMER": {rule: "-j IDLETIMER --timeout 5 --label x"}, "LOG": {rule: "-j LOG"}, "MARK": {rule: "-j MARK --set-mark 1", table: "mangle"},
	"MASQUERADE": {rule: "-j MASQUERADE", table: "nat", chain: "POSTROUTING"}, "NFLOG": {rule: "-j NFLOG"}, "NFQUEUE": {rule: "-j NFQUEUE"},
	"NETMAP4":  {rule: "-j NETMAP --to 10.0.0.0/8", fam: "4", table: "nat", chain: "PREROUTING"},
	"NETMAP6":  {rule: "-j NETMAP --to 2001:db8::/32", fam: "6", table: "nat", chain: "PREROUTING"},
	"REDIRECT": {rule: "-p tcp -j REDIRECT --to-ports 8080", table: "nat", chain: "PREROUTING"}, "REJECT": {rule: "-j REJECT"},
	"SYNPROXY": {rule: "-p tcp -j SYNPROXY", opaque: true}, "TCPMSS": {rule: "-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu", chain: "FORWARD"},
	"TCPOPTSTRIP": {rule: "-p tcp -j TCPOPTSTRIP --strip-options 5", table: "mangle"}, "TPROXY": {rule: "-p tcp -j TPROXY --on-port 1", table: "mangle", chain: "PREROUTING", opaque: true},
	"TEE4": {rule: "-j TEE --gateway 10.0.0.1", fam: "4", table: "mangle"}, "TEE6": {rule: "-j TEE --gateway 2001:db8::1", fam: "6", table: "mangle"},
	"TRACE": {rule: "-j TRACE", table: "raw", chain: "PREROUTING"},
	"TTL":   {rule: "-j TTL --ttl-inc 1", fam: "4", table: "mangle"}, "HL": {rule: "-j HL --hl-inc 1", fam: "6", table: "mangle"}, "ECN": {rule: "-p tcp -j ECN --ecn-tcp-remove", fam: "4", table: "mangle"},

	"addrtype": {rule: "-m addrtype --dst-type LOCAL"}, "ah4": {rule: "-p ah -m ah --ahspi 1", fam: "4"}, "ah6": {rule: "-m ah --ahspi 1", fam: "6"},
	"bpf": {rule: "-m bpf --bytecode 1,6_0_0_1", opaque: true}, "cgroup": {rule: "-m cgroup --cgroup 1", opaque: true},
	"cluster":   {rule: "-m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 1", opaque: true},
	"connbytes": {rule: "-m connbytes --connbytes 1: --connbytes-dir both --connbytes-mode bytes", opaque: true}, "connlimit": {rule: "-m connlimit --connlimit-above 2"},
	"connmark": {rule: "-m connmark --mark 1"}, "conntrack": {rule: "-m conntrack --ctstate NEW"}, "cpu": {rule: "-m cpu --cpu 0", opaque: true},
	"dccp": {rule: "-p dccp --dport 1"}, "devgroup": {rule: "-m devgroup --src-group 1"}, "dscp": {rule: "-m dscp --dscp 1"}, "ecn": {rule: "-m ecn --ecn-ip-ect 1", fam: "4", opaque: true},
	"esp": {rule: "-p esp -m esp --espspi 1"}, "hashlimit": {rule: "-m hashlimit --hashlimit-upto 5/s --hashlimit-name p"}, "hashlimit bytes": {rule: "-m hashlimit --hashlimit-upto 512b/s --hashlimit-name q", opaque: true},
	"helper": {rule: "-m helper --helper ftp", opaque: true}, "ipcomp": {rule: "-p ipcomp -m ipcomp --ipcompspi 1", opaque: true},
	"iprange4": {rule: "-m iprange --src-range 10.0.0.1-10.0.0.2", fam: "4"}, "iprange6": {rule: "-m iprange --src-range ::1-::2", fam: "6"},
	"length": {rule: "-m length --length 1:9"}, "limit": {rule: "-m limit --limit 1/s"}, "mac": {rule: "-m mac --mac-source 02:00:00:00:00:01"}, "mark": {rule: "-m mark --mark 1"},
	"multiport": {rule: "-p tcp -m multiport --ports 1,2"}, "owner": {rule: "-m owner --uid-owner 0", chain: "OUTPUT"}, "owner socket": {rule: "-m owner --socket-exists", chain: "OUTPUT", opaque: true},
	"physdev": {rule: "-m physdev --physdev-in eth0"}, "pkttype": {rule: "-m pkttype --pkt-type host"}, "policy": {rule: "-m policy --dir in --pol ipsec", opaque: true},
	"quota": {rule: "-m quota --quota 5"}, "realm": {rule: "-m realm --realm 1", fam: "4", opaque: true}, "recent": {rule: "-m recent --rcheck", opaque: true}, "recent set": {rule: "-m recent --set"},

	"rpfilter4": {rule: "-m rpfilter", fam: "4", table: "raw", chain: "PREROUTING"}, "rpfilter6": {rule: "-m rpfilter --invert", fam: "6", table: "raw", chain: "PREROUTING"}, "rpfilter loose": {rule: "-m rpfilter --loose", table: "raw", chain: "PREROUTING", opaque: true},
	"sctp": {rule: "-p sctp --dport 1"}, "sctp chunks": {rule: "-p sctp --chunk-types any INIT", opaque: true}, "socket": {rule: "-m socket", table: "mangle", chain: "PREROUTING", opaque: true},
	"state": {rule: "-m state --state NEW"}, "statistic": {rule: "-m statistic --mode nth --every 2 --packet 0", opaque: true}, "string": {rule: "-m string --algo bm --string x", opaque: true},
	"tcp": {rule: "-p tcp --dport 1"}, "tcpmss": {rule: "-p tcp -m tcpmss --mss 1", opaque: true}, "time": {rule: "-m time --timestart 01:00", opaque: true}, "tos": {rule: "-m tos --tos 16"},
	"u32": {rule: "-m u32 --u32 0=0", opaque: true}, "udp": {rule: "-p udp --dport 1"}, "comment": {rule: "-m comment --comment x"},
	"icmp": {rule: "-p icmp --icmp-type 8", fam: "4"}, "icmp6": {rule: "-p icmpv6 --icmpv6-type 128", fam: "6"}, "ttl": {rule: "-m ttl --ttl-eq 1", fam: "4"}, "hl": {rule: "-m hl --hl-eq 1", fam: "6"},
	"dst": {rule: "-m dst --dst-len 8", fam: "6"}, "hbh": {rule: "-m hbh --hbh-opts 5", fam: "6", opaque: true}, "frag": {rule: "-m frag --fragfirst", fam: "6"}, "rt": {rule: "-m rt --rt-type 0", fam: "6"},
	"rt addresses": {rule: "-m rt --rt-type 0 --rt-0-addrs ::1", fam: "6", opaque: true}, "ipv6header": {rule: "-m ipv6header --header frag --soft", fam: "6"},
	"eui64": {rule: "-m eui64", fam: "6", opaque: true}, "mh": {rule: "-p mh --mh-type 1", fam: "6", opaque: true}, "srh": {rule: "-m srh --srh-next-hdr 6", fam: "6", opaque: true},
}

// cannot are the plugins for which no rule can be loaded here, and why. An extension
// whose name is not known is Opaque (TestUnknownExtension).
var cannot = map[string]string{
	"CLUSTERIP": "not in this kernel", "ULOG": "not in this kernel", "DNPT": "not in this kernel", "SNPT": "not in this kernel",
	"LED": "not in this kernel", "SECMARK": "no security module", "CONNSECMARK": "no security module", "RATEEST": "needs an estimator first",
	"rateest": "needs an estimator first", "connlabel": "needs a file of labels", "ipvs": "not in this kernel", "nfacct": "needs an accounting object",
	"osf": "needs fingerprints", "set": "needs an ipset", "SET": "needs an ipset", "standard": "it is no extension", "NAT": "the library of SNAT and DNAT",
}

// TestEveryPlugin compares the table with what is installed.
func TestEveryPlugin(t *testing.T) {
	libs, _ := filepath.Glob("/usr/lib/*/xtables/lib*.so")
	if len(libs) == 0 {
		testlab.CannotRun(t, "no iptables plugins")
	}
	for _, l := range libs {
		kind, name, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(l), "lib"), ".so"), "_")
		if kind == "arpt" || kind == "ebt" || cannot[name] != "" {
			continue
		}
		found := false
		for k := range plugins {
			found = found || k == name || k == name+"4" || k == name+"6"
		}
		if !found {
			t.Errorf("%s: no rule uses it", l)
		}
	}
}

func TestUnknownExtension(t *testing.T) {
	for _, name := range []string{"", "nosuch", "tcp"} {
		for _, target := range []bool{false, true} {
			e := pfdecode.LowerForTest(rs.IPv6, target, name, 77, []byte{1})
			o, ok := e[0].(rs.Opaque)
			if !ok || o.Ends != target {
				t.Errorf("%q revision 77: %+v", name, e)
			}
		}
	}
}

func flatten(l []rs.Expr) []rs.Expr {
	var out []rs.Expr
	for _, e := range l {
		out = append(out, e)
		if a, ok := e.(rs.Any); ok {
			for _, p := range a.Of {
				out = append(out, flatten(p)...)
			}
		}
	}
	return out
}

// TestPluginsAreNeverDropped loads every extension by both back-ends: each is either
// understood, or there as Opaque.
func TestPluginsAreNeverDropped(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			loaded, opaque := 0, 0
			for _, fam := range []string{"4", "6"} {
				ns := testlab.NewNS(t, "xp")
				tool, family, want := "iptables-"+backend, "ipv4", rs.IPv4
				if fam == "6" {
					tool, family, want = "ip6tables-"+backend, "ipv6", rs.IPv6
				}
				tool = testlab.RequireTool(t, tool)
				for name, p := range plugins {
					if p.rule == "" || p.fam != "" && p.fam != fam {
						continue
					}
					table, chain := "filter", "INPUT"
					if p.table != "" {
						table = p.table
					}
					if p.chain != "" {
						chain = p.chain
					}
					args := append([]string{tool, "-t", table, "-I", chain, "1"}, split(p.rule)...)
					if out, err := ns.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
						t.Logf("%s IPv%s: this kernel or tool refuses it: %s", name, fam, out)
						continue
					}
					loaded++
					var n fact.Namespace
					ns.Do(func() {
						a := ask.New(func(string) bool { return true }, false)
						packetfilter.Read(a, ask.NewBudget("t", time.Minute, 1e9, 1e9), packetfilter.Options{Elements: true}).Decode(&n)
					})
					exprs := firstRule(t, &n, backend, family, want, table, chain)
					sameText(t, ns, tool, name, want, table, chain, exprs)
					if len(exprs) == 0 {
						t.Errorf("%s IPv%s: the rule has no expressions", name, fam)
					}
					got := false
					for _, e := range flatten(exprs) {
						if _, ok := e.(rs.Opaque); ok {
							got = true
						}
					}
					if got != p.opaque {
						t.Errorf("%s IPv%s (%s): opaque %v, want %v: %+v", name, fam, p.rule, got, p.opaque, exprs)
					}
					if got {
						opaque++
					}
					ns.Run(tool, "-t", table, "-D", chain, "1")
				}
			}
			t.Logf("%s: %d rules, %d of them opaque", backend, loaded, opaque)
			if loaded < 100 {
				t.Errorf("only %d rules could be loaded", loaded)
			}
		})
	}
}

func split(s string) []string {
	var out []string
	for _, f := range []byte(s + " ") {
		if len(out) == 0 {
			out = []string{""}
		}
		if f == ' ' {
			if out[len(out)-1] != "" {
				out = append(out, "")
			}
			continue
		}
		out[len(out)-1] += string(f)
	}
	return out[:len(out)-1]
}

func firstRule(t *testing.T, n *fact.Namespace, backend, family string, f rs.Family, table, chain string) []rs.Expr {
	t.Helper()
	var ts []*rs.Table
	var err error
	if backend == "nft" {
		d, ok := n.PacketFilter.NFTables.Get()
		if !ok {
			t.Fatalf("no nf_tables: %v", n.PacketFilter.NFTables)
		}
		ts, err = pfdecode.FromFact(d, binary.LittleEndian)
	} else {
		ts, err = pfdecode.LegacyOf(&n.PacketFilter, family, nil, binary.LittleEndian)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range ts {
		if x.Family != f || x.Name != table {
			continue
		}
		if c := x.Chain(chain); c != nil && len(c.Rules) > 0 {
			return c.Rules[0].Exprs
		}
	}
	t.Errorf("no rule in %s %s", table, chain)
	return nil
}

// sameText reads the rule as the tool prints it: it must be what the kernel's bytes are.
func sameText(t *testing.T, ns *testlab.NS, tool, name string, f rs.Family, table, chain string, want []rs.Expr) {
	t.Helper()
	out, err := ns.Command(tool+"-save", "-t", table).Output()
	if err != nil {
		t.Fatalf("%s-save: %v", tool, err)
	}
	s, err := pfdecode.ParseXTables(tool, string(out), binary.LittleEndian, nil)
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
		return
	}
	for _, x := range s.Tables {
		if x.Family != f || x.Name != table || len(x.Chain(chain).Rules) != 1 {
			continue
		}
		got := nameless(x.Chain(chain).Rules[0].Exprs)
		if strings.HasSuffix(tool, "legacy") && !reflect.DeepEqual(got, nameless(want)) {
			t.Errorf("%s: the text is\n%#v\nand the kernel has\n%#v\n%s", name, got, nameless(want), out)
		}
		if n, w := hasOpaque(got), hasOpaque(want); n != w {
			t.Errorf("%s: the text is opaque: %v, and the kernel's rule: %v\n%s", name, n, w, out)
		}
		return
	}
	t.Errorf("%s: the text has no such rule\n%s", name, out)
}

func hasOpaque(l []rs.Expr) bool {
	return slices.ContainsFunc(flatten(l), func(e rs.Expr) bool { _, ok := e.(rs.Opaque); return ok })
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
