package cli

import (
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// TestSelectionNotes: who selects an interface that is not there is told what is.
func TestSelectionNotes(t *testing.T) {
	t.Parallel()
	n := &fact.Namespace{}
	n.Links = fact.Value([]fact.Link{
		{Index: 1, Name: "lo", Flags: 8}, {Index: 2, Name: "ens3", MAC: "52:54:00:00:00:01", Driver: fact.Value("virtio_net")}, {Index: 3, Name: "br0", Kind: "bridge"}, {Index: 4, Name: "odd"},
	})
	in := &intent.Intent{Interfaces: map[string]intent.Interface{
		"uplink": {Match: intent.Match{Driver: "virtio*"}, Addressing: intent.SLAAC}, "old": {Match: intent.Match{Driver: "e1000e"}, Addressing: intent.Static}, "eth9": {Addressing: intent.Static},
	}}
	got := strings.Join(selectionNotes(in, n), "\n")
	for _, want := range []string{
		"interfaces.old (driver e1000e) selects no interface that is there now; there are: ens3 (virtio_net, 52:54:00:00:00:01), br0 (bridge), odd (driver not known); for one that comes later, plan and apply again",
		"interfaces.eth9 (name eth9) selects no interface", "it will hold for one of that name", "whether interfaces.uplink selects odd is not known: driver of odd",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "interfaces.uplink (") {
		t.Errorf("what selects is said to select nothing:\n%s", got)
	}
}
