package probe

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestAnswersOfServers holds what real servers said against every question: each knows its
// own answers, and no others.
func TestAnswersOfServers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/answers.txt")
	if err != nil {
		t.Fatal(err)
	}
	token := binary.BigEndian.AppendUint64(nil, recorded)
	other := binary.BigEndian.AppendUint64(nil, ^uint64(recorded))
	alike := [][]uint16{{53, 137, 5353}, {5349, 5684}, {443, 853}} // one format each
	tokenless := []uint16{69, 88, 1900, 5349, 5351, 5684}
	seen := map[uint16]bool{51820: true, 853: true, 5684: true} // nobody answers the first; the others are asked like 443 and 5349
	for line := range strings.Lines(string(text)) {
		var port uint16
		var program string
		var b []byte
		if strings.HasPrefix(line, "#") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%d %s %x", &port, &program, &b); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		seen[port] = true
		for p, q := range questions {
			same := p == port || slices.ContainsFunc(alike, func(l []uint16) bool { return slices.Contains(l, p) && slices.Contains(l, port) })
			if got := q.answers(token, b); got != same {
				t.Errorf("udp/%d takes an answer of %s for its own: %v", p, program, got)
			}
			if q.answers(other, b) && !slices.Contains(tokenless, p) {
				t.Errorf("udp/%d takes an answer of %s that is to somebody else", p, program)
			}
			for n := range b {
				q.answers(token, b[:n]) // may be, and must not panic
			}
		}
	}
	page, err := os.ReadFile("../../../docs/reference/verify-udp.md")
	if err != nil {
		t.Fatal(err)
	}
	for p := range questions {
		if !seen[p] {
			t.Errorf("no server has answered the question of udp/%d", p)
		}
		a, b := payload(p, recorded), payload(p, recorded)
		if string(a) != string(b) || len(a) == 0 {
			t.Errorf("udp/%d: a probe is not the same twice: an ICMP error about it would not be known again", p)
		}
		if row := fmt.Sprintf("| %d | %d |", p, len(a)); !strings.Contains(string(page), row) {
			t.Errorf("the page has no row %q: %s", row, hex.EncodeToString(a))
		}
	}
}
