package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

var labContext = context.Background()

func (l *lab) plan(steps []change.Step) *change.Plan {
	p := &change.Plan{SchemaVersion: change.Version, IntentHash: "i", Namespace: "self", Steps: steps}
	l.write(p)
	return p
}

// settled waits until the projection is the wanted one: duplicate address detection
// and the route garbage collector take their time.
func (l *lab) settled(p *change.Plan, want []string, d time.Duration) string {
	var got string
	for end := time.Now().Add(d); ; time.Sleep(50 * time.Millisecond) {
		if got = diff(want, l.projection(p)); got == "" || time.Now().After(end) {
			return got
		}
	}
}

func (l *lab) ended(d time.Duration) bool {
	for end := time.Now().Add(d); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(l.state() + "/pending"); errors.Is(err, os.ErrNotExist) {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

func (l *lab) log() string {
	b, _ := os.ReadFile(l.dir + "/undo.log")
	return string(b)
}

func TestConfirmedAndTakenBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false))
	before := l.projection(p)
	want := intended(t, p)
	if diff(before, want) == "" {
		t.Fatal("the plan changes nothing")
	}
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	var s *Status
	var err error
	l.ns.Do(func() { s, err = l.engine().Status() })
	if err != nil || s.Pending == nil || s.Pending.Phase != "waiting" || s.Pending.Armed.How != "process" {
		t.Fatalf("status: %+v, %v", s, err)
	}
	for _, line := range l.tree() {
		if strings.Contains(line, "90-sixfence") {
			t.Errorf("before confirm there is %s", line)
		}
	}
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err == nil || !strings.Contains(out, "waits for its confirmation") {
		t.Errorf("a second apply: %v\n%s", err, out)
	}
	if out, err := l.play("confirm"); err != nil {
		t.Fatalf("confirm: %v\n%s", err, out)
	}
	if d := l.settled(p, want, patience); d != "" {
		t.Fatalf("after confirm:\n%s", d)
	}
	l.ns.Do(func() {
		if s, err = l.engine().Status(); err != nil || len(s.Drift) > 0 || s.Confirmed == nil || s.Pending != nil {
			t.Errorf("status: %+v, %v", s, err)
		}
	})
	// Twice changes nothing: the pre-images no longer fit.
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err == nil || !strings.Contains(out, "changed since the plan") {
		t.Errorf("the same plan again: %v\n%s", err, out)
	}
	l.back(t)
	l.must(t, "confirm")
	// What had a lifetime came from the network, and comes from there again. The
	// directory that was made for a file stays.
	want = nil
	for _, b := range before {
		if !strings.Contains(b, "finite true") && !strings.Contains(b, "2001:db8:1::12") {
			want = append(want, b)
		}
	}
	var d string
	testlab.Eventually(t, patience, "the former state", func() bool {
		d = ""
		for _, line := range strings.Split(diff(want, l.projection(p)), "\n") {
			if strings.HasPrefix(line, "  - ") {
				d += line + "\n"
			}
		}
		return d == ""
	})
	rs, err := l.engine().History()
	if err != nil || len(rs) != 4 {
		t.Errorf("history: %+v, %v", rs, err)
	}
}

func TestExpires(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false))
	before := l.projection(p)
	for ms := 1500; ; ms *= 4 { // a busy machine may take longer to apply it all
		out, err := l.play("apply", fmt.Sprintf("SIXFENCE_TEST_TIMEOUT=%d", ms))
		if err == nil {
			break
		}
		if !strings.Contains(out, "the time was up") || ms > 100000 {
			t.Fatalf("apply: %v\n%s", err, out)
		}
	}
	if !l.ended(2 * patience) {
		t.Fatalf("not undone: %s", l.log())
	}
	if d := l.settled(p, before, patience); d != "" {
		t.Fatalf("after the undo:\n%s", d)
	}
	s, err := l.engine().Status()
	if err != nil || len(s.Unseen) != 1 {
		t.Fatalf("status: %+v, %v", s, err)
	}
	if err := l.engine().Acknowledge(); err != nil {
		t.Fatal(err)
	}
	if s, err = l.engine().Status(); err != nil || len(s.Unseen) != 0 {
		t.Errorf("status after it was seen: %+v, %v", s, err)
	}
}

// TestTimer plays what a timer of systemd starts: our program, at the deadline, with
// nothing of the run that armed it.
func TestTimer(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false))
	before := l.projection(p)
	e := l.engine()
	e.Arm = noArm{}
	var pending *Pending
	var err error
	for long := time.Second; ; long *= 4 {
		l.ns.Do(func() { pending, err = e.Apply(labContext, p, Options{Timeout: long}) })
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "the time was up") || long > 100*time.Second {
			t.Fatal(err)
		}
	}
	c := l.command("")
	c.Args = append(c.Args, "harden", ExpireVerb, "--state-dir", l.state(), "--id", pending.ID)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if d := l.settled(p, before, patience); d != "" || !l.ended(0) {
		t.Errorf("after the timer:\n%s", d)
	}
}
