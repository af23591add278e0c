package mutate

import (
	"testing"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestTouchesNothingElse hands over texts that do more than fill our table.
func TestTouchesNothingElse(t *testing.T) {
	testlab.RequireRoot(t)
	testlab.RequireTool(t, "nft")
	const ours = "table inet sixfence { chain c { type filter hook input priority 0; policy accept; }; }"
	h := &Host{}
	if s, err := h.Want(change.Table, "inet sixfence", change.Image{Text: ours}); err != nil || s == Absent {
		t.Fatalf("%q, %v", s, err)
	}
	for _, more := range []string{
		"flush ruleset", "flush ruleset ip", "delete table ip somebody-else", "add table ip6 more", "add table ip sixfence",
		"add rule ip somebody-else c drop", "table ip somebody-else { chain d { type filter hook input priority 0; policy drop; }; }",
		"delete chain ip somebody-else c", "flush table ip somebody-else\nadd set ip somebody-else s { type ipv4_addr; }",
	} {
		for _, text := range []string{more + "\n" + ours, ours + "\n" + more} {
			if s, err := h.Want(change.Table, "inet sixfence", change.Image{Text: text}); err == nil {
				t.Errorf("taken as %s:\n%s", s, text)
			}
		}
	}
	for _, target := range []string{"inet filter", "inet sixfence-x", "ip nat", "inet  sixfence", "inet sixfence; flush ruleset", "sixfence", ""} {
		if _, err := h.Want(change.Table, target, change.Image{Text: ours}); err == nil {
			t.Errorf("table %q is taken for ours", target)
		}
		if err := h.Set(change.Table, target, change.Image{Absent: true}); err == nil {
			t.Errorf("table %q was deleted", target)
		}
	}
}
