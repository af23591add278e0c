package apply

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/store"
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
	t.Parallel()
	runs, seed := faultRuns(t)
	tally := newTally()
	// Enough for every plan; a crossing that a smaller one does not have is a run without a fault.
	most := map[string]int{"apply": 110, "confirm": 110, "rollback": 90, "undo": 70}
	t.Run("runs", func(t *testing.T) {
		for n := range runs {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(seed, uint64(n)))
				mine := maps.Clone(most)
				defer func() {
					tally.add(t, mine)
					if t.Failed() {
						t.Logf("run %d of seed %d failed", n, seed)
					}
				}()
				tally.take(faultRun(t, r, mine))
			})
		}
	})
	tally.report(t, 2, "Random faults", map[string]int{"runs": runs, "seed": int(seed)})
}

// tally counts what came of runs that go on beside each other.
type tally struct {
	mu    sync.Mutex
	count map[string]int
}

func newTally() *tally { return &tally{count: map[string]int{"failed": 0}} }

func (y *tally) take(r faultResult) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, k := range r.counts {
		y.count[k]++
	}
	if r.operations > 0 {
		y.count["foreign operations"] += r.operations
	}
}

// add counts a run that failed, and the crossings that it saw.
func (y *tally) add(t *testing.T, most map[string]int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if t.Failed() {
		y.count["failed"]++
	}
	for _, role := range []string{"apply", "confirm", "rollback"} {
		k := "crossings of a clean " + role + ", at most"
		y.count[k] = max(y.count[k], most["clean "+role])
	}
}

func (y *tally) report(t *testing.T, order int, title string, more map[string]int) {
	maps.Copy(y.count, more)
	var b strings.Builder
	maps.DeleteFunc(y.count, func(k string, v int) bool { return v == 0 && k != "failed" })
	for _, k := range slices.Sorted(maps.Keys(y.count)) {
		fmt.Fprintf(&b, "| %s | %d |\n", k, y.count[k])
	}
	t.Logf("\n%s", b.String())
	if y.count["ended as intended"] == 0 || y.count["ended as before"] == 0 {
		t.Error("one of the two ends never came: the faults prove nothing")
	}
	report(t, order, title, b.String())
}

// report writes a table into the directory that HARDEN_FAULTS_REPORT names, in a file of
// its own: the tests go on beside each other, and the page has an order.
func report(t *testing.T, order int, title, rows string) {
	dir := os.Getenv("HARDEN_FAULTS_REPORT")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(order)), fmt.Appendf(nil, "\n## %s\n\n| | |\n|---|---|\n%s", title, rows), 0o644); err != nil {
		t.Fatal(err)
	}
}

type faultResult struct {
	counts     []string
	operations int
}

func (r *faultResult) count(s string) { r.counts = append(r.counts, s) }

// aim chooses a crossing: most often one that exists.
func aim(r *rand.Rand, most int) int { return 1 + r.IntN(max(most, 12)+2) }

// patience is how long a test waits for what has to come. It decides nothing but when
// to give up: a busy machine makes a test slow and not red.
const patience = 60 * time.Second

// deaf is the end that comes when the process that waits is gone, too.
const deaf = "finished by the next command"

// trial is one transaction, and what goes wrong in it.
type trial struct {
	l       *lab
	p       *change.Plan
	before  []string
	want    func() []string   // the intended projection
	ending  string            // expire, confirm, rollback
	timeout time.Duration     // until the undo acts
	faults  map[string]string // by role; "none:0" where there is none
	undo    string            // of the process that waits
	again   string            // what follows a confirmation that failed and left it waiting
	others  *writers          // somebody else, who writes all the time; nil: nobody

	res   faultResult
	story string
}

func (x *trial) tell(format string, a ...any) { x.story += fmt.Sprintf(format, a...) + "\n" }

func (x *trial) play(role, f string) (string, error) {
	out, err := x.l.play(role, "SIXFENCE_TEST_FAULT="+f, "SIXFENCE_TEST_FAULT_UNDO="+x.undo, fmt.Sprintf("SIXFENCE_TEST_TIMEOUT=%d", x.timeout.Milliseconds()))
	x.tell("%s %s: %v %s", f, role, err, out)
	return out, err
}

func (x *trial) fault(role string) string {
	if f := x.faults[role]; f != "" {
		return f
	}
	return "none:0"
}

// run plays the trial to its end and judges it. It returns the crossings of each role
// that was counted.
func (x *trial) run(t *testing.T, most map[string]int) {
	x.tell("%d steps, %s, undo %s", len(x.p.Steps), x.ending, x.undo)
	out, err := x.play("apply", x.fault("apply"))
	crossings(out, "apply", most)
	expires := err == nil && x.ending == "expire"
	if err == nil && !expires {
		out, err = x.play(x.ending, x.fault(x.ending))
		crossings(out, x.ending, most)
		if err != nil && x.ending == "confirm" && strings.Contains(out, "still waiting") {
			x.res.count("confirm failed and left it waiting")
			_, _ = x.play(x.again, "none:0")
		}
	}
	// Whoever is left finishes: the process that waits, or, if that one died, any verb. On
	// a disk that is full for ever it can undo all, and not say so in the history.
	if strings.HasPrefix(x.undo, "enospc") {
		for end := time.Now().Add(patience); !x.l.ended(0) && x.l.watched() && !x.l.waits() && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(x.l.state() + "/" + pendingDir + "/is-" + string(undone)); err == nil {
				x.res.count("undone on a disk that stays full")
				break
			}
		}
		if !x.l.waits() || !expires {
			x.l.unwatch()
		}
	}
	for end := time.Now().Add(patience); !x.l.ended(0) && x.l.watched() && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !expires && x.l.waits() { // the deadline is far: nothing more happens by itself
			_, _ = x.play("rollback", "none:0")
		}
	}
	if x.l.ended(0) {
		x.res.count("finished without help")
	} else {
		x.res.count(deaf)
		for end := time.Now().Add(patience); !x.l.ended(0) && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if x.l.waits() { // and nobody is left to see the deadline
				_, _ = x.play("rollback", "none:0")
			} else {
				_, _ = x.play("resume", "none:0")
			}
		}
	}
	if !x.l.ended(0) {
		t.Fatalf("never ended: %s\n%s", x.story, x.l.log())
	}
	x.judge(t)
}

func (x *trial) judge(t *testing.T) {
	rs, err := x.l.engine().History()
	if err != nil {
		t.Errorf("history: %v", err)
	}
	confirmed := len(rs) > 0 && rs[len(rs)-1].Event == "confirmed"
	want, word := x.before, "before"
	if confirmed {
		want, word = x.want(), "intended"
	}
	if x.others != nil {
		lost, n := x.others.end()
		x.res.operations = n
		for _, y := range lost {
			// A process that was killed, and then its undo, have left nobody to listen.
			if slices.Contains(x.res.counts, deaf) && strings.HasPrefix(y, "routing daemon: route ") {
				x.res.count("routes that came back, because nobody was left to hear of their replacement")
				continue
			}
			if !confirmed || !lostForGood(x.p, y) {
				t.Errorf("of others': %s\n%s\n%s\n%s", y, strings.Join(x.others.past, "\n"), x.story, x.l.log())
			}
		}
	}
	for _, y := range rs {
		for _, c := range y.Conflicts {
			if foreignObject.MatchString(c) {
				continue
			}
			t.Errorf("a conflict, where nobody touched ours: %s\n%s", c, x.story)
		}
	}
	if d := x.l.settled(x.p, want, patience); d != "" {
		t.Errorf("it is not as %s:\n%s%s\nhistory %+v\nundo log %s", word, d, x.story, rs, x.l.log())
	}
	x.res.count("ended as " + word)
	if out, err := x.l.play("resume"); err != nil { // any later command
		t.Errorf("resume: %v %s", err, out)
	}
	// Nothing of ours is left in the state directory but what is meant to be.
	names, _ := os.ReadDir(x.l.state())
	for _, n := range names {
		if !slices.Contains([]string{"lock", "history.jsonl", "past"}, n.Name()) {
			t.Errorf("left behind: %s\n%s", n.Name(), x.story)
		}
	}
}

// waits tells whether the transaction waits for a confirmation.
func (l *lab) waits() bool {
	d, err := (&store.Layer{}).Open(l.state())
	if err != nil {
		return false
	}
	defer d.Close()
	p, err := d.Sub(pendingDir)
	if err != nil {
		return false
	}
	defer p.Close()
	return (&transaction{dir: p}).phase() == waiting
}

// watcher is the process that waits; 0 when there is none.
func (l *lab) watcher() int {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(SuperviseVerb+"\x00")) && bytes.Contains(b, []byte("\x00"+l.state()+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			return pid
		}
	}
	return 0
}

func (l *lab) watched() bool { return l.watcher() != 0 }

// unwatch kills it.
func (l *lab) unwatch() {
	if pid := l.watcher(); pid != 0 {
		_ = unix.Kill(pid, unix.SIGKILL)
		for end := time.Now().Add(patience); l.watcher() == pid && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
}

func faultRun(t *testing.T, r *rand.Rand, most map[string]int) (res faultResult) {
	l := newLab(t)
	x := &trial{l: l, p: l.random(r), timeout: time.Minute, faults: map[string]string{}}
	l.write(x.p)
	x.before = l.projection(x.p)
	x.want = func() []string { return intended(t, x.p) }
	if r.IntN(2) == 0 { // somebody else, in half of the runs
		x.res.count("with foreign writers")
		x.others = l.disturb()
	}
	kinds := []string{"kill", "hup", "eperm", "enospc", "kill", "none"}
	where := []string{"apply", "confirm", "undo", "rollback"}[r.IntN(4)]
	kind := kinds[r.IntN(len(kinds))]
	x.undo = "none:0"
	if where == "undo" || r.IntN(6) == 0 { // sometimes two things go wrong
		x.undo = fmt.Sprintf("%s:%d", kind, aim(r, most["undo"]))
	}
	x.res.count("fault " + kind + " in " + where)
	x.ending = []string{"expire", "confirm", "rollback"}[r.IntN(3)]
	if where == "confirm" || where == "rollback" {
		x.ending = where
	}
	if x.ending == "expire" {
		x.timeout = 900 * time.Millisecond
	}
	x.again = []string{"rollback", "confirm"}[r.IntN(2)]
	for _, role := range []string{"apply", "confirm", "rollback"} {
		if kind == "none" {
			x.faults[role] = "count:0"
		} else if role == where {
			x.faults[role] = fmt.Sprintf("%s:%d", kind, aim(r, most[role]))
		}
	}
	x.run(t, most)
	return x.res
}

func crossings(out, role string, most map[string]int) {
	_, n, ok := strings.Cut(out, "crossings ")
	if !ok {
		return
	}
	if v, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(n, "\n", 2)[0])); err == nil {
		most["clean "+role] = max(most["clean "+role], v)
	}
}

// TestHangs stops the run that applies, with the lock in its hands: the process that
// waits ends it when the time is up.
func TestHangs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false))
	before := l.projection(p)
	c := l.command("apply", "SIXFENCE_TEST_FAULT=stop:45", "SIXFENCE_TEST_TIMEOUT=500")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Signal(unix.SIGKILL); _ = c.Wait() }()
	ended := false
	for end := time.Now().Add(2 * patience); time.Now().Before(end) && !ended; time.Sleep(50 * time.Millisecond) {
		_, err := os.Stat(l.state() + "/past")
		ended = err == nil && l.ended(0)
	}
	if !ended {
		t.Fatalf("nobody ended it: %s", l.log())
	}
	if d := l.settled(p, before, patience); d != "" {
		t.Errorf("it is not as before:\n%s", d)
	}
}

// TestReboot starts the host again at every moment: the runtime is that of the boot,
// and what was not confirmed never happened.
func TestReboot(t *testing.T) {
	t.Parallel()
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
		if d := next.settled(p, want, patience); d != "" {
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
// wrote is kept, and named; of our own table as a text.
func TestConflicts(t *testing.T) {
	t.Parallel()
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
	// Its policy would go on dropping after the undo.
	if out := l.ns.Run("nft", "list", "ruleset"); strings.Contains(out, "4444") {
		t.Errorf("our table stays, with their rule: %s", out)
	}
	if b, err := os.ReadFile(filepath.Join(l.state(), pastDir, rs[1].Transaction, "edited-inet-sixfence.nft")); err != nil || !bytes.Contains(b, []byte("4444")) {
		t.Errorf("their rule, as a text: %v %s", err, b)
	}
	_ = p
}
