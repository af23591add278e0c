package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

func allChains() (out []model.Variant) {
	for _, c := range model.Chains() {
		out = append(out, c.Name)
	}
	return out
}

// fates are "same tcp/22" and the like, port by port, of each chain.
func fates(a *model.Address) map[model.Variant][]string {
	out := map[model.Variant][]string{}
	for _, c := range a.Chains {
		var ports model.Ports
		if ports.AddList(c.Ports) != nil {
			return nil
		}
		for p := range ports.All {
			out[c.Chain] = append(out[c.Chain], fmt.Sprintf("%s %s/%d", c.Fate, c.Proto, p))
		}
	}
	return out
}

// TestChains: what Linux does with each chain, behind rules that read one header and behind
// those that read all, and what a router in between eats.
func TestChains(t *testing.T) {
	t.Parallel()
	const lawful = "hop hop-256 dst dst-256 dst-512 dst-3 dst-frag frag-dst frag frag-rev frag-atomic rh0 near"
	const refused = "frag-late frag-overlap rh0-1 rh4-1 none unknown opt-unknown"
	first := "table inet f {\nchain i {\ntype filter hook input priority 0;\nip6 nexthdr tcp tcp dport 5432 drop\nip protocol tcp tcp dport 5432 drop\n}\n}\n"
	last := "table inet f {\nchain i {\ntype filter hook input priority 0;\ntcp dport 5432 drop\n}\n}\n"
	all := map[string]string{"less": "frag-atomic-2 rh4", "refused": refused, "same": lawful}
	run, wait := beside(t)
	defer wait()
	for name, c := range map[string]struct {
		target, router, us string // rules
		routed, four       bool
		at22, at5432       map[string]string // chains by their fate
		tables             string            // of ip6tables in the target
		only               []model.Variant
	}{
		"no rules":                  {at22: all, at5432: all},
		"rules of the first header": {target: first, at22: all, at5432: map[string]string{"further": strings.TrimSuffix(lawful, " near"), "same": "near frag-atomic-2 rh4 frag-tiny " + refused}},
		"rules of the last header":  {target: last, at22: all, at5432: map[string]string{"same": lawful + " frag-atomic-2 rh4 frag-tiny " + refused}},
		"answered by all that are open": {
			target: last, only: []model.Variant{"dst", "frag"}, at22: map[string]string{"same": "dst frag"}, at5432: map[string]string{"same": "dst frag"},
		},
		"ip6tables":             {tables: "-A INPUT -p tcp --dport 5432 -j DROP", at22: map[string]string{"less": "frag-atomic-2 rh4 frag-dst", "refused": refused, "same": strings.Replace(lawful, "frag-dst ", "", 1)}, at5432: map[string]string{"same": lawful + " frag-atomic-2 rh4 frag-tiny " + refused}},
		"ip6tables, one header": {tables: "-A INPUT -m ipv6header --soft --header frag -j DROP", at22: map[string]string{"less": "dst-frag frag frag-dst frag-rev frag-atomic frag-atomic-2 rh4", "refused": refused, "same": "hop hop-256 dst dst-256 dst-512 dst-3 rh0 near"}},
		"a router that drops headers": {
			routed: true, router: "table inet f {\nchain c {\ntype filter hook forward priority 0;\nexthdr hbh exists drop\nip6 nexthdr 44 drop\n}\n}\n",
			at22: map[string]string{"less": "hop hop-256 frag-dst frag frag-rev frag-atomic frag-atomic-2 rh4", "refused": refused, "same": "dst dst-256 dst-512 dst-3 dst-frag rh0 near"},
		},
		"a router that drops IPv4 fragments": {
			routed: true, four: true, router: "table inet f {\nchain c {\ntype filter hook prerouting priority -450;\nip frag-off & 0x3fff != 0 drop\n}\n}\n",
			at22: map[string]string{"less": "frag frag-rev frag-tiny frag-overlap", "refused": "opt-lsrr", "same": "opt-nop opt-rr opt-ts near"},
		},
		"IPv4":                        {four: true, at22: map[string]string{"less": "frag-overlap", "refused": "opt-lsrr", "same": "frag frag-rev frag-tiny opt-nop opt-rr opt-ts near"}},
		"a service that asks for 255": {target: "table inet f {\nchain i {\ntype filter hook input priority 0;\ntcp dport 5432 ip6 hoplimit != 255 drop\n}\n}\n", at5432: map[string]string{"further": "near"}},
		"own rules":                   {us: drops("output", "exthdr dst exists"), at22: map[string]string{"unknown": "dst dst-256 dst-512 dst-3 dst-frag opt-unknown", "same": "hop hop-256 near"}},
		"own host tracks":             {us: "table inet f {\nchain c {\ntype filter hook output priority 0;\nct state invalid counter\n}\n}\n", at22: map[string]string{"unknown": "frag frag-rev frag-atomic frag-atomic-2 dst-frag frag-dst frag-overlap", "same": "hop dst near"}},
		"10 % lost": {
			routed: true, router: "table inet l {\nchain c {\ntype filter hook forward priority -10;\nnumgen random mod 10 == 0 drop\n}\n}\n", target: first,
			at22: all, at5432: map[string]string{"further": strings.TrimSuffix(lawful, " near"), "same": "near frag-atomic-2 rh4 frag-tiny " + refused},
		},
	} {
		run(name, func(t *testing.T) {
			var l *lab
			if c.routed {
				l = newRoutedLab(t, "chn")
			} else {
				l = newLab(t, "chn")
			}
			l.listen("", 22, 5432)
			for n, text := range map[*testlab.NS]string{l.target: c.target, l.router: c.router, l.client: c.us} {
				if text != "" {
					rules(n, t, text)
				}
			}
			if c.tables != "" {
				if out, err := l.target.Command(testlab.RequireTool(t, "ip6tables-legacy"), strings.Fields(c.tables)...).CombinedOutput(); err != nil {
					t.Fatalf("ip6tables: %v\n%s", err, out)
				}
			}
			addr, echo := l.v6, "icmpv6/128"
			if c.four {
				addr, echo = l.v4, "icmp/8"
			}
			chains := allChains()
			if c.only != nil {
				chains = c.only
			}
			f := l.probe(Options{Addr: addr, Spec: spec(t, "tcp/22", "tcp/5432", echo), Chains: chains})
			got := fates(f)
			for port, want := range map[string]map[string]string{"tcp/22": c.at22, "tcp/5432": c.at5432} {
				for fate, chains := range want {
					for n := range strings.FieldsSeq(chains) {
						if w := fate + " " + port; !slices.Contains(got[model.Variant(n)], w) {
							t.Errorf("%s: want %s, got %v", n, w, got[model.Variant(n)])
						}
					}
				}
			}
			if t.Failed() {
				t.Logf("%v\n%s, %v", got, tables(f), f.Notes)
			}
		})
	}
}

// TestChainsAreWhatTheySay holds the packets against an independent reader of them, so that
// no chain is dropped for a mistake in its bytes.
func TestChainsAreWhatTheySay(t *testing.T) {
	t.Parallel()
	want := map[model.Variant]string{
		model.HopByHop: "0(8)", "hop-256": "0(256)", model.DestOpts: "60(8)", "dst-256": "60(256)", "dst-512": "60(512)", "dst-3": "60(8) 60(8) 60(8)",
		"dst-frag": "60(8) 44(0+) | 60(8) 44(24)", "frag-dst": "44(0+) 60(8) | 44(32)", model.Fragments: "44(0+) | 44(24)", "frag-rev": "44(24) | 44(0+)",
		model.Atomic: "44(0)", "frag-atomic-2": "44(0) 44(0)", "frag-tiny": "44(0+) | 44(8)", "frag-late": "44(0+) 60(8) | 44(8)", "frag-overlap": "44(0+) | 44(16)",
		"rh0": "43(24)", "rh0-1": "43(24)", "rh4": "43(24)", "rh4-1": "43(24)", "none": "", "unknown": "", "opt-unknown": "60(8)", model.Near: "",
	}
	f := testFlow(false, protoTCP)
	f.chained = true
	for _, c := range model.Chains() {
		if !c.Six {
			continue
		}
		var out []string
		for _, p := range f.chain(c.Name, f.segment(key{22, 1}), 7) {
			if n := int(p[4])<<8 | int(p[5]); n != len(p)-40 {
				t.Errorf("%s: payload of %d, and %d are there", c.Name, n, len(p)-40)
			}
			var hs []string
			next, rest := p[6], p[40:]
			for walk := true; walk; {
				switch next {
				case 0, 43, 60:
					n := 8 + 8*int(rest[1])
					hs = append(hs, fmt.Sprintf("%d(%d)", next, n))
					if next != 43 {
						checkOptions(t, c.Name, rest[2:n])
					}
					next, rest = rest[0], rest[n:]
				case 44:
					off, more := int(rest[2])<<8|int(rest[3]&^7), map[bool]string{true: "+"}[rest[3]&1 == 1]
					hs = append(hs, fmt.Sprintf("44(%d%s)", off, more))
					next, rest = rest[0], rest[8:]
					walk = off == 0
				default:
					walk = false
				}
			}
			out = append(out, strings.Join(hs, " "))
		}
		if got := strings.Join(out, " | "); got != want[c.Name] {
			t.Errorf("%s: %s, want %s", c.Name, got, want[c.Name])
		}
	}
}

// checkOptions walks options, as a host does.
func checkOptions(t *testing.T, name model.Variant, b []byte) {
	for len(b) > 0 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			t.Errorf("%s: an option is cut off", name)
			return
		}
		b = b[2+int(b[1]):]
	}
}

// TestQuotesWithoutATransportHeader: an error about a first fragment that has none is
// believed for its identification, and for no other.
func TestQuotesWithoutATransportHeader(t *testing.T) {
	t.Parallel()
	f := testFlow(false, protoTCP)
	f.chained, f.ids = true, map[uint32]key{4711: {22, 9}}
	router := netip.MustParseAddr("2001:db8::ffff")
	for id, want := range map[uint32]answer{4711: {key: key{22, 9}, kind: icmpError, icmp: 4, code: 3, from: router, hops: 64}, 4712: {}} {
		p := f.chain("frag-late", f.segment(key{22, 9}), id)[0]
		if got := f.parse(quote(f, router, 4, 3, p)); got != want {
			t.Errorf("%d: %+v, want %+v", id, got, want)
		}
	}
}
