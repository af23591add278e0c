package apply

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
)

// Former makes the plan that takes a kept change back: the same steps, the other way
// round. Without an id it is the last one. It is applied and confirmed as any other.
func (e *Engine) Former(id string) (*change.Plan, string, error) {
	d, err := e.layer().Open(e.stateDir())
	if errors.Is(err, unix.ENOENT) {
		return nil, "", ErrNothing
	}
	if err != nil {
		return nil, "", fmt.Errorf("open state directory: %w", err)
	}
	defer d.Close()
	rs, _, _, err := readHistory(d)
	if err != nil {
		return nil, "", err
	}
	back := map[string]bool{} // taken back already
	for i := len(rs) - 1; i >= 0 && id == ""; i-- {
		r := rs[i]
		if r.Event != "confirmed" || back[r.Transaction] {
			continue
		}
		if r.Former != "" {
			back[r.Former] = true
			continue
		}
		id = r.Transaction
	}
	if id == "" {
		return nil, "", ErrNothing
	}
	past, err := d.Sub(pastDir)
	if err != nil {
		return nil, "", err
	}
	defer past.Close()
	p, err := past.Sub(id)
	if err != nil {
		return nil, "", fmt.Errorf("find change %s: %w", id, err)
	}
	defer p.Close()
	t := &transaction{dir: p}
	if t.j, err = readJournal(p); err != nil {
		return nil, "", err
	}
	if t.phase() != done {
		return nil, "", &RefusedError{Why: "change " + id + " was never kept: there is nothing to take back"}
	}
	if later, err := laterThan(past, rs, t.j); err != nil || later != "" {
		if err == nil {
			err = &RefusedError{Why: "change " + later + ", which is in force, came after change " + id + " and has the same objects", Hint: "take that one back first: sudo sixfence harden rollback --change " + later}
		}
		return nil, "", err
	}
	t.readProgress()
	return inverse(t), id, nil
}

// laterThan is a kept change after this one that set one of its objects, if it was not
// taken back since.
func laterThan(past *store.Dir, rs []Record, j *Journal) (string, error) {
	at := slices.IndexFunc(rs, func(r Record) bool { return r.Event == "confirmed" && r.Transaction == j.ID })
	var later []Record
	for _, r := range rs[at+1:] {
		switch {
		case r.Event != "confirmed":
		case r.Former != "":
			later = slices.DeleteFunc(later, func(l Record) bool { return l.Transaction == r.Former })
		default:
			later = append(later, r)
		}
	}
	for _, r := range slices.Backward(later) {
		p, err := past.Sub(r.Transaction)
		if err != nil {
			return "", fmt.Errorf("find change %s: %w", r.Transaction, err)
		}
		x, err := readJournal(p)
		p.Close()
		if err != nil {
			return "", err
		}
		for _, s := range x.Plan.Steps {
			if s.Kind != change.Action && slices.ContainsFunc(j.Plan.Steps, func(t change.Step) bool { return t.Kind == s.Kind && t.Target == s.Target }) {
				return r.Transaction, nil
			}
		}
	}
	return "", nil
}

// sinceChanged is the Risk of a rollback that names what it leaves alone.
const sinceChanged = "changed-since"

// reconcile makes the plan of a rollback fit the host of today: weeks have passed since
// the change. What somebody else has changed since is theirs and is left alone, and so is
// what hung on an interface that is gone; both are named. Out of a file of theirs in which
// our lines stand, our lines are taken.
func (e *Engine) reconcile(d *store.Dir, p *change.Plan, former string) error {
	past, err := d.Sub(pastDir)
	if err != nil {
		return fmt.Errorf("find change %s: %w", former, err)
	}
	defer past.Close()
	dir, err := past.Sub(former)
	if err != nil {
		return fmt.Errorf("find change %s: %w", former, err)
	}
	defer dir.Close()
	j, err := readJournal(dir)
	if err != nil {
		return err
	}
	var steps []change.Step
	var left []string
	for _, s := range p.Steps {
		was, err := e.Host.Want(s.Kind, s.Target, s.Before)
		var back, now string
		if err == nil {
			back, err = e.Host.Want(s.Kind, s.Target, s.After)
		}
		if err == nil {
			now, err = e.Host.State(s.Kind, s.Target)
		}
		switch {
		case mutate.Gone(err):
			left = append(left, s.ID+": what it hung on is gone")
			continue
		case err != nil:
			return fmt.Errorf("prepare %s: %w", s.ID, err)
		case now == was:
		case now == back:
			s.Before = s.After // somebody did it already; what it destroyed may be missing still
		default:
			ours := false
			if s.Kind == change.File {
				if s, ours, err = e.unmarked(s); err != nil {
					return fmt.Errorf("prepare %s: %w", s.ID, err)
				}
			}
			if !ours {
				left = append(left, fmt.Sprintf("%s: somebody else made it %s since, which is kept", s.ID, now))
				continue
			}
		}
		steps = append(steps, s)
	}
	later, err := e.laterInterfaces(steps, j.Links)
	if err != nil {
		return err
	}
	steps = append(steps, later...)
	slices.SortStableFunc(steps, func(a, b change.Step) int { return rank(a) - rank(b) })
	if len(steps) == 0 && len(p.Steps) > 0 {
		return &RefusedError{Why: "nothing of it is as the change left it: there is nothing to take back"}
	}
	p.Steps = steps
	if len(left) > 0 {
		p.Risks = append(p.Risks, change.Risk{ID: sinceChanged, Severity: "medium", Title: "Somebody else has changed it since: it is left alone", Evidence: left})
	}
	p.ID = p.Sum()
	return nil
}

// laterInterfaces are steps for the interfaces that came after the change and took its
// conf/default, or its file, for their own.
func (e *Engine) laterInterfaces(steps []change.Step, then map[uint32]string) ([]change.Step, error) {
	links, err := mutate.Links()
	if err != nil {
		return nil, fmt.Errorf("read interfaces: %w", err)
	}
	var names []string
	for _, n := range links {
		if !slices.Contains(slices.Collect(maps.Values(then)), n) && then != nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var out []change.Step
	for _, s := range steps {
		if s.Kind != change.Sysctl || mutate.InterfaceOf(s.Target) != "default" || s.Before == s.After {
			continue
		}
		for _, name := range names {
			x := s
			x.Target = mutate.Renamed(s.Kind, s.Target, map[string]string{"default": name})
			x.ID, x.Restores = "sysctl:"+x.Target, nil
			if slices.ContainsFunc(steps, func(t change.Step) bool { return t.Kind == x.Kind && t.Target == x.Target }) {
				continue
			}
			now, err := e.Host.State(x.Kind, x.Target)
			if mutate.Gone(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("prepare %s: %w", x.ID, err)
			}
			if want, err := e.Host.Want(x.Kind, x.Target, x.Before); err == nil && now == want {
				out = append(out, x)
			}
		}
	}
	return out, nil
}

// unmarked is a step that takes our lines out of a file, and leaves what others wrote
// around them since. ours tells whether they were in it, and all that was ours.
func (e *Engine) unmarked(s change.Step) (_ change.Step, ours bool, err error) {
	if _, had, err := plan.Unmark(s.Before.Text); err != nil || !had {
		return s, false, nil
	}
	if _, had, _ := plan.Unmark(s.After.Text); had {
		return s, false, nil // the lines of an intent before: where they would stand now nobody knows
	}
	now, err := e.Host.Image(s.Target)
	if err != nil || now.Absent {
		return s, false, err
	}
	text, had, err := plan.Unmark(now.Text)
	if err != nil || !had {
		return s, false, nil
	}
	s.Before, s.After = now, now
	s.After.Text = text
	return s, true, nil
}

// leftAlone are the objects that a rollback left to others.
func leftAlone(p *change.Plan) []string {
	for _, r := range p.Risks {
		if r.ID == sinceChanged {
			return r.Evidence
		}
	}
	return nil
}

func inverse(t *transaction) *change.Plan {
	p := t.j.Plan
	var late []string
	out := &change.Plan{SchemaVersion: p.SchemaVersion, IntentHash: p.IntentHash, Namespace: p.Namespace, Checks: p.Checks, Administered: p.Administered}
	for i := len(p.Steps) - 1; i >= 0; i-- {
		s := p.Steps[i]
		s.Before, s.After = s.After, s.Before
		s.Destroys, s.Restores = nil, nil
		if saved, ok := t.p.saved[i]; ok {
			for _, o := range saved.Saved {
				if o.ValidLifetime == 0 && !mutate.Temporary(o) {
					s.Restores = append(s.Restores, o)
				} else {
					late = append(late, o.Target)
				}
			}
		}
		for _, v := range t.p.over[i] {
			s.Restores = append(s.Restores, change.Object{Kind: change.Sysctl, Target: v.Target, Attributes: []string{v.Before, v.Ours}})
		}
		out.Steps = append(out.Steps, s)
	}
	slices.SortStableFunc(out.Steps, func(a, b change.Step) int { return rank(a) - rank(b) })
	if len(late) > 0 {
		out.Risks = append(out.Risks, change.Risk{
			ID: "comes-from-the-network", Severity: "medium", Title: "Addresses and routes that had a lifetime are not made again: they come back from where they came", Evidence: late,
			Detail: "The kernel asks the routers as soon as IPv6 is on again, and a router answers within seconds; one that does not is heard with its next Router Advertisement, after half an hour at the latest (MaxRtrAdvInterval). A DHCPv6 client may have to be started again.",
		})
	}
	out.ID = out.Sum()
	return out
}
