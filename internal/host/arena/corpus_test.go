package arena_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/host/arena"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/corpus"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// TestCorpus loads real rulesets of real tools, as they were read.
func TestCorpus(t *testing.T) {
	for _, name := range corpus.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := corpus.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			a, err := arena.Start()
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			ns := e.Snapshot.Namespaces[0]
			var s arena.Setup
			links, _ := ns.Links.Get()
			for _, l := range links {
				if l.Type == 1 && len(s.Links) < arena.MaxLinks {
					s.Links = append(s.Links, arena.Link{Name: l.Name, Index: uint32(l.Index)})
				}
			}
			if _, err := a.Setup(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			pf := ns.PacketFilter
			nft, _ := pf.NFTables.Get()
			legacy, _ := pf.Legacy.Get()
			sets, _ := pf.IPSets.Get()
			acct, _ := pf.Accounting.Get()
			r, err := a.Replay(t.Context(), arena.Foreign{NFTables: &nft, Legacy: legacy, IPSets: sets, Accounting: acct})
			if err != nil {
				t.Fatal(err)
			}
			if len(r) > 0 || len(nft.Tables)+len(legacy) == 0 {
				t.Errorf("%d tables, %d rules, %d legacy tables, %d sets: refused %q", len(nft.Tables), len(nft.Rules), len(legacy), len(sets), r)
			}
		})
	}
}

// TestLarge loads a table that is larger than one transaction may be without rights over
// the machine, with sets, maps and chains that have no name of their own: its first and its
// last rule do what they say.
func TestLarge(t *testing.T) {
	v := testlab.NewNS(t, "large")
	var b strings.Builder
	b.WriteString("table inet other {\n\tset s { type ipv6_addr; flags interval; elements = { 2001:db8:7::/48 }; }\n\tchain in { type filter hook input priority 0; policy accept;\n")
	b.WriteString("\t\tudp dport { 1, 7, 8 } drop\n")
	for i := range 4000 {
		fmt.Fprintf(&b, "\t\tip6 saddr 2001:db8:ffff::%x tcp dport { %d, %d } counter drop comment \"one of very many rules, number %d\"\n", i, i+100, i+5000, i)
	}
	b.WriteString("\t\tudp dport vmap { 2 : drop, 3 : accept }\n\t\tudp dport 4 jump { ip6 saddr @s drop; }\n\t}\n}\n")
	c := v.Command(testlab.RequireTool(t, "nft"), "-f", "-")
	c.Stdin = strings.NewReader(b.String())
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	pf := hostview.Snapshot(t, v).Namespaces[0].PacketFilter
	nft, _ := pf.NFTables.Get()
	a, err := arena.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	mac, host := [6]byte{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("2001:db8:1::1")
	if failed, err := a.Setup(t.Context(), arena.Setup{Links: []arena.Link{{Name: "v0", MAC: mac, Addresses: []netip.Prefix{netip.PrefixFrom(host, 64)}}}}); err != nil || len(failed) > 0 {
		t.Fatal(failed, err)
	}
	if r, err := a.Replay(t.Context(), arena.Foreign{NFTables: &nft}); err != nil || len(r) > 0 {
		t.Fatalf("refused %q, %v", r, err)
	}
	var frames [][]byte
	for port := range uint16(8) {
		frames = append(frames, ndisc.Frame{SrcMAC: ndisc.MAC{2, 0, 0, 0, 0, 9}, DstMAC: mac, Src: netip.MustParseAddr("2001:db8:7::9"), Dst: host, HopLimit: 64, FlowLabel: uint32(port) + 1}.UDP(4000, port+1, []byte("x")).Bytes())
	}
	six, _, err := a.Fire(t.Context(), "v0", frames)
	slices.Sort(six)
	if want := []uint32{3, 5, 6}; err != nil || !slices.Equal(six, want) {
		t.Errorf("to ports %v came something, %v; want %v", six, err, want)
	}
}
