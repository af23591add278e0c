package cli

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/surface/config"
)

// aHost has a program on both families, one on IPv6 only, one on loopback, and a rule
// that IPv6 passes by.
func aHost() *spaces {
	n := fact.Namespace{
		Name: "init", IsInit: true, IsSelf: true, IPv6: fact.Value(true),
		Links: fact.Value([]fact.Link{
			{Index: 1, Name: "lo", Flags: 9, Type: 772, XDP: fact.Value(uint8(0)), TCIngress: fact.Value(false)},
			{Index: 2, Name: "eth0", Flags: 1, Type: 1, XDP: fact.Value(uint8(0)), TCIngress: fact.Value(false)},
		}),
		Addresses: fact.Value([]fact.Address{
			{Index: 2, Prefix: netip.MustParsePrefix("192.0.2.10/24")},
			{Index: 2, Prefix: netip.MustParsePrefix("2001:db8::10/64")},
			{Index: 2, Prefix: netip.MustParsePrefix("fe80::10/64")},
			{Index: 1, Prefix: netip.MustParsePrefix("127.0.0.1/8")},
			{Index: 1, Prefix: netip.MustParsePrefix("::1/128")},
		}),
		Sysctls: fact.Value(fact.Sysctls{Values: map[string]string{"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "0", "net/ipv4/conf/lo/rp_filter": "0"}}),
		Routes:  fact.Value([]fact.Route{}), Rules: fact.Value([]fact.Rule{}),
		Sockets: fact.Value([]fact.Socket{
			{Family: "ipv4", Protocol: "tcp", State: "listen", Local: netip.IPv4Unspecified(), Port: 22},
			{Family: "ipv6", Protocol: "tcp", State: "listen", Local: netip.IPv6Unspecified(), Port: 22, V6Only: fact.Value(true)},
			{Family: "ipv6", Protocol: "tcp", State: "listen", Local: netip.IPv6Unspecified(), Port: 5432, V6Only: fact.Value(false)},
			{Family: "ipv4", Protocol: "tcp", State: "listen", Local: netip.MustParseAddr("127.0.0.1"), Port: 6379},
		}),
	}
	n.PacketFilter.NFTables = fact.Absent[fact.NFTables]()
	n.PacketFilter.Legacy = fact.Absent[[]fact.LegacyTable]()
	s := &fact.Snapshot{Host: fact.Host{ByteOrder: "little"}, Namespaces: []fact.Namespace{n}}
	s.Host.BPF.NetfilterLinks = fact.Value([]fact.NetfilterLink{})
	sp := spacesOf(s)
	// IPv4 only: drop what comes for PostgreSQL.
	table := portRules(rs.IPv4, rule(rs.Drop, 5432, 5433))
	space := reach.NewSpace(s, &s.Namespaces[0], []*rs.Table{table}, true)
	sp.made["init"] = space
	return sp
}

// rule is "tcp dport FROM-TO VERDICT".
func rule(v rs.Verdict, from, to uint16) *rs.Rule {
	return &rs.Rule{Handle: uint64(from), Exprs: []rs.Expr{
		rs.Meta{Key: 16},
		rs.Cmp{Data: []byte{6}},
		rs.Payload{Base: rs.TransportHeader, Offset: 2, Len: 2},
		rs.Range{From: []byte{byte(from >> 8), byte(from)}, To: []byte{byte(to >> 8), byte(to)}},
		rs.Conclude{Verdict: v},
	}}
}

// portRules is an input chain.
func portRules(f rs.Family, rules ...*rs.Rule) *rs.Table {
	t := &rs.Table{Family: f, Name: "f"}
	c := &rs.Chain{Table: t, Name: "input", Base: &rs.Base{Type: "filter", Hook: rs.Input, Policy: rs.Accept}, Rules: rules}
	for i, r := range rules {
		r.Chain, r.Index = c, i+1
	}
	t.Chains = []*rs.Chain{c}
	return t
}

func rulesOnly(tables ...*rs.Table) *spaces {
	return &spaces{only: reach.FromRuleset(&rs.Ruleset{Tables: tables}, reach.OrderOf("little"))}
}

// valid checks a document against its published schema.
func valid(t *testing.T, d config.Document, doc any) {
	t.Helper()
	schema, err := config.Schema(d)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := validator.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("mem:///s.json", parsed); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:///s.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	v, err := validator.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%s: %v\n%s", d, err, b)
	}
}

func TestDocumentsAreAsPublished(t *testing.T) {
	for _, sp := range []*spaces{aHost(), dropTelnet()} {
		doc, _ := sp.analyse("", reachFilter{})
		if len(doc.Listeners) == 0 {
			t.Fatal("no listeners")
		}
		valid(t, config.ReachDocument, doc)
	}
	diffs := families(aHost(), "", reachFilter{})
	if len(diffs) != 1 || diffs[0].Change != reach.WiderIPv6 || diffs[0].Port != 5432 {
		t.Errorf("%+v", diffs)
	}
	valid(t, config.DiffDocument, reach.DiffDocument{SchemaVersion: reach.DocumentVersion, Differences: diffs})
	s, err := aHost().get("")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []question{{Family: "ipv4", Hook: "input"}, {Family: "ipv6", Hook: "forward"}} {
		p, h, err := q.packet()
		if err != nil {
			t.Fatal(err)
		}
		tr := s.Trace(p, h, false)
		cleanTrace(&tr)
		valid(t, config.TraceDocument, tr)
	}
}

func TestReachText(t *testing.T) {
	doc, view := aHost().analyse("", reachFilter{})
	var b bytes.Buffer
	if err := view.text(&b, doc, false); err != nil {
		t.Fatal(err)
	}
	want := `  PORT           LISTENER       IPv4 FROM               IPv6 FROM
  tcp/22         ?              anywhere                anywhere
! tcp/5432       ?              nobody                  anywhere
  tcp/6379       ?              this host               -

! tcp/5432 ?: IPv4 and IPv6 differ
  IPv4 by eth0: nobody
    ip f input handle 5432: tcp dport 5432-5433 drop
    packet 198.51.100.1:49152 → 192.0.2.10:5432: drop
  IPv6 by eth0: anywhere
    no rule decides
    packet [2001:db8::1]:49152 → [2001:db8::10]:5432: accept
`
	if got := b.String(); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, l := range strings.Split(b.String(), "\n") {
		if n := len([]rune(l)); n > 80 {
			t.Errorf("%d columns: %s", n, l)
		}
	}
	b.Reset()
	if err := view.text(&b, doc, true); err != nil || strings.Contains(b.String(), "differ") || b.Len() == 0 {
		t.Errorf("quiet: %s %v", b.String(), err)
	}
}

func TestPortText(t *testing.T) {
	one := func(p ...uint16) (out []reach.Range) {
		for _, n := range p {
			out = append(out, reach.Range{From: n, To: n})
		}
		return out
	}
	for want, in := range map[string][]reach.Range{
		"tcp/22":               one(22),
		"tcp/22, 23":           one(23, 22),
		"tcp/22-24, 80":        one(80, 22, 24, 23),
		"tcp/1-9, 11-65535":    {{From: 11, To: 65535}, {From: 1, To: 9}},
		"tcp, all":             {{From: 1, To: 100}, {From: 101, To: 65535}},
		"tcp/8000, 8002, 8003": one(8000, 8002, 8003),
	} {
		if got := portText("tcp", in); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestDiffOfRules: what a change opens is found wherever the boundary is.
func TestDiffOfRules(t *testing.T) {
	type change struct {
		change   reach.Change
		family   string
		from, to uint16
	}
	drop := func(f rs.Family, rules ...*rs.Rule) *rs.Table {
		x := portRules(f, rules...)
		x.Chains[0].Base.Policy = rs.Drop
		return x
	}
	for name, c := range map[string]struct {
		a, b *rs.Table
		want []change
		code [3]int // --fail-on opened, changed, never
	}{
		"same":            {drop(rs.Inet, rule(rs.Accept, 1, 1000)), drop(rs.Inet, rule(rs.Accept, 1, 1000)), nil, [3]int{0, 0, 0}},
		"a range grew":    {drop(rs.Inet, rule(rs.Accept, 1, 1000)), drop(rs.Inet, rule(rs.Accept, 1, 2000)), []change{{reach.Opened, "ipv4", 1001, 2000}, {reach.Opened, "ipv6", 1001, 2000}}, [3]int{1, 1, 0}},
		"a range shrank":  {drop(rs.Inet, rule(rs.Accept, 1, 1000)), drop(rs.Inet, rule(rs.Accept, 1, 999)), []change{{reach.Shut, "ipv4", 1000, 0}, {reach.Shut, "ipv6", 1000, 0}}, [3]int{0, 1, 0}},
		"one family only": {drop(rs.IPv6, rule(rs.Accept, 22, 22)), drop(rs.IPv6, rule(rs.Accept, 22, 23)), []change{{reach.Opened, "ipv6", 23, 0}}, [3]int{1, 1, 0}},
	} {
		ds := compareRules(rulesOnly(c.a).only, rulesOnly(c.b).only, reachFilter{})
		var got []change
		for _, d := range ds {
			got = append(got, change{d.Change, d.Family, d.Port, d.PortTo})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
		for i, on := range []string{"opened", "changed", "never"} {
			if code := diffCode(ds, on); code != c.code[i] {
				t.Errorf("%s: --fail-on %s exits %d, want %d", name, on, code, c.code[i])
			}
		}
		valid(t, config.DiffDocument, reach.DiffDocument{SchemaVersion: reach.DocumentVersion, Differences: append([]reach.Difference{}, ds...)})
		var b bytes.Buffer
		if err := diffText(&b, ds, true, false); err != nil || (len(ds) == 0) != (b.String() == "Nothing is opened or closed.\n") {
			t.Errorf("%s: %v %s", name, err, b.String())
		}
	}
	// A policy that flips opens all ports and messages at once.
	open := drop(rs.Inet)
	open.Chains[0].Base.Policy = rs.Accept
	ds := compareRules(rulesOnly(drop(rs.Inet)).only, rulesOnly(open).only, reachFilter{})
	for _, want := range []string{"tcp/1-65535", "udp/1-65535", "icmpv6 type 128", "icmp type 8", "protocol 41"} {
		if !slices.ContainsFunc(ds, func(d reach.Difference) bool { return d.Change == reach.Opened && diffPorts(&d) == want }) {
			t.Errorf("%s is not said to be opened", want)
		}
	}
	// Ports that a mask tells apart are not all asked about, and that is said: unless
	// nothing changed, or one port is asked about.
	odd := func(bit byte) *rs.Table {
		x := drop(rs.Inet)
		c := x.Chains[0]
		c.Rules = []*rs.Rule{{Chain: c, Exprs: []rs.Expr{
			rs.Meta{Dreg: 1, Key: 16},
			rs.Cmp{Sreg: 1, Data: []byte{6}},
			rs.Payload{Dreg: 1, Base: rs.TransportHeader, Offset: 2, Len: 2},
			rs.Bitwise{Sreg: 1, Dreg: 1, Len: 2, Mask: []byte{0, 1}, Xor: []byte{0, 0}},
			rs.Cmp{Sreg: 1, Data: []byte{0, bit}},
			rs.Conclude{Verdict: rs.Accept},
		}}}
		return x
	}
	unclear := func(bits [2]byte, flt reachFilter) bool {
		ds := compareRules(rulesOnly(odd(bits[0])).only, rulesOnly(odd(bits[1])).only, flt)
		return slices.ContainsFunc(ds, func(d reach.Difference) bool { return d.Change == reach.Unsure && strings.Contains(d.After, "--port") })
	}
	if !unclear([2]byte{0, 1}, reachFilter{}) || unclear([2]byte{1, 1}, reachFilter{}) || unclear([2]byte{0, 1}, reachFilter{port: 22}) {
		t.Error("ports that were not compared are not said to be unclear, or others are")
	}
	if diffCode([]reach.Difference{{Change: reach.Unsure}}, "opened") != exitUnknown {
		t.Error("what cannot be told does not exit 3")
	}
}

// TestChanged compares who gets in: a rate that falls away opens only where somebody is
// left to profit from it.
func TestChanged(t *testing.T) {
	set := func(ps ...string) (out packetset.Set) {
		var is []packetset.Interval
		for _, p := range ps {
			is = append(is, packetset.PrefixInterval(netip.MustParsePrefix(p)))
		}
		return packetset.Normalise(is)
	}
	all, half, none := set("0.0.0.0/0"), set("0.0.0.0/1"), set()
	for _, c := range []struct {
		before, after       packetset.Set
		limitedB, limitedA  bool
		beforeMay, afterMay packetset.Set
		want                reach.Change
	}{
		{none, half, false, false, nil, nil, reach.Opened},
		{half, none, false, false, nil, nil, reach.Shut},
		{half, none, true, false, nil, nil, reach.Shut},
		{half, half, true, false, nil, nil, reach.Opened},
		{half, half, false, true, nil, nil, reach.Shut},
		{all, half, true, false, nil, nil, reach.Opened},
		{half, all, true, true, nil, nil, reach.Opened},
		{none, none, false, false, nil, half, reach.Unsure},
		{half, half, true, true, nil, nil, ""},
	} {
		must := [2]packetset.Set{c.before, c.after}
		may := must
		if c.beforeMay != nil {
			may[0] = c.beforeMay
		}
		if c.afterMay != nil {
			may[1] = c.afterMay
		}
		got, ok := changed(must, may, [2]bool{c.limitedB, c.limitedA}, true)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %s, %v", c, got, ok)
		}
	}
}
