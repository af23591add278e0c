package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/engine/apply"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// A test that is started with this variable, or in the place of the program that a boot
// calls, performs one verb of harden and stands still at one crossing of it: an operation on
// a file, a change of the kernel, or a boundary between two steps.
const (
	cutEnv  = "LAB_CUT"       // VERB:N, or VERB:0 to count
	cutFile = "/root/lab-cut" // the same, where nobody passes an environment
	cutAt   = "/run/lab-cut"  // is there when it stands still
)

// cutter performs a verb as sixfence does, up to a crossing.
func cutter(what string) int {
	verb, at, _ := strings.Cut(strings.TrimSpace(what), ":")
	last, _ := strconv.Atoi(at)
	n := 0
	cross := func(name string) error {
		if n++; n == last {
			_ = os.WriteFile(cutAt, []byte(name), 0o600)
			select {}
		}
		if last == 0 {
			fmt.Println(name)
		}
		return nil
	}
	e := apply.New(apply.StateDir, nil)
	e.Host.Layer = &store.Layer{Before: func(o store.Op) error { return cross(string(o.Kind) + " " + o.Path + " " + o.To) }}
	e.Host.Before = func(k change.Kind, t string) error { return cross(string(k) + " " + t) }
	e.Boundary = cross
	var err error
	if verb == "resume" {
		_, err = e.Resume()
	} else {
		_, err = e.Confirm(context.Background(), apply.ConfirmOptions{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, verb+":", err)
		return 1
	}
	return 0
}

// cutLab is a machine on a disk, whose power fails.
type cutLab struct {
	*bootLab
	self             string
	before, intended []string
}

func (l *cutLab) apply() {
	l.t.Helper()
	l.sixfence(0, "harden", "apply", "--unproven", "/root/plan.json")
}

// stands waits until the cutter has come to its crossing, and says which it is.
func (l *cutLab) stands(ended <-chan error) (where string, done bool) {
	l.t.Helper()
	l.within(2*time.Minute, "the cutter to stand still or to end", func() bool {
		out, err := l.Command("cat", cutAt).Output()
		if err == nil && len(out) > 0 {
			where = string(out)
			return true
		}
		select {
		case err := <-ended:
			if err != nil {
				l.t.Fatalf("the cutter failed: %v", err)
			}
			done = true
		default:
		}
		return done
	})
	return where, done
}

// confirmCut cuts the power at one crossing of confirm, and, if again is not 0, once more
// at one of what the next boot does about it.
func (l *cutLab) confirmCut(at, again int) (where string) {
	l.t.Helper()
	l.LoadDisk("new")
	l.Boot()
	l.apply()
	c := l.Command("/usr/local/bin/cutter")
	c.Env = append(c.Env, fmt.Sprintf("%s=confirm:%d", cutEnv, at))
	if err := c.Start(); err != nil {
		l.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	where, done := l.stands(ended)
	if done {
		where = "after its end"
	}
	l.PowerCut()
	const program = apply.StateDir + "/pending/sixfence"
	if _, err := os.Stat(l.Path(program)); again == 0 || err != nil {
		return where
	}
	real, err := os.ReadFile(l.Path(program))
	if err != nil {
		l.t.Fatal(err)
	}
	l.Install(l.self, program)
	l.Write(cutFile, fmt.Sprintf("resume:%d", again))
	l.Start()
	var second string
	l.within(2*time.Minute, "the boot to come to its crossing, or up", func() bool {
		if out, err := l.Command("cat", cutAt).Output(); err == nil && len(out) > 0 {
			second = string(out)
			return true
		}
		out, _ := l.Command("systemctl", "is-system-running").Output()
		s := strings.TrimSpace(string(out))
		return s == "running" || s == "degraded"
	})
	l.PowerCut()
	if _, err := os.Stat(l.Path(program)); err == nil {
		if err := os.WriteFile(l.Path(program), real, 0o700); err != nil {
			l.t.Fatal(err)
		}
	}
	return where + "; then " + second
}

// judge boots what the cut left. It tells whether that is the state before.
func (l *cutLab) judge(what string) (was bool) {
	l.t.Helper()
	l.Boot()
	booted := l.state() // before any command of ours
	c := l.Command("sixfence", "harden", "status", "--format", "json")
	out, _ := c.Output()
	code := c.ProcessState.ExitCode()
	var s struct {
		Pending, Confirmed *struct{ ID, Transaction string }
		Unseen             []historyRecord
		Drift              []any
		Alerts             []string
	}
	if err := json.Unmarshal(out, &s); err != nil {
		l.t.Fatalf("%s: status: %v\n%s", what, err, out)
	}
	h := l.history()
	last := h[len(h)-1]
	now := l.state()
	switch {
	case slices.Equal(now, l.before):
		was = true
		if code != 5 || len(s.Unseen) != 1 || s.Confirmed != nil || last.Event != "reverted-by-reboot" || len(h) != 2 {
			l.t.Errorf("%s: booted as before, and status exits %d and says %s; history %+v", what, code, out, h)
		}
		l.sixfence(0, "harden", "status", "--acknowledge")
		l.sixfence(0, "harden", "status")
	case slices.Equal(now, l.intended):
		if code != 0 || s.Confirmed == nil || s.Confirmed.Transaction != h[0].Transaction || last.Event != "confirmed" || len(h) != 2 {
			l.t.Errorf("%s: booted as intended, and status exits %d and says %s; history %+v", what, code, out, h)
		}
		// A hook that is no longer called may lie there, until the next command.
		booted = slices.DeleteFunc(booted, func(s string) bool { return strings.HasSuffix(s, "./systemd/system/sixfence-resume.service") })
		if !slices.Equal(booted, now) {
			l.same(what+": the boot alone did not bring the intended", booted)
		}
		if s := l.Run("cat", "/run/witness"); !strings.Contains(s, "table inet sixfence\n") {
			l.t.Errorf("%s: when eth0 came up there was\n%s", what, s)
		}
		if p := l.sixfence(0, "harden", "plan"); !strings.HasPrefix(p, "Nothing to do") {
			l.t.Errorf("%s: plan is not empty:\n%s", what, p)
		}
	default:
		l.t.Errorf("%s: a third state", what)
		l.same(what+", to before", l.before)
		l.same(what+", to intended", l.intended)
		l.t.Logf("status: %s", out)
	}
	if s.Pending != nil || len(s.Drift)+len(s.Alerts) > 0 {
		l.t.Errorf("%s: status %s", what, out)
	}
	if names, err := os.ReadDir(l.Path(apply.StateDir)); err != nil {
		l.t.Error(err)
	} else {
		for _, n := range names {
			if !slices.Contains([]string{"lock", "history.jsonl", "past"}, n.Name()) {
				l.t.Errorf("%s: left behind: %s", what, n.Name())
			}
		}
	}
	l.PowerCut()
	return was
}

// The power fails inside confirm, under a real systemd that boots again from what had
// reached the disk, and fails once more inside what that boot completes: what comes up is
// as before or as intended, and status and history say which. HARDEN_BOOTS is how many
// crossings are tried; 0: all.
func TestSystemdPowerCuts(t *testing.T) {
	t.Parallel()
	if !testlab.Apart(t) {
		return
	}
	l := &cutLab{bootLab: newBootLab(t, bootIntent), self: selfPath(t)}
	l.Install(l.self, "/usr/local/bin/cutter")
	l.OnDisk()
	l.Boot()
	l.before = l.state()
	l.sixfence(0, "harden", "plan", "-o", "/root/plan.json")
	l.Run("sync", "/root/plan.json", "/root")
	l.PowerCut()
	l.SaveDisk("new")
	l.Boot()
	l.apply()
	c := l.Command("/usr/local/bin/cutter")
	c.Env = append(c.Env, cutEnv+"=confirm:0")
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	crossings := strings.Split(strings.TrimSpace(string(out)), "\n")
	l.PowerCut() // confirm has returned: nothing of it may be lost
	l.Boot()
	l.intended = l.state()
	l.sixfence(0, "harden", "status")
	l.PowerCut()
	commit := slices.IndexFunc(crossings, func(s string) bool { return strings.HasPrefix(s, "rename ") && strings.HasSuffix(s, "/is-committed") }) + 1
	if commit == 0 || slices.Equal(l.before, l.intended) {
		t.Fatalf("nothing to cut in two: %q", crossings)
	}
	t.Logf("confirm has %d crossings, the commitment is the %d.", len(crossings), commit)

	var points []int
	switch tries := envInt(t, "HARDEN_BOOTS", 3); {
	case tries == 0:
		for at := range crossings {
			points = append(points, at+1)
		}
	default: // right before the commitment, and spread over what comes after it
		points = []int{commit}
		for i := range tries - 1 {
			points = append(points, commit+2+(len(crossings)-commit-2)*i/max(1, tries-1))
		}
	}
	tally := map[string]int{}
	for i, at := range points {
		again := 0
		if at > commit && i%2 == 1 {
			again = 1 + (7*i)%max(1, len(crossings)-at+10)
		}
		where := l.confirmCut(at, again)
		what := fmt.Sprintf("cut at crossing %d of %d, %s", at, len(crossings), where)
		was := l.judge(what)
		if was != (at <= commit) && at != commit+1 { // in between it may not have reached the disk
			t.Errorf("%s: booted as before: %v", what, was)
		}
		t.Logf("%s: before %v", what, was)
		tally[map[bool]string{true: "before", false: "intended"}[was]]++
		if again > 0 {
			tally["cut again"]++
		}
	}
	t.Logf("%d cuts, %d of them cut again while the next boot completed them: %d booted as before, %d as intended", len(points), tally["cut again"], tally["before"], tally["intended"])
	if dir := os.Getenv("HARDEN_FAULTS_REPORT"); dir != "" {
		rows := fmt.Sprintf("| crossings of confirm | %d |\n| cuts | %d |\n| cut again while the next boot completed it | %d |\n| booted as before | %d |\n| booted as intended | %d |\n", len(crossings), len(points), tally["cut again"], tally["before"], tally["intended"])
		if err := os.WriteFile(dir+"/7", []byte("\n## Power cuts inside confirm, under a real systemd\n\n| | |\n|---|---|\n"+rows), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if tally["before"] == 0 || tally["intended"] == 0 {
		t.Error("one of the two ends never came: the cuts prove nothing")
	}
}

func selfPath(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func envInt(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
