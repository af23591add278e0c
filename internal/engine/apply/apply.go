// Package apply performs a Plan in two phases, so that no end of it, however sudden,
// leaves a host locked or half changed.
//
// Apply changes the running kernel only: a reboot is an undo that nothing can
// prevent. Before the first change, the whole inverse is in a journal on the disk and
// the undo is armed outside of the session. Confirm, from a connection that did not
// exist before, puts the files in their places. Whatever ends in between, Resume
// finishes: backward before the point of commitment, forward after it.
//
// The undo compares three states of every object (before, ours, now) and touches it
// only when it is as we left it: what somebody else changed meanwhile is kept, and
// named.
package apply

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// StateDir is where everything about changes is kept.
const StateDir = "/var/lib/sixfence/harden"

// Names in the state directory.
const (
	pendingDir  = "pending" // the transaction in flight
	pastDir     = "past"    // those that ended, by their id
	newPrefix   = "new-"    // one that is being written: nothing was changed
	lockFile    = "lock"
	programFile = "sixfence" // our own copy, beside the journal
)

// Engine performs plans on a host.
type Engine struct {
	StateDir string
	Host     *mutate.Host
	// Arm arms the undo outside of this process. Nil: by a systemd timer where systemd
	// runs this namespace, by a detached process elsewhere.
	Arm Armer
	// Prove, if set, has the last word before anything is written. A *RefusedError of it
	// is Apply's own.
	Prove func(context.Context, *change.Plan) error
	// Check answers one of Plan.Checks. Nil: this package's own.
	Check func(ctx context.Context, url string) error
	// BootID of this boot; empty: the kernel's.
	BootID string
	// Boundary is called at every boundary of a step; its error is as if the step had
	// failed. For tests.
	Boundary func(name string) error
	// Log hears what happens; may be nil.
	Log func(msg string, args ...any)
}

// New returns an Engine for this host.
func New(stateDir string, log func(msg string, args ...any)) *Engine {
	return &Engine{StateDir: stateDir, Host: &mutate.Host{Layer: &store.Layer{}}, Log: log}
}

// Options of Apply.
type Options struct {
	Timeout time.Duration // until the undo acts (default 5 minutes)
	Who     Who
	Former  string // of a rollback: the transaction that is taken back
	// Sockets tells the connections of now; nil: the kernel's TCP sockets.
	Sockets func() ([]Socket, error)
	// restores are the objects of a change that brings back what somebody undid, who it was.
	// It confirms itself, and nobody waits for it: no undo is armed.
	restores []string
	why      string
}

// Pending is a transaction that waits for its confirmation.
type Pending struct {
	ID           string       `json:"id"`
	PlanID       string       `json:"planId"`
	IntentHash   string       `json:"intentHash"`
	Phase        string       `json:"phase"`
	Begun        time.Time    `json:"begun"`
	Deadline     time.Time    `json:"deadline"`
	Remaining    int64        `json:"remainingSeconds"`
	Armed        Arming       `json:"armed"`
	Who          Who          `json:"who"`
	Administered []change.Way `json:"administered,omitempty"`
	Proven       []string     `json:"proven,omitempty"` // families over which a new connection came
	Staged       []string     `json:"staged,omitempty"` // files that confirm puts in their places
}

// StaleError says that the host is no longer what the plan was made for.
type StaleError struct{ Objects []string }

// Error implements error.
func (e *StaleError) Error() string {
	return "the host has changed since the plan was made: " + strings.Join(e.Objects, "; ")
}

// RefusedError says why nothing was done, and the way out.
type RefusedError struct{ Why, Hint string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Why }

// RolledBackError says that something was begun and is undone.
type RolledBackError struct {
	Cause   error
	Outcome Outcome
}

// Error implements error.
func (e *RolledBackError) Error() string { return "rolled back: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *RolledBackError) Unwrap() error { return e.Cause }

// Outcome is how a transaction ended.
type Outcome struct {
	ID     string `json:"id"`
	Result string `json:"result"` // confirmed, restored, rolled-back, reverted-by-reboot
	Why    string `json:"why,omitempty"`
	// Conflicts are objects that somebody else changed meanwhile, and that were kept.
	Conflicts []string `json:"conflicts,omitempty"`
	// Lost are objects that the change destroyed and that only the kernel can make.
	Lost []string `json:"lost,omitempty"`
	// Failed are objects that could not be set; the transaction stays open for them.
	Failed []string `json:"failed,omitempty"`
}

func (e *Engine) log(msg string, args ...any) {
	if e.Log != nil {
		e.Log(msg, args...)
	}
}

func (e *Engine) boundary(format string, a ...any) error {
	if e.Boundary == nil {
		return nil
	}
	return e.Boundary(fmt.Sprintf(format, a...))
}

func (e *Engine) layer() *store.Layer {
	if e.Host.Layer == nil {
		e.Host.Layer = &store.Layer{}
	}
	return e.Host.Layer
}

func (e *Engine) stateDir() string {
	if e.StateDir == "" {
		return StateDir
	}
	return e.StateDir
}

// open opens the state directory and takes the lock. Whoever holds it for a moment, as
// the process that waits does, is waited for.
func (e *Engine) open() (*store.Dir, func(), error) {
	d, err := e.layer().OpenPrivate(e.stateDir())
	if err != nil {
		return nil, nil, fmt.Errorf("open state directory: %w", err)
	}
	unlock, err := d.Lock(lockFile, false)
	for end := time.Now().Add(3 * time.Second); errors.Is(err, store.ErrLocked) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		unlock, err = d.Lock(lockFile, false)
	}
	if err != nil {
		d.Close()
		return nil, nil, err
	}
	return d, func() { unlock(); d.Close() }, nil
}

func (e *Engine) bootID() string {
	if e.BootID != "" {
		return e.BootID
	}
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// bootTime is CLOCK_BOOTTIME in milliseconds: it goes on while the host sleeps, and
// nobody can set it.
func bootTime() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano() / 1e6
}

// started is when a process started, in clock ticks, as /proc says it; empty when it
// does not run.
func started(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if f := strings.Fields(rest); len(f) > 19 {
		return f[19]
	}
	return ""
}

// Apply performs the runtime part of a plan and leaves it waiting for Confirm.
func (e *Engine) Apply(ctx context.Context, plan *change.Plan, o Options) (*Pending, error) {
	if err := valid(plan); err != nil {
		return nil, err
	}
	d, unlock, err := e.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := e.resume(d); err != nil {
		return nil, err
	}
	if d.Has(pendingDir) {
		return nil, &RefusedError{Why: "another change waits for its confirmation", Hint: "confirm it with `sixfence harden confirm`, or take it back with `sixfence harden rollback`"}
	}
	if len(plan.Steps) == 0 {
		return nil, &RefusedError{Why: "the plan has no step: the host is as intended"}
	}
	for _, c := range plan.Checks {
		if err := e.check(ctx, c); err != nil {
			return nil, &RefusedError{Why: fmt.Sprintf("the check %s fails before anything is changed: %v", c, err), Hint: "mend it, or take it out of the intent"}
		}
	}
	if e.Prove != nil {
		if err := e.Prove(ctx, plan); err != nil {
			if refused := (*RefusedError)(nil); errors.As(err, &refused) {
				return nil, refused
			}
			return nil, &RefusedError{Why: "the planned state was not proven: " + err.Error()}
		}
	}
	t, err := e.begin(d, plan, o)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if err := e.run(ctx, d, t); err != nil {
		out, uerr := e.undo(d, t, err.Error(), false)
		return nil, &RolledBackError{Cause: errors.Join(err, uerr), Outcome: out}
	}
	return e.describe(t), nil
}

// valid refuses a plan that is not to be performed, whoever made it.
func valid(p *change.Plan) error {
	if len(p.Refusals) > 0 {
		r := p.Refusals[0]
		return &RefusedError{Why: "the plan is refused: " + r.Title, Hint: r.WayOut}
	}
	if p.SchemaVersion != change.Version {
		return &RefusedError{Why: fmt.Sprintf("the plan has schemaVersion %q, this program performs %q", p.SchemaVersion, change.Version), Hint: "make it again with: sixfence harden plan"}
	}
	seen := map[string]bool{}
	for i := range p.Steps {
		s := &p.Steps[i]
		ok := s.Phase == change.AfterConfirm || s.Phase == change.Persist && s.Kind == change.File ||
			s.Phase == change.Runtime && s.Kind != change.File && s.Kind != change.Action && s.Kind != change.Unit
		if !ok {
			return &RefusedError{Why: fmt.Sprintf("step %s: a %s cannot be changed in the phase %s", s.ID, s.Kind, s.Phase)}
		}
		k := string(s.Kind) + " " + s.Target
		if s.Kind != change.Action && seen[k] {
			return &RefusedError{Why: fmt.Sprintf("step %s: %s is changed twice", s.ID, s.Target)}
		}
		seen[k] = true
	}
	return nil
}

// prepare reads what is there now and compares it with what the plan was made for.
func (e *Engine) prepare(p *change.Plan) ([]Entry, error) {
	var stale []string
	out := make([]Entry, len(p.Steps))
	for i, s := range p.Steps {
		var err error
		en := &out[i]
		want, err := e.Host.Want(s.Kind, s.Target, s.Before)
		if err == nil {
			en.Ours, err = e.Host.Want(s.Kind, s.Target, s.After)
		}
		if err == nil {
			en.Before, err = e.Host.State(s.Kind, s.Target)
		}
		if err != nil {
			return nil, fmt.Errorf("prepare %s: %w", s.ID, err)
		}
		if en.Before != want {
			stale = append(stale, fmt.Sprintf("%s is %s, the plan expects %s", s.ID, en.Before, want))
			continue
		}
		switch {
		case s.Kind == change.Sysctl && en.Before != en.Ours:
			if err := e.Host.Reversible(s.Kind, s.Target, en.Before); err != nil {
				return nil, &RefusedError{Why: err.Error()}
			}
			if en.Overwrites, err = e.Host.Overwrites(s.Target); err == nil {
				en.Saved, err = e.Host.Destroys(s.Target, s.After)
			}
			en.SavedAt = bootTime()
		case s.Kind == change.File:
			en.Dirs, err = e.Host.MissingDirs(s.Target)
		}
		if err != nil {
			return nil, fmt.Errorf("prepare %s: %w", s.ID, err)
		}
	}
	if len(stale) > 0 {
		return nil, &StaleError{Objects: stale}
	}
	return out, nil
}

// begin writes the journal and arms the undo. Until it returns nothing is changed.
func (e *Engine) begin(d *store.Dir, p *change.Plan, o Options) (t *transaction, err error) {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Minute
	}
	if o.Sockets == nil {
		o.Sockets = Sockets
	}
	entries, err := e.prepare(p)
	if err != nil {
		return nil, err
	}
	sockets, err := o.Sockets()
	if err != nil {
		return nil, fmt.Errorf("read connections: %w", err)
	}
	var r [6]byte
	if _, err := rand.Read(r[:]); err != nil {
		return nil, fmt.Errorf("name transaction: %w", err)
	}
	now, at := time.Now(), bootTime()
	j := &Journal{
		ID: hex.EncodeToString(r[:]), Plan: *p, Former: o.Former, Who: o.Who, Begun: now.UTC().Truncate(time.Millisecond),
		Deadline: now.Add(o.Timeout).UTC().Truncate(time.Millisecond), BegunAt: at, DeadlineAt: at + o.Timeout.Milliseconds(),
		Boot: e.bootID(), Network: mutate.Namespace(), Entries: entries, PID: os.Getpid(), Started: started(os.Getpid()),
		Restores: o.restores, Why: o.why,
	}
	for _, s := range sockets {
		j.Sockets = append(j.Sockets, s.key())
	}
	name := newPrefix + j.ID
	defer func() {
		if err != nil {
			_ = d.RemoveAll(name)
		}
	}()
	if err := e.boundary("journal"); err != nil {
		return nil, fmt.Errorf("write journal: %w", err)
	}
	if err := e.write(d, name, j); err != nil {
		return nil, err
	}
	if j.Restores != nil {
		// Its end is what is worth a record.
	} else if err := e.record(d, Record{Event: "armed", Transaction: j.ID, PlanID: p.ID, IntentHash: p.IntentHash, Who: j.Who}); err != nil {
		return nil, err
	}
	if err := d.Move(name, pendingDir); err != nil {
		return nil, fmt.Errorf("begin transaction: %w", err)
	}
	if err := d.Sync(); err != nil {
		return nil, err
	}
	// From here on there is a transaction: what goes wrong is undone as one.
	if t, err = openTransaction(d); err != nil {
		return nil, err
	}
	if err = e.boundary("arm"); err == nil && j.Restores == nil {
		err = e.arm(t)
	}
	if err == nil {
		return t, nil
	}
	out, uerr := e.undo(d, t, err.Error(), false)
	t.close()
	return nil, &RolledBackError{Cause: errors.Join(err, uerr), Outcome: out}
}

// write makes the directory of a transaction: the journal twice, our own program, and
// the phases to come. It reads the journal again before it believes in it.
func (e *Engine) write(d *store.Dir, name string, j *Journal) error {
	b, err := encodeJournal(j)
	if err != nil {
		return err
	}
	n, err := d.Mkdir(name)
	if err != nil {
		return err
	}
	defer n.Close()
	for _, f := range []string{"journal", "journal.copy"} {
		if err := n.Write(f, b, store.Attr{}); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
	for _, p := range append([]phase{unseen}, phases...) {
		if err := n.Write("next-"+string(p), []byte(string(p)+"\n"), store.Attr{}); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
	if j.Restores == nil {
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			return fmt.Errorf("copy program: %w", err)
		}
		defer self.Close()
		if err := n.Copy(programFile, self, false); err != nil {
			return err
		}
	}
	// systemd may start a program from /usr/bin, not one that is labelled as data.
	label, err := e.Host.Label("/usr/bin/sixfence")
	if err == nil && label != "" {
		err = n.Relabel(programFile, label)
	}
	if err != nil {
		return err
	}
	if err := n.Sync(); err != nil {
		return err
	}
	for _, f := range []string{"journal", "journal.copy"} {
		got, _, err := n.Read(f, maxJournal)
		if err != nil {
			return err
		}
		back, err := decodeJournal(f, got)
		if err != nil {
			return err
		}
		if again, err := encodeJournal(back); err != nil || string(again) != string(b) {
			return &CorruptError{Name: f, Why: "it reads otherwise than it was written"}
		}
	}
	return nil
}

// run performs the runtime steps.
func (e *Engine) run(ctx context.Context, d *store.Dir, t *transaction) error {
	if err := t.enter(applying); err != nil {
		return err
	}
	for i, s := range t.j.Plan.Steps {
		if s.Phase != change.Runtime {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if bootTime() >= t.j.DeadlineAt {
			return errors.New("the time was up before all was applied")
		}
		if err := e.boundary("step %d before", i); err != nil {
			return fmt.Errorf("perform %s: %w", s.ID, err)
		}
		if err := e.perform(t, i, s); err != nil {
			return fmt.Errorf("perform %s: %w", s.ID, err)
		}
		if err := e.boundary("step %d after", i); err != nil {
			return fmt.Errorf("perform %s: %w", s.ID, err)
		}
	}
	if err := e.verify(t, true); err != nil {
		return err
	}
	for _, c := range t.j.Plan.Checks {
		if err := e.check(ctx, c); err != nil {
			return fmt.Errorf("check %s: %w", c, err)
		}
	}
	if err := e.boundary("wait"); err != nil {
		return err
	}
	return t.enter(waiting)
}

func (e *Engine) perform(t *transaction, i int, s change.Step) error {
	en := t.j.Entries[i]
	now, err := e.Host.State(s.Kind, s.Target)
	if err != nil {
		return err
	}
	if now != en.Before {
		return &mutate.ConflictError{Target: s.Target, Now: now}
	}
	if now == en.Ours && len(s.Restores) == 0 {
		return nil
	}
	// What it takes away is read once more: addresses come and go.
	fresh := Entry{SavedAt: bootTime()}
	var watch *mutate.Watch
	if s.Kind == change.Sysctl {
		watch = e.Host.Watch(s.Target, s.After)
		defer watch.Close()
		if fresh.Overwrites, err = e.Host.Overwrites(s.Target); err != nil {
			return err
		}
		if fresh.Saved, err = e.Host.Destroys(s.Target, s.After); err != nil {
			return err
		}
	}
	if err := t.note(note{What: "begin", Step: i, Entry: &fresh}); err != nil {
		return err
	}
	if err := e.boundary("step %d noted", i); err != nil {
		return err
	}
	if now != en.Ours {
		after := s.After
		if s.Kind == change.Table {
			if after, err = seeded(after); err != nil {
				return err
			}
		}
		// Writing the note took a while. What went meanwhile went by somebody else's hand.
		fresh.Saved = watch.Fresh(fresh.Saved)
		if err := e.Host.Set(s.Kind, s.Target, after); err != nil {
			return err
		}
	}
	if err := e.boundary("step %d set", i); err != nil {
		return err
	}
	if err := e.keepOverwritten(t, i, s, fresh.Overwrites); err != nil {
		return err
	}
	// And what came after that, and went with it all the same.
	fresh.Saved = watch.Add(fresh.Saved)
	over := fresh.Overwrites
	for k := range over {
		if over[k].Ours, err = e.Host.State(change.Sysctl, over[k].Target); err != nil && !mutate.Gone(err) {
			return err
		}
	}
	if err := t.note(note{What: "done", Step: i, Over: over, Entry: &fresh}); err != nil {
		return err
	}
	for _, o := range s.Restores {
		if o.Kind == change.Sysctl {
			continue // it is done
		}
		err := e.Host.Restore(o, 0)
		if errors.As(err, new(*mutate.ConflictError)) || errors.As(err, new(*mutate.LostError)) || mutate.Gone(err) {
			e.log("not made again", "object", o.Target, "cause", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	if now, err = e.Host.State(s.Kind, s.Target); err != nil {
		return err
	}
	if now != en.Ours {
		return fmt.Errorf("it is %s afterwards, not %s", now, en.Ours)
	}
	return nil
}

// keepOverwritten gives the other sysctls back what a step of a rollback has just
// overwritten: what each was before the change that is taken back, or, if somebody has
// set it since, what they set.
func (e *Engine) keepOverwritten(t *transaction, i int, s change.Step, over []mutate.Value) error {
	if t.j.Former == "" {
		return nil
	}
	former := map[string]change.Object{}
	for _, o := range s.Restores {
		if o.Kind == change.Sysctl && len(o.Attributes) == 2 {
			former[o.Target] = o
		}
	}
	for _, v := range over {
		want := v.Before
		if o, ok := former[v.Target]; ok && want == o.Attributes[1] {
			want = o.Attributes[0]
		} else if !ok && want == t.j.Entries[i].Before {
			continue // of an interface that came later, and was given what all were
		}
		now, err := e.Host.State(change.Sysctl, v.Target)
		if err == nil && now != want {
			err = e.Host.Set(change.Sysctl, v.Target, change.Image{Text: mutate.Text(want)})
		}
		if err != nil && !mutate.Gone(err) {
			return err
		}
	}
	return nil
}

// verify reads every object of a phase again.
func (e *Engine) verify(t *transaction, runtime bool) error {
	var bad []string
	for i, s := range t.j.Plan.Steps {
		if s.Kind == change.Action || (s.Phase == change.Runtime) != runtime {
			continue
		}
		want := t.j.Entries[i].Ours
		if !runtime {
			want = t.j.Entries[i].Before
		}
		now, err := e.Host.State(s.Kind, s.Target)
		if err != nil {
			return fmt.Errorf("read %s: %w", s.ID, err)
		}
		if now != want {
			bad = append(bad, fmt.Sprintf("%s is %s, not %s", s.ID, now, want))
		}
	}
	if len(bad) > 0 {
		return &StaleError{Objects: bad}
	}
	return nil
}
