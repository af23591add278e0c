package probe

import (
	"strings"
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

// TestWhatAnswersForEveryPortIsSaid: a target that redirects every port to one service is
// open everywhere, and a note says that this proves no service.
func TestWhatAnswersForEveryPortIsSaid(t *testing.T) {
	t.Parallel()
	l := newLab(t, "ae")
	l.listen("", 22)
	spec := &model.Spec{}
	if err := spec.Parse("tcp/1-150"); err != nil {
		t.Fatal(err)
	}
	run := func() (said, open int) {
		l.client.Do(func() {
			p, err := Open(Options{Target: "t", Addr: l.v6, Spec: spec})
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Close()
			if err := p.Run(t.Context()); err != nil {
				t.Error(err)
			}
			for _, n := range p.Found.Notes {
				if strings.Contains(n, "TCP ports answer as open") {
					said++
				}
			}
			open = p.Found.Tables[0].Count(model.Open)
		})
		return said, open
	}
	if said, open := run(); said != 0 || open != 1 {
		t.Errorf("one service: %d open, said %d times", open, said)
	}
	rules(l.target, t, "table ip6 n {\nchain p {\ntype nat hook prerouting priority -100;\ntcp dport 1-65535 redirect to :22\n}\n}\n")
	if said, open := run(); said != 1 || open != 150 {
		t.Errorf("every port: %d open, said %d times", open, said)
	}
}
