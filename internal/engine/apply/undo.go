package apply

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// undo takes a transaction back. It may be repeated, and goes on where it was
// interrupted. unattended says that nobody sees the outcome now, so that Status shows
// it until somebody has.
func (e *Engine) undo(d *store.Dir, t *transaction, why string, unattended bool) (Outcome, error) {
	out := Outcome{ID: t.j.ID, Result: "rolled-back", Why: why}
	was := t.phase()
	if was == committed || was == done {
		unattended = true
	}
	if was != undone {
		ears := mutate.Listen() // from now on the process that waits may be gone
		defer ears.Close()
		if err := t.enter(aborting); err != nil {
			return out, err
		}
		if unattended && t.j.Restores == nil && t.dir.Has("next-"+unseen) {
			if err := t.dir.Rename("next-"+unseen, "is-"+unseen); err != nil {
				return out, fmt.Errorf("note the undo: %w", err)
			}
		}
		if err := e.undoFiles(t, &out); err != nil {
			return out, err
		}
		if e.restarted(t) {
			out.Result = "reverted-by-reboot" // the kernel of then is gone, and with it all that we changed in it
			if t.dir.Has("is-" + string(committed)) {
				e.undoBoot(t, &out)
			}
		} else {
			e.undoKernel(t, ears, &out)
		}
		if len(out.Failed) > 0 {
			return out, fmt.Errorf("undo: %s", strings.Join(out.Failed, "; "))
		}
		if err := e.boundary("undone"); err != nil {
			return out, err
		}
		if err := t.enter(undone); err != nil {
			return out, err
		}
	}
	return out, e.finish(d, t, out)
}

// rank is when an object is undone: what may lock somebody out first, what a change
// back would take away again last.
func rank(s change.Step) int {
	w := strings.Split(s.Target, "/")
	switch key := w[len(w)-1]; {
	case s.Kind == change.Table:
		return 0
	case s.Kind == change.Sysctl && (key == "forwarding" || key == "ip_forward" || strings.HasPrefix(key, "accept_ra")):
		return 3
	case s.Kind != change.Sysctl:
		return 2 // what a later step of ours destroyed is there again by then
	}
	return 1
}

func (e *Engine) undoKernel(t *transaction, ears *mutate.Ears, out *Outcome) {
	fail := func(s change.Step, err error) {
		if mutate.Gone(err) {
			out.Conflicts = append(out.Conflicts, s.ID+": what it hung on is gone")
			return
		}
		out.Failed = append(out.Failed, fmt.Sprintf("%s: %v", s.ID, err))
	}
	links, err := mutate.Links()
	if err != nil {
		out.Failed = append(out.Failed, err.Error())
		return
	}
	t.follow(links)
	for r := range 4 {
		for i := len(t.j.Plan.Steps) - 1; i >= 0; i-- {
			s := t.j.Plan.Steps[i]
			if s.Phase != change.Runtime || rank(s) != r || !t.p.begun[i] && !t.p.damaged {
				continue
			}
			if err := e.boundary("undo %d", i); err != nil {
				fail(s, err)
				continue
			}
			if err := e.undoStep(t, i, s, out); err != nil {
				fail(s, err)
			}
		}
		if r == 1 {
			e.restore(t, ears, out)
		}
	}
}

// undoBoot takes back what a boot read from files that had been promoted when their
// promotion was given up.
func (e *Engine) undoBoot(t *transaction, out *Outcome) {
	for i := len(t.j.Plan.Steps) - 1; i >= 0; i-- {
		s, en := t.j.Plan.Steps[i], t.j.Entries[i]
		if s.Phase != change.Runtime || en.Ours == en.Before {
			continue
		}
		now, err := e.Host.State(s.Kind, s.Target)
		if err == nil && now == en.Ours {
			err = e.Host.Set(s.Kind, s.Target, s.Before)
		}
		if err != nil && !mutate.Gone(err) {
			out.Failed = append(out.Failed, fmt.Sprintf("%s: %v", s.ID, err))
		}
	}
}

func (e *Engine) undoStep(t *transaction, i int, s change.Step, out *Outcome) error {
	en := t.j.Entries[i]
	now, err := e.Host.State(s.Kind, s.Target)
	if err != nil {
		return err
	}
	switch {
	case s.Kind == change.Table && en.Before != en.Ours && t.j.Restores == nil && now != en.Ours && (now != en.Before && now != mutate.Absent || t.dir.Has(editedTable(s))):
		return e.undoEdited(t, i, s, now, out)
	case en.Before == en.Ours || now == en.Before:
	case now != en.Ours:
		out.Conflicts = append(out.Conflicts, fmt.Sprintf("%s: somebody else made it %s meanwhile, which is kept", s.ID, now))
	default:
		// Setting conf/all back overwrites every interface once more, so that what somebody
		// else made of one has to be looked at before.
		n := note{What: "undo", Step: i}
		if n.Over, err = e.Host.Overwrites(s.Target); err != nil && s.Kind == change.Sysctl {
			return err
		}
		if err := t.note(n); err != nil {
			// A full disk must not keep us from going back: without the note, only an undo
			// that is interrupted as well could miss what is restored below.
			t.p.take(n)
		}
		if err := e.putBack(s, en.Before); err != nil {
			return err
		}
	}
	if err := e.undoDefault(t, i, s); err != nil {
		return err
	}
	return e.undoOverwritten(t, i, out)
}

// putBack makes an object what it was before the change, and looks whether it is.
func (e *Engine) putBack(s change.Step, was string) error {
	if err := e.Host.Set(s.Kind, s.Target, s.Before); err != nil {
		return err
	}
	now, err := e.Host.State(s.Kind, s.Target)
	if err == nil && now != was {
		err = fmt.Errorf("it is %s after the undo, not %s", now, was)
	}
	return err
}

// editedTable is the file of a transaction that keeps what others made of our table.
func editedTable(s change.Step) string {
	return "edited-" + strings.ReplaceAll(s.Target, " ", "-") + ".nft"
}

// undoEdited takes back a table of ours that somebody else has edited. It is the one object
// that is not left to them: what it drops would outlive the undo, and lock out who waits
// for it. What they made of it is kept as a text beside the journal.
func (e *Engine) undoEdited(t *transaction, i int, s change.Step, now string, out *Outcome) error {
	name, was := editedTable(s), t.j.Entries[i].Before
	kept := "their text is in " + filepath.Join(filepath.Dir(t.dir.Path()), pastDir, t.j.ID, name)
	if now != was {
		text, err := e.Host.TableText(s.Target)
		if err == nil {
			err = t.dir.Replace(name, []byte(text), store.Attr{})
		}
		if err != nil { // neither a full disk nor a missing nft may keep the way closed
			kept = "their text could not be kept: " + err.Error()
		}
		if err := e.putBack(s, was); err != nil {
			return err
		}
	}
	out.Conflicts = append(out.Conflicts, fmt.Sprintf("%s: somebody else edited it meanwhile; it is as before the change, and %s", s.ID, kept))
	return nil
}

// follow finds the interfaces that have got another name since: what was changed of them
// is where they are now.
func (t *transaction) follow(links map[uint32]string) {
	to := map[string]string{}
	for i, was := range t.j.Links {
		if now, ok := links[i]; ok && now != was {
			to[was] = now
		}
	}
	if len(to) == 0 {
		return
	}
	for i := range t.j.Plan.Steps {
		s := &t.j.Plan.Steps[i]
		s.Target = mutate.Renamed(s.Kind, s.Target, to)
	}
	values := func(vs []mutate.Value) {
		for i := range vs {
			vs[i].Target = mutate.Renamed(change.Sysctl, vs[i].Target, to)
		}
	}
	objects := func(en Entry) {
		values(en.Overwrites)
		for i := range en.Saved {
			o := &en.Saved[i]
			o.Target = mutate.Renamed(o.Kind, o.Target, to)
			if n, ok := to[o.Interface]; ok {
				o.Interface = n
			}
		}
	}
	for i := range t.j.Entries {
		objects(t.j.Entries[i])
	}
	for _, en := range t.p.saved {
		objects(en)
	}
	for _, vs := range t.p.over {
		values(vs)
	}
	for _, vs := range t.p.left {
		values(vs)
	}
}

// undoDefault gives interfaces that came after the change what they would have been given
// without it: they took our conf/default when they were made.
func (e *Engine) undoDefault(t *transaction, i int, s change.Step) error {
	en := t.j.Entries[i]
	if mutate.InterfaceOf(s.Target) != "default" || en.Before == en.Ours || t.j.Links == nil {
		return nil
	}
	links, err := mutate.Links()
	if err != nil {
		return fmt.Errorf("read interfaces: %w", err)
	}
	var errs []error
	for n, name := range links {
		if _, old := t.j.Links[n]; old {
			continue
		}
		target := mutate.Renamed(change.Sysctl, s.Target, map[string]string{"default": name})
		now, err := e.Host.State(change.Sysctl, target)
		if err == nil && now == en.Ours {
			err = e.Host.Set(change.Sysctl, target, s.Before)
		}
		if err != nil && !mutate.Gone(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// undoOverwritten restores what the step wrote besides.
func (e *Engine) undoOverwritten(t *transaction, i int, out *Outcome) error {
	if !t.p.done[i] && !t.p.undoing[i] {
		return nil // it was not performed
	}
	over := slices.Clone(t.p.over[i])
	if over == nil {
		over = slices.Clone(t.p.saved[i].Overwrites)
	}
	left := map[string]string{} // right before conf/all was set back
	for _, v := range t.p.left[i] {
		left[v.Target] = v.Before
		if !slices.ContainsFunc(over, func(o mutate.Value) bool { return o.Target == v.Target }) && v.Before != t.j.Entries[i].Ours {
			// An interface that came since, to which somebody has given a value of its own.
			over = append(over, mutate.Value{Target: v.Target, Before: v.Before})
		}
	}
	var errs []error
	for _, v := range over {
		now, err := e.Host.State(change.Sysctl, v.Target)
		if mutate.Gone(err) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		want := v.Before
		was, known := left[v.Target]
		if !known {
			was = now
		}
		if v.Ours != "" && was != v.Ours && was != v.Before && (known || was != t.j.Entries[i].Before) {
			want = was
			out.Conflicts = append(out.Conflicts, fmt.Sprintf("%s: somebody else made it %s meanwhile, which is kept", v.Target, was))
		}
		if now == want {
			continue
		}
		if err := e.Host.Set(change.Sysctl, v.Target, change.Image{Text: mutate.Text(want)}); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// restore makes again what steps destroyed: addresses first, then neighbours, then
// routes, of which those without a gateway come before those that need them.
func (e *Engine) restore(t *transaction, ears *mutate.Ears, out *Outcome) {
	_ = inOrder(func(fits func(change.Object) bool) error {
		for i, s := range t.j.Plan.Steps {
			if s.Phase != change.Runtime || !t.p.done[i] && !t.p.undoing[i] {
				continue
			}
			en, ok := t.p.saved[i]
			if !ok {
				en = t.j.Entries[i]
			}
			elapsed := uint32(max(0, bootTime()-en.SavedAt) / 1000)
			for _, o := range en.Saved {
				if fits(o) {
					e.restoreOne(t, i, o, elapsed, ears, out)
				}
			}
		}
		return nil
	})
}

// restoreOne makes one object again.
func (e *Engine) restoreOne(t *transaction, i int, o change.Object, elapsed uint32, ears *mutate.Ears, out *Outcome) {
	// An undo that is repeated restores nothing twice: somebody may have deleted it since.
	name := string(o.Kind) + " " + o.Target
	if t.p.restored[restoredKey(i, name)] {
		return
	}
	if mutate.Temporary(o) {
		out.Lost = append(out.Lost, o.Target+" was a temporary address; the kernel makes another one, now or with the next Router Advertisement")
		return
	}
	var err error
	t.touch(ears.Heard())
	switch {
	case t.p.touched[mutate.Place(o)]:
		err = &mutate.ConflictError{Target: name}
	case mutate.Elsewhere(o):
		err = &mutate.ConflictError{Target: o.Target + " (another interface has its name)"}
	default:
		err = e.Host.Restore(o, elapsed)
	}
	switch {
	case err == nil:
		if n := (note{What: "restored", Step: i, Object: name}); t.note(n) != nil {
			t.p.take(n)
		}
	case errors.As(err, new(*mutate.ConflictError)), errors.As(err, new(*mutate.LostError)):
		out.Conflicts = append(out.Conflicts, err.Error())
	case mutate.Gone(err):
		out.Conflicts = append(out.Conflicts, o.Target+": its interface is gone")
	default:
		out.Failed = append(out.Failed, fmt.Sprintf("%s: %v", t.j.Plan.Steps[i].ID, err))
	}
}

// undoFiles puts the files back that were promoted, and removes what was staged. A
// transaction that was never committed has none.
func (e *Engine) undoFiles(t *transaction, out *Outcome) error {
	var errs []error
	for i := len(t.j.Plan.Steps) - 1; i >= 0; i-- {
		s, en := t.j.Plan.Steps[i], t.j.Entries[i]
		if s.Phase == change.AfterConfirm && s.Kind == change.Unit && t.dir.Has("is-"+string(committed)) {
			if now, err := e.Host.State(s.Kind, s.Target); err == nil && now == en.Ours && now != en.Before {
				errs = append(errs, e.Host.Set(s.Kind, s.Target, s.Before))
			}
		}
		if s.Phase == change.Runtime || s.Kind != change.File {
			continue
		}
		if err := e.boundary("demote %d", i); err != nil {
			errs = append(errs, err)
			continue
		}
		if t.dir.Has("is-" + string(committed)) {
			err := e.Host.Demote(s.Target, t.j.ID, en.Before, en.Ours)
			if c := (*mutate.ConflictError)(nil); errors.As(err, &c) {
				out.Conflicts = append(out.Conflicts, err.Error())
				err = nil
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, e.Host.Forget(s.Target, t.j.ID))
		e.Host.RemoveDirs(en.Dirs)
	}
	return errors.Join(errs...)
}

// finish writes the end of a transaction into the history, puts it away and takes
// the alarm off.
func (e *Engine) finish(d *store.Dir, t *transaction, out Outcome) error {
	if err := e.boundary("finish"); err != nil {
		return err
	}
	if err := e.record(d, Record{Event: out.Result, Transaction: t.j.ID, PlanID: t.j.Plan.ID, IntentHash: t.j.Plan.IntentHash, Who: t.j.Who, Why: out.Why, Conflicts: out.Conflicts, Lost: out.Lost, Failed: out.Failed, Proof: t.proof(), Former: t.j.Former, Objects: t.j.Restores}); err != nil {
		return err
	}
	if t.phase() == done {
		for i, s := range t.j.Plan.Steps {
			if s.Kind == change.File && s.Phase != change.Runtime {
				if err := e.Host.Forget(s.Target, t.j.ID); err != nil {
					return fmt.Errorf("clean up after step %d: %w", i, err)
				}
			}
		}
	}
	if err := e.unhookBoot(); err != nil {
		return err
	}
	if t.j.Restores != nil {
		// What it set is in the change that it restored: there is nothing to take back later.
		if err := d.Move(pendingDir, newPrefix+t.j.ID); err != nil {
			return fmt.Errorf("put transaction away: %w", err)
		}
		if err := errors.Join(d.Sync(), d.RemoveAll(newPrefix+t.j.ID)); err != nil {
			return err
		}
		e.log("restored", "objects", strings.Join(t.j.Restores, " "), "undone by", out.Why, "result", out.Result)
		return nil
	}
	past, err := d.Sub(pastDir)
	if err != nil {
		if past, err = d.Mkdir(pastDir); err != nil {
			return err
		}
		if err := d.Sync(); err != nil {
			past.Close()
			return err
		}
	}
	defer past.Close()
	if t.phase() == done && t.j.Former != "" {
		e.removeFormerDirs(past, t.j.Former)
	}
	arming := t.arming()
	if err := d.MoveTo(pendingDir, past, t.j.ID); err != nil {
		return fmt.Errorf("put transaction away: %w", err)
	}
	if err := errors.Join(past.Sync(), d.Sync()); err != nil {
		return err
	}
	_ = t.dir.Remove(programFile) // a process that runs from it keeps it
	e.disarm(arming)
	e.log("change ended", "id", t.j.ID, "result", out.Result, "why", out.Why, "conflicts", len(out.Conflicts))
	return nil
}

// removeFormerDirs removes the directories that a change made which has been taken back,
// unless somebody else uses them by now.
func (e *Engine) removeFormerDirs(past *store.Dir, id string) {
	p, err := past.Sub(id)
	if err != nil {
		return
	}
	defer p.Close()
	j, err := readJournal(p)
	if err != nil {
		return
	}
	for _, en := range j.Entries {
		e.Host.RemoveDirs(en.Dirs)
	}
}

// resume finishes what an earlier run left. It holds the lock. The outcome is nil
// when there was nothing to finish.
func (e *Engine) resume(d *store.Dir) (*Outcome, error) {
	names, err := d.List()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if strings.HasPrefix(n, newPrefix) { // died before its transaction began: nothing was changed
			if err := d.RemoveAll(n); err != nil {
				return nil, err
			}
		}
	}
	t, err := openTransaction(d)
	if c := (*CorruptError)(nil); errors.As(err, &c) {
		return nil, e.quarantine(d, c)
	}
	if err != nil || t == nil {
		return nil, err
	}
	defer t.close()
	var out Outcome
	same := !e.restarted(t)
	if same && t.j.Network != mutate.Namespace() {
		return nil, &RefusedError{Why: "the change that is under way belongs to another network namespace (" + t.j.Network + ")", Hint: "use the command there, or another --state-dir here"}
	}
	switch p := t.phase(); {
	case p == done:
		out = Outcome{ID: t.j.ID, Result: t.kept(), Why: t.j.Why}
		return outcomeOf(t, &out), e.finish(d, t, out)
	case p == undone:
		out = Outcome{ID: t.j.ID, Result: "rolled-back"}
		return outcomeOf(t, &out), e.finish(d, t, out)
	case p == committed:
		out, err = e.forward(d, t)
		return outcomeOf(t, &out), err
	case !same:
		out, err = e.undo(d, t, "the host was started again before the change was confirmed", true)
	case p == waiting && t.j.Restores != nil: // it confirms itself, and died before
		if err := t.enter(committed); err != nil {
			return nil, err
		}
		out, err = e.forward(d, t)
	case p == waiting && bootTime() < t.j.DeadlineAt:
		return nil, nil
	case p == waiting:
		out, err = e.undo(d, t, "nobody confirmed it in time", true)
	default:
		out, err = e.undo(d, t, "the run that applied it ended too early", true)
	}
	return outcomeOf(t, &out), err
}

// outcomeOf is what there is to tell of a transaction that was finished: of one that only
// restored, nothing to whoever asks about changes.
func outcomeOf(t *transaction, out *Outcome) *Outcome {
	if t.j.Restores != nil {
		return nil
	}
	return out
}

// quarantine puts a transaction aside that cannot be read. What it changed in the
// running kernel cannot be told any more; a reboot takes it away, since no file was
// promoted, or the last confirmed state is on the disk.
func (e *Engine) quarantine(d *store.Dir, c *CorruptError) error {
	if c.Hint != "" {
		return c // a newer one: it is good, and not ours to touch
	}
	p, err := d.Sub(pendingDir)
	if err != nil {
		return err
	}
	id := "corrupt"
	for n := 1; d.Has(id); n++ {
		id = fmt.Sprintf("corrupt-%d", n)
	}
	p.Close()
	if err := d.Move(pendingDir, id); err != nil {
		return errors.Join(c, err)
	}
	_ = d.Sync()
	if err := e.record(d, Record{Event: "corrupt", Why: c.Error()}); err != nil {
		return errors.Join(c, err)
	}
	c.Hint = "the damaged journal is kept as " + d.Path() + "/" + id + "; no file of the system was changed by an unconfirmed change: a reboot brings the last confirmed state"
	return c
}
