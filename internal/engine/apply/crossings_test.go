package apply

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"
)

// scenarios are the four roles of a transaction in which something goes wrong.
var scenarios = []string{"apply", "confirm", "rollback", "undo"}

// crossing prepares the trial in which one thing goes wrong at one crossing of one role.
// A kind of "count" makes nothing go wrong.
func crossing(l *lab, role, kind string, at int) *trial {
	x := &trial{l: l, ending: "rollback", timeout: time.Minute, undo: "none:0", again: "rollback", faults: map[string]string{}}
	f := fmt.Sprintf("%s:%d", kind, at)
	switch role {
	case "confirm":
		x.ending = role
		x.faults[role] = f
		if at%2 == 0 {
			x.again = "confirm"
		}
	case "undo": // by the process that waits, which finds the run dead when all is applied
		x.ending = "expire"
		x.faults["apply"] = "kill:wait"
		x.undo = f
	default:
		x.faults[role] = f
	}
	return x
}

// TestCrossings lets one thing go wrong at every crossing of a plan with every kind of
// step that a namespace can hold: by default at a fixed slice of them, whole by
// `make harden-faults`.
func TestCrossings(t *testing.T) {
	t.Parallel()
	every := 31
	if s := os.Getenv("HARDEN_CROSSINGS"); s != "" {
		if _, err := fmt.Sscan(s, &every); err != nil {
			t.Fatal(err)
		}
	}
	first := newLab(t)
	p := first.plan(first.all(false))
	before, after := first.projection(p), intended(t, p)
	clean := map[string]int{}
	for _, role := range scenarios {
		l := newLab(t)
		x := crossing(l, role, "count", 0)
		x.p, x.before, x.want = p, before, func() []string { return after }
		l.write(p)
		x.run(t, clean)
		crossings(l.log(), "undo", clean)
		if t.Failed() {
			t.Fatalf("nothing went wrong, and yet: %s", x.story)
		}
	}
	tally := newTally()
	n := 0
	t.Run("at", func(t *testing.T) {
		for i, role := range scenarios {
			last := clean["clean "+role]
			if last == 0 {
				t.Fatalf("no crossing of %s was counted", role)
			}
			tally.count["crossings of "+role] = last
			for j, kind := range []string{"kill", "hup", "eperm", "enospc"} {
				for at := 1 + (7*i+11*j)%every; at <= last; at += every {
					n++
					t.Run(fmt.Sprintf("%s/%s/%d", role, kind, at), func(t *testing.T) {
						t.Parallel()
						l := newLab(t)
						x := crossing(l, role, kind, at)
						x.p, x.before, x.want = p, before, func() []string { return after }
						l.write(p)
						defer func() {
							x.res.count("fault " + kind + " in " + role)
							tally.take(x.res)
							tally.add(t, nil)
						}()
						x.run(t, map[string]int{})
					})
				}
			}
		}
	})
	tally.report(t, 1, "Every crossing", map[string]int{"runs": n})
	if every == 1 && !slices.ContainsFunc(slices.Collect(maps.Keys(tally.count)), func(k string) bool { return k == "confirm failed and left it waiting" }) {
		t.Error("no confirmation failed")
	}
}
