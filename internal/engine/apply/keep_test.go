package apply

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/change"
)

// A kept change, of which somebody undoes two objects.
func keptLab(t *testing.T) (*lab, *change.Plan) {
	t.Helper()
	l := newLab(t)
	p := &change.Plan{SchemaVersion: change.Version, Steps: l.all(false)[:3]}
	l.write(p)
	for _, role := range []string{"apply", "confirm"} {
		if out, err := l.play(role, "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
			t.Fatalf("%s: %v\n%s", role, err, out)
		}
	}
	return l, p
}

func (l *lab) undo() {
	l.t.Helper()
	l.nft("table inet sixfence\ndelete table inet sixfence")
	l.ns.Sysctl("net/ipv6/conf/eth0/accept_redirects", "1")
}

func (l *lab) keptStatus() *Status {
	l.t.Helper()
	var s *Status
	var err error
	l.ns.Do(func() { s, err = l.engine().Status() })
	if err != nil || len(s.Alerts) > 0 {
		l.t.Fatalf("status: %+v, %v", s, err)
	}
	return s
}

// What restores is killed at every point: each object is as somebody left it or as it was
// kept, and the next look finishes.
func TestKeepKilled(t *testing.T) {
	t.Parallel()
	l, p := keptLab(t)
	want := l.projection(p)
	l.undo()
	out, err := l.play("keep", "SIXFENCE_TEST_FAULT=count:0")
	if err != nil {
		t.Fatalf("keep: %v\n%s", err, out)
	}
	var n int
	if _, err := fmt.Sscanf(out[strings.Index(out, "crossings"):], "crossings %d", &n); err != nil || n < 20 {
		t.Fatalf("%d crossings, %v\n%s", n, err, out)
	}
	same := func(when string) {
		t.Helper()
		if now := l.projection(p); strings.Join(now, "\n") != strings.Join(want, "\n") {
			t.Fatalf("%s: is\n%s\nnot\n%s", when, strings.Join(now, "\n"), strings.Join(want, "\n"))
		}
		if s := l.keptStatus(); s.Pending != nil || len(s.Drift) > 0 || len(s.Unseen) > 0 {
			t.Fatalf("%s: %+v", when, s)
		}
	}
	same("restored")
	step := 4 // make harden-faults takes every one
	if os.Getenv("HARDEN_FAULTS") != "" {
		step = 1
	}
	for at := 1 + rand.IntN(step); at <= n; at += step {
		l.forget() // or the third time would be a fight
		l.undo()
		if out, err := l.play("keep", fmt.Sprintf("SIXFENCE_TEST_FAULT=kill:%d", at)); err == nil && at < n-1 {
			t.Fatalf("it survived %d of %d: %s", at, n, out)
		}
		for range 2 {
			if out, err := l.play("keep"); err != nil {
				t.Fatalf("killed at %d, and then: %v\n%s", at, err, out)
			}
		}
		same(fmt.Sprintf("killed at %d of %d", at, n))
	}
}

// What is undone again and again is left, and reported.
func TestKeepDoesNotFight(t *testing.T) {
	t.Parallel()
	l, _ := keptLab(t)
	for i := range fightMost + 2 {
		l.undo()
		if out, err := l.play("keep"); err != nil {
			t.Fatalf("keep: %v\n%s", err, out)
		}
		s := l.keptStatus()
		switch {
		case i < fightMost && (len(s.Drift) != 0 || len(s.Fights) != 0 || s.RestoredToday != i+1):
			t.Fatalf("look %d: %+v", i, s)
		case i >= fightMost && (len(s.Drift) != 2 || len(s.Fights) != 2 || s.RestoredToday != fightMost || s.Fights[0].Times != fightMost):
			t.Fatalf("look %d: %+v", i, s)
		}
	}
	l.ns.Do(func() {
		if err := l.engine().Acknowledge(); err != nil {
			t.Error(err)
		}
	})
	if out, err := l.play("keep"); err != nil {
		t.Fatalf("keep: %v\n%s", err, out)
	}
	if s := l.keptStatus(); len(s.Drift)+len(s.Fights) != 0 {
		t.Errorf("once a person has seen it: %+v", s)
	}
}

// What several changes left is compared, not the last alone; what was taken back is not.
func TestDriftOfSeveralChanges(t *testing.T) {
	t.Parallel()
	l, _ := keptLab(t)
	hop := change.Step{ID: "hop", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/eth1/hop_limit", Before: change.Image{Text: "64"}, After: change.Image{Text: "63"}}
	l.write(&change.Plan{SchemaVersion: change.Version, Steps: []change.Step{hop}})
	for _, role := range []string{"apply", "confirm"} {
		if out, err := l.play(role, "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
			t.Fatalf("%s: %v\n%s", role, err, out)
		}
	}
	l.undo()
	if s := l.keptStatus(); len(s.Drift) != 2 {
		t.Errorf("drift of the first change: %+v", s.Drift)
	}
	hop.Before, hop.After = hop.After, hop.Before
	l.write(&change.Plan{SchemaVersion: change.Version, Steps: []change.Step{hop}})
	for _, role := range []string{"apply", "confirm"} {
		if out, err := l.play(role, "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
			t.Fatalf("%s: %v\n%s", role, err, out)
		}
	}
	l.ns.Sysctl("net/ipv6/conf/eth1/hop_limit", "62") // it is ours no longer
	if s := l.keptStatus(); len(s.Drift) != 2 {
		t.Errorf("drift after it was given back: %+v", s.Drift)
	}
}

// forget takes the fights and the records of restoring from the history.
func (l *lab) forget() {
	l.t.Helper()
	l.ns.Do(func() {
		d, err := l.host.Layer.Open(l.state())
		if err != nil {
			l.t.Error(err)
			return
		}
		defer d.Close()
		rs, _, _, err := readHistory(d)
		if err != nil {
			l.t.Error(err)
			return
		}
		if err := d.Remove(historyFile); err != nil {
			l.t.Error(err)
		}
		if d.Has(fightsFile) {
			_ = d.Remove(fightsFile)
		}
		e, last := l.engine(), ""
		for _, r := range rs {
			if r.Objects == nil {
				if err := e.append(d, r, &last); err != nil {
					l.t.Error(err)
				}
			}
		}
	})
}
