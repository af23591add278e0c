package probe

import (
	"testing"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// TestProgressIsOfWhatIsStillSent: also where nothing answers, as behind a firewall, what was
// sent and what is left are about what is sent in the end, at every moment.
func TestProgressIsOfWhatIsStillSent(t *testing.T) {
	t.Parallel()
	l := newLab(t, "pg")
	l.listen("", 22)
	rules(l.target, t, "table inet f {\nchain i {\ntype filter hook input priority 0; policy drop;\nmeta l4proto { icmp, ipv6-icmp } accept\ntcp dport 22 accept\n}\n}\n")
	spec := &model.Spec{}
	if err := spec.Parse("tcp/1-4000"); err != nil {
		t.Fatal(err)
	}
	type told struct{ sent, left int }
	var all []told
	l.client.Do(func() {
		p, err := Open(Options{Target: "t", Addr: l.v6, Spec: spec, OnLink: NewLimiter(3000), Progress: func(sent, left int) { all = append(all, told{sent, left}) }})
		if err != nil {
			t.Error(err)
			return
		}
		defer p.Close()
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
		end := p.Found.Sent
		if len(all) < 5 || end < 8000 {
			t.Errorf("told %d times, %d packets", len(all), end)
		}
		for i, x := range all {
			if total := x.sent + x.left; total*10 < end*6 || total > end*2 || i > 0 && x.sent < all[i-1].sent {
				t.Errorf("%d: %d sent and %d left, of %d", i, x.sent, x.left, end)
			}
		}
	})
}
