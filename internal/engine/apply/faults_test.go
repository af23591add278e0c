package apply

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
)

// faultRuns is how many runs there are, and faultSeed where they begin: a slice of
// fixed runs by default, as many as one likes by `make harden-faults`.
func faultRuns(t *testing.T) (runs int, seed uint64) {
	runs, seed = 40, 1
	if testing.Short() {
		runs = 8
	}
	if s := os.Getenv("HARDEN_FAULTS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		runs = n
	}
	if s := os.Getenv("HARDEN_FAULTS_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	return runs, seed
}

// TestFaults lets every process of a transaction die, or every operation of it fail,
// anywhere, while somebody else changes the host, and looks at what is left.
func TestFaults(t *testing.T) {
	runs, seed := faultRuns(t)
	tally := map[string]int{}
	foreignOps := 0
	most := map[string]int{} // crossings seen, by role
	for n := range runs {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		name := fmt.Sprintf("%d", n)
		ok := t.Run(name, func(t *testing.T) {
			c := faultRun(t, r, most)
			for _, k := range c.counts {
				tally[k]++
			}
			foreignOps += c.operations
		})
		if !ok {
			tally["failed"]++
			t.Logf("run %d of seed %d failed", n, seed)
		}
	}
	tally["runs"] = runs
	tally["foreign operations"] = foreignOps
	for _, role := range []string{"apply", "confirm"} {
		tally["crossings of a clean "+role+", at most"] = most[role]
	}
	var keys []string
	for k := range tally {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "| %s | %d |\n", k, tally[k])
	}
	t.Logf("\n%s", b.String())
	if tally["ended as intended"] == 0 || tally["ended as before"] == 0 {
		t.Error("one of the two ends never came: the faults prove nothing")
	}
	report(t, "Faults", b.String())
}

// report appends a table to the page that HARDEN_FAULTS_REPORT names.
func report(t *testing.T, title, rows string) {
	path := os.Getenv("HARDEN_FAULTS_REPORT")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "\n## %s\n\n| | |\n|---|---|\n%s", title, rows); err != nil {
		t.Fatal(err)
	}
}

type faultResult struct {
	counts     []string
	operations int
}

// aim chooses a crossing: most often one that exists.
func aim(r *rand.Rand, most int) int { return 1 + r.IntN(max(most, 12)+2) }

func faultRun(t *testing.T, r *rand.Rand, most map[string]int) (res faultResult) {
	l := newLab(t)
	p := l.random(r)
	l.write(p)
	before := l.projection(p)
	count := func(s string) { res.counts = append(res.counts, s) }

	// Somebody else, in half of the runs.
	var said bytes.Buffer
	var others *exec.Cmd
	var stop io.Closer
	if r.IntN(2) == 0 {
		count("with foreign writers")
		others = l.command("foreign")
		others.Stdout = &said
		in, err := others.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stop = in
		if err := others.Start(); err != nil {
			t.Fatal(err)
		}
	}

	kinds := []string{"kill", "hup", "eperm", "enospc", "kill", "none"}
	where := []string{"apply", "confirm", "undo", "rollback"}[r.IntN(4)]
	kind := kinds[r.IntN(len(kinds))]
	spec := func(role string) string {
		if role != where {
			return "SIXFENCE_TEST_FAULT=none:0"
		}
		return fmt.Sprintf("SIXFENCE_TEST_FAULT=%s:%d", kind, aim(r, most[role]))
	}
	undo := "SIXFENCE_TEST_FAULT_UNDO=none:0"
	if where == "undo" || r.IntN(6) == 0 { // sometimes two things go wrong
		undo = fmt.Sprintf("SIXFENCE_TEST_FAULT_UNDO=%s:%d", kind, aim(r, 40))
	}
	count("fault " + kind + " in " + where)
	ending := []string{"expire", "confirm", "rollback"}[r.IntN(3)]
	if where == "confirm" || where == "rollback" {
		ending = where
	}
	timeout := 20000
	if ending == "expire" {
		timeout = 900
	}
	story := fmt.Sprintf("%s in %s, then %s; %s; %d steps", kind, where, ending, undo, len(p.Steps))
	if kind == "none" {
		story += "; counting"
	}
	faultOf := spec("apply")
	if kind == "none" {
		faultOf = "SIXFENCE_TEST_FAULT=count:0"
	}
	out, aerr := l.play("apply", faultOf, undo, fmt.Sprintf("SIXFENCE_TEST_TIMEOUT=%d", timeout))
	crossings(out, "apply", most)
	story += fmt.Sprintf("\n%s apply: %v %s", faultOf, aerr, out)
	if aerr == nil && ending != "expire" {
		f := spec(ending)
		if kind == "none" {
			f = "SIXFENCE_TEST_FAULT=count:0"
		}
		out, err := l.play(ending, f)
		crossings(out, ending, most)
		story += fmt.Sprintf("\n%s %s: %v %s", f, ending, err, out)
		if err != nil && ending == "confirm" && strings.Contains(out, "still waiting") {
			count("confirm failed and left it waiting")
			if r.IntN(2) == 0 {
				out, err = l.play("rollback")
			} else {
				out, err = l.play("confirm")
			}
			story += fmt.Sprintf("\nagain: %v %s", err, out)
		}
	}
	// Whoever is left finishes: the process that waits, or, if that one died, any verb.
	if aerr == nil && ending == "expire" {
		l.ended(3 * time.Second)
	} else if !l.ended(2500 * time.Millisecond) {
		// The deadline is far: nothing more happens by itself if it waits.
		var s *Status
		var err error
		l.ns.Do(func() { s, err = l.engine().Status() })
		if err == nil && s.Pending != nil && s.Pending.Phase == string(waiting) {
			out, err := l.play("rollback")
			story += fmt.Sprintf("\nrollback of what waits: %v %s", err, out)
		}
	}
	if l.ended(0) {
		count("finished without help")
	} else {
		count("finished by the next command")
		for range 3 {
			out, err := l.play("resume")
			story += fmt.Sprintf("\nresume: %v %s", err, out)
			if l.ended(0) {
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	if !l.ended(0) {
		t.Fatalf("never ended: %s\n%s", story, l.log())
	}
	if others != nil {
		_ = stop.Close()
		if err := others.Wait(); err != nil {
			t.Errorf("foreign writer: %v", err)
		}
	}
	rs, err := l.engine().History()
	if err != nil {
		t.Errorf("history: %v", err)
	}
	confirmed := len(rs) > 0 && rs[len(rs)-1].Event == "confirmed"
	want, word := before, "before"
	if confirmed {
		want, word = intended(t, p), "intended"
	}
	if others != nil {
		lost, n := l.judge(said.String())
		res.operations = n
		off := slices.ContainsFunc(p.Steps, func(s change.Step) bool { return s.ID == "all-off" })
		for _, x := range lost {
			if !confirmed || !off || !strings.Contains(x, "is absent") { // who turns IPv6 off for good means it
				t.Errorf("of others': %s\n%s\n%s", x, story, l.log())
			}
		}
	}
	for _, x := range rs {
		for _, c := range x.Conflicts {
			t.Errorf("a conflict, where nobody touched ours: %s", c)
		}
	}
	if d := l.settled(p, want, 4*time.Second); d != "" {
		t.Errorf("it is not as %s:\n%s%s\nhistory %+v\nundo log %s", word, d, story, rs, l.log())
	}
	count("ended as " + word)
	if out, err := l.play("resume"); err != nil { // any later command
		t.Errorf("resume: %v %s", err, out)
	}
	// Nothing of ours is left in the state directory but what is meant to be.
	names, _ := os.ReadDir(l.state())
	for _, n := range names {
		if !slices.Contains([]string{"lock", "history.jsonl", "past"}, n.Name()) {
			t.Errorf("left behind: %s\n%s", n.Name(), story)
		}
	}
	return res
}

func crossings(out, role string, most map[string]int) {
	_, n, ok := strings.Cut(out, "crossings ")
	if !ok {
		return
	}
	if v, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(n, "\n", 2)[0])); err == nil {
		most[role] = max(most[role], v)
	}
}

// TestHangs stops the run that applies, with the lock in its hands: the process that
// waits ends it when the time is up.
func TestHangs(t *testing.T) {
	l := newLab(t)
	p := l.plan(l.all(false))
	before := l.projection(p)
	c := l.command("apply", "SIXFENCE_TEST_FAULT=stop:45", "SIXFENCE_TEST_TIMEOUT=500")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Signal(unix.SIGKILL); _ = c.Wait() }()
	ended := false
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && !ended; time.Sleep(50 * time.Millisecond) {
		_, err := os.Stat(l.state() + "/past")
		ended = err == nil && l.ended(0)
	}
	if !ended {
		t.Fatalf("nobody ended it: %s", l.log())
	}
	if d := l.settled(p, before, 4*time.Second); d != "" {
		t.Errorf("it is not as before:\n%s", d)
	}
}

// TestReboot starts the host again at every moment: the runtime is that of the boot,
// and what was not confirmed never happened.
func TestReboot(t *testing.T) {
	for _, moment := range []string{"waiting", "stage", "promoted"} {
		l := newLab(t)
		p := l.plan(l.all(false))
		before := l.projection(p)
		if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
			t.Fatalf("apply: %v\n%s", err, out)
		}
		l.kill()
		switch moment {
		case "stage": // between staging and the commitment
			if out, err := l.play("confirm", "SIXFENCE_TEST_FAULT=kill:12"); err == nil {
				t.Fatalf("it was not killed: %s", out)
			}
		case "promoted":
			if out, err := l.play("confirm", "SIXFENCE_TEST_FAULT=kill:52"); err == nil {
				t.Fatalf("it was not killed: %s", out)
			}
		}
		next := newLab(t) // the same files, another kernel
		next.boot, next.dir, next.host = "second-boot", l.dir, l.host
		if out, err := next.play("resume"); err != nil {
			t.Fatalf("%s: resume: %v\n%s", moment, err, out)
		}
		want := before
		if moment == "promoted" {
			want = intended(t, p)
		}
		if d := next.settled(p, want, 4*time.Second); d != "" {
			t.Errorf("%s: after the boot:\n%s", moment, d)
		}
		rs, err := next.engine().History()
		if err != nil || len(rs) != 2 || rs[1].Event != map[bool]string{true: "confirmed", false: "reverted-by-reboot"}[moment == "promoted"] {
			t.Errorf("%s: history %+v, %v", moment, rs, err)
		}
	}
}

// kill ends the process that waits, as a reboot does.
func (l *lab) kill() {
	out, _ := exec.Command("ip", "netns", "pids", l.ns.Name).Output()
	for _, f := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// TestConflicts lets somebody change our objects while the change waits: what they
// wrote is kept, and named.
func TestConflicts(t *testing.T) {
	l := newLab(t)
	p := l.plan(l.all(false))
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	l.ns.Sysctl("net/ipv6/conf/eth1/max_addresses", "99")
	l.nft("add rule inet sixfence guard tcp dport 4444 drop")
	if out, err := l.play("confirm"); err == nil || !strings.Contains(out, "still waiting") {
		t.Errorf("confirm of what somebody changed: %v\n%s", err, out)
	}
	if out, err := l.play("rollback"); err != nil {
		t.Fatalf("rollback: %v\n%s", err, out)
	}
	rs, err := l.engine().History()
	if err != nil || len(rs) != 2 || len(rs[1].Conflicts) != 2 {
		t.Fatalf("history %+v, %v", rs, err)
	}
	if v := l.ns.ReadSysctl("net/ipv6/conf/eth1/max_addresses"); v != "99" {
		t.Errorf("theirs is %s", v)
	}
	if out, err := exec.Command("ip", "netns", "exec", l.ns.Name, "nft", "list", "table", "inet", "sixfence").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("4444")) {
		t.Errorf("their rule: %v %s", err, out)
	}
	_ = p
}
