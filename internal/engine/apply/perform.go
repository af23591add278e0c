package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// run performs the runtime steps.
func (e *Engine) run(ctx context.Context, d *store.Dir, t *transaction) error {
	if err := t.enter(applying); err != nil {
		return err
	}
	again := false // what a former change destroyed is made again, once IPv6 is on everywhere
	for i, s := range t.j.Plan.Steps {
		if s.Phase != change.Runtime {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if rank(s) == 3 && !again {
			again = true
			if err := e.makeAgain(t); err != nil {
				return err
			}
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
	if !again {
		if err := e.makeAgain(t); err != nil {
			return err
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
	if t.j.Restores == nil {
		if err := t.noteSockets(); err != nil {
			return err
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
	if now, err = e.Host.State(s.Kind, s.Target); err != nil {
		return err
	}
	if now != en.Ours {
		return fmt.Errorf("it is %s afterwards, not %s", now, en.Ours)
	}
	return nil
}

// makeAgain restores what the steps of a rollback bring back: addresses first, of every
// interface, since a route may have its source on one and its next hops on others.
func (e *Engine) makeAgain(t *transaction) error {
	return inOrder(func(fits func(change.Object) bool) error {
		for _, s := range t.j.Plan.Steps {
			for _, o := range s.Restores {
				if !fits(o) {
					continue
				}
				err := e.Host.Restore(o, 0)
				if errors.As(err, new(*mutate.ConflictError)) || errors.As(err, new(*mutate.LostError)) || mutate.Gone(err) {
					e.log("not made again", "object", o.Target, "cause", err)
					continue
				}
				if err != nil {
					return fmt.Errorf("make %s again: %w", o.Target, err)
				}
			}
		}
		return nil
	})
}

// inOrder calls f for each sort of object that is made again, in the order in which they
// need each other: addresses, neighbours, routes without a gateway, routes with one.
func inOrder(f func(fits func(change.Object) bool) error) error {
	for _, k := range []change.Kind{change.AddressObj, change.Neighbour} {
		if err := f(func(o change.Object) bool { return o.Kind == k }); err != nil {
			return err
		}
	}
	for _, gateway := range []bool{false, true} {
		if err := f(func(o change.Object) bool {
			return o.Kind == change.RouteObj && strings.Contains(o.Target, " via ") == gateway
		}); err != nil {
			return err
		}
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
