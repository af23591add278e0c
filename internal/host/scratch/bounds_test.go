package scratch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/testlab"
)

// nlmsg is a netlink message of nf_tables; batch begin and end have their own types.
func nlmsg(typ uint16, attrs ...[]byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+4)
	for _, a := range attrs {
		b = append(b, a...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	return b
}

func attr(typ uint16, data ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

const nft = unix.NFNL_SUBSYS_NFTABLES << 8

// TestPiecesKeepTogether shows where a transaction is cut, and where never.
func TestPiecesKeepTogether(t *testing.T) {
	begin, fin := nlmsg(unix.NFNL_MSG_BATCH_BEGIN, attr(1, 0, 0, 0, 9)), nlmsg(unix.NFNL_MSG_BATCH_END)
	rule := nlmsg(nft|unix.NFT_MSG_NEWRULE, attr(unix.NFTA_RULE_CHAIN, 'c', 0))
	inner := nlmsg(nft|unix.NFT_MSG_NEWRULE, attr(nftaRuleChainID, 0, 0, 0, 1))
	anonymous := nlmsg(nft|unix.NFT_MSG_NEWSET, attr(unix.NFTA_SET_FLAGS, 0, 0, 0, unix.NFT_SET_ANONYMOUS|unix.NFT_SET_CONSTANT))
	named := nlmsg(nft|unix.NFT_MSG_NEWSET, attr(unix.NFTA_SET_FLAGS, 0, 0, 0, 0))
	element := nlmsg(nft | unix.NFT_MSG_NEWSETELEM)
	chain := nlmsg(nft|unix.NFT_MSG_NEWCHAIN, attr(unix.NFTA_CHAIN_NAME, 'c', 0))
	nameless := nlmsg(nft | unix.NFT_MSG_NEWCHAIN)
	// Cut wherever it is possible: every message alone is too large.
	got := pieces(concat(begin, chain, named, element, rule, anonymous, element, rule, nameless, inner, inner, rule, rule, fin), 1)
	var shape []string
	for _, p := range got {
		if binary.NativeEndian.Uint16(p[4:]) != unix.NFNL_MSG_BATCH_BEGIN || binary.NativeEndian.Uint32(p) != unix.NLMSG_HDRLEN+4 {
			t.Fatalf("a piece does not begin as a transaction: %x", p)
		}
		s := ""
		for b := p; len(b) > 0; b = b[binary.NativeEndian.Uint32(b):] {
			s += map[uint16]string{unix.NFNL_MSG_BATCH_END: "|", nft | unix.NFT_MSG_NEWRULE: "r", nft | unix.NFT_MSG_NEWSET: "s", nft | unix.NFT_MSG_NEWSETELEM: "e", nft | unix.NFT_MSG_NEWCHAIN: "c"}[binary.NativeEndian.Uint16(b[4:])]
		}
		shape = append(shape, s)
	}
	if s := strings.Join(shape, " "); s != "c| s| e| r| ser| crrr| r|" {
		t.Errorf("cut as %q", s)
	}
	for name, m := range map[string][]byte{"no transaction": rule, "cut short": begin[:10], "another subsystem": concat(begin, nlmsg(1<<8), fin), "a length of nothing": append(concat(begin), make([]byte, 64)...)} {
		if got := pieces(m, 1); len(got) != 1 || string(got[0]) != string(m) {
			t.Errorf("%s is changed: %x", name, got)
		}
	}
}

func concat(list ...[]byte) []byte {
	var out []byte
	for _, b := range list {
		out = append(out, b...)
	}
	return out
}

// FuzzPieces feeds what a program in nft's place could send.
func FuzzPieces(f *testing.F) {
	f.Add(concat(nlmsg(unix.NFNL_MSG_BATCH_BEGIN), nlmsg(nft|unix.NFT_MSG_NEWRULE), nlmsg(unix.NFNL_MSG_BATCH_END)), 40)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		total := 0
		for _, p := range pieces(b, limit) {
			total += len(p)
		}
		if total > 16*len(b)+64 {
			t.Errorf("%d bytes became %d", len(b), total)
		}
	})
}

// FuzzJSON feeds lists that no nft printed.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"nftables":[{"rule":{"expr":[{"xt":null},{"accept":null}]}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		items, lost, err := jsonRules(b)
		if err != nil {
			return
		}
		again, more, err := jsonRules(document(items))
		if err != nil || len(again) != len(items) || len(more) != 0 {
			t.Errorf("%q lost %q, then %q: %v", b, lost, more, err)
		}
		namesInJSON(b)
	})
}

// FuzzWords reads hostile scripts and complaints of nft.
func FuzzWords(f *testing.F) {
	f.Add([]byte("include \"x\"\niif eth0 \x00 # xt_tcp\n"))
	f.Add([]byte("a:1:2-3: Error: b\n x y\n   ^\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(namesInScript(b)) > maxStubs || len(parseProblems(b)) > maxProblems || len(uncomment(b)) != len(b) {
			t.Error("more than is allowed")
		}
		commentedOut("x", b)
		s := Script{Text: b}
		s.notes()
	})
}

// TestLargeTransactionsAreCut loads more than a send buffer holds, which only an
// ordinary user's limits show: root's socket may be larger.
func TestLargeTransactionsAreCut(t *testing.T) {
	testlab.RequireRoot(t)
	var b strings.Builder
	b.WriteString("table inet f {\n set s {\n type ipv4_addr; flags interval\n elements = { 10.0.0.1")
	for i := 1; i < 4000; i++ {
		b.WriteString(", 10." + itoa(i/100) + "." + itoa(i%100) + ".0/25")
	}
	b.WriteString(" }\n }\n chain i {\n type filter hook input priority 0; policy drop\n")
	for i := range 4000 {
		b.WriteString(" ip6 saddr 2001:db8:" + itoa(i) + "::/64 tcp dport { 1, " + itoa(i+2) + " } accept\n")
	}
	b.WriteString(" jump { accept; }\n }\n}\n")
	l, err := Load(t.Context(), Options{Scripts: []Script{{Name: "x", Text: []byte(b.String())}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.NFTables.Rules) != 4002 || len(l.NFTables.Sets) != 4001 {
		t.Errorf("%d rules, %d sets", len(l.NFTables.Rules), len(l.NFTables.Sets))
	}
	// An error far behind is named all the same.
	text := strings.Replace(b.String(), " jump { accept; }\n", " jump gone\n", 1)
	_, err = Load(t.Context(), Options{Scripts: []Script{{Name: "x", Text: []byte(text)}}})
	if err == nil || !strings.Contains(err.Error(), "x:4008:") {
		t.Errorf("the last rule is bad: %.300v", err)
	}
}

func itoa(i int) string { return strconv.Itoa(i) }

// TestMemoryIsBounded gives nft a definition that doubles itself forty times.
func TestMemoryIsBounded(t *testing.T) {
	testlab.RequireRoot(t)
	text := "define a0 = { 10.0.0.1, 10.0.0.2 }\n"
	for i := range 40 {
		text += fmt.Sprintf("define a%d = { $a%d, $a%d }\n", i+1, i, i)
	}
	text += "table inet f {\n chain i {\n ip saddr $a40 drop\n }\n}\n"
	l, err := Load(t.Context(), Options{Scripts: []Script{{Name: "x", Text: []byte(text)}}, memory: 128 << 20})
	var r *RefusedError
	if !errors.As(err, &r) || !strings.Contains(r.Error(), "memory") {
		t.Errorf("loaded %v, %v", l != nil, err)
	}
}

// TestOnlyOneInside shows that the helper never starts another.
func TestOnlyOneInside(t *testing.T) {
	t.Setenv("SIXFENCE_HELPER", "1s")
	if _, err := Start(); err == nil || !strings.Contains(err.Error(), "already inside") {
		t.Errorf("%v", err)
	}
}

// TestDiesWithItsCaller closes the pipe as the death of the caller does.
func TestDiesWithItsCaller(t *testing.T) {
	testlab.RequireRoot(t)
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = s.p.In.Close()
		b := make([]byte, 1)
		_, _ = s.p.Out.Read(b) // the end of its output is its own
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the helper lives on")
	}
	s.Close()
	if _, err := os.Stat("/.sixfence"); err == nil {
		t.Error("something of the jail is outside of it")
	}
}

// A helper whose time is up says so, and what to do; so does one that was killed.
func TestEndsAreExplained(t *testing.T) {
	testlab.RequireTool(t, "nft")
	self.Life = 3 * time.Second
	s, err := Start()
	self.Life = maxTime
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.out.Peek(1) // the end of the helper
	_, err = s.Load(t.Context(), Options{Scripts: []Script{{Name: "a", Text: []byte("table ip a { }")}}})
	var u *UnavailableError
	if !errors.As(err, &u) || !strings.Contains(u.Why, "2 minutes") || !strings.Contains(u.Hint, "sixfence snapshot") {
		t.Errorf("out of time: %v", err)
	}
	died := &deadError{io.EOF}
	if err := died.because(""); !errors.As(err, &u) || !strings.Contains(u.Why, "memory") {
		t.Errorf("killed: %v", err)
	}
	if err := died.because("panic: x"); errors.As(err, &u) || !strings.Contains(err.Error(), "panic: x") {
		t.Errorf("died: %v", err)
	}
}
