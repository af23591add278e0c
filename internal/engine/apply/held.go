package apply

import (
	"fmt"
	"slices"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
)

// held is an object as the kept changes left it: the last one that touched it decides.
type held struct {
	step     change.Step
	ours     string
	original string // before the first of our changes
}

func keyOf(s change.Step) string { return string(s.Kind) + " " + s.Target }

// keeping lists what the kept changes hold. What was given back as it had been is ours
// no longer.
func keeping(past *store.Dir, rs []Record) ([]held, error) {
	var order []string
	by := map[string]held{}
	was := map[string]map[string]held{} // by each change: what held its objects before
	for _, r := range rs {
		if r.Event != "confirmed" {
			continue
		}
		p, err := past.Sub(r.Transaction)
		if err != nil {
			return nil, fmt.Errorf("read what change %s left: %w", r.Transaction, err)
		}
		j, err := readJournal(p)
		p.Close()
		if err != nil {
			return nil, err
		}
		if former, ok := was[r.Former]; ok {
			// What was given back is held as it was before. What the rollback left to others is
			// held by nobody.
			for key, before := range former {
				if before.ours != "" && slices.ContainsFunc(j.Plan.Steps, func(s change.Step) bool { return keyOf(s) == key }) {
					by[key] = before
				} else {
					delete(by, key)
				}
			}
			continue
		}
		was[r.Transaction] = map[string]held{}
		for i, s := range j.Plan.Steps {
			if s.Kind == change.Action {
				continue
			}
			key := keyOf(s)
			h, known := by[key]
			was[r.Transaction][key] = h
			if !known {
				h.original = j.Entries[i].Before
				order = append(order, key)
			}
			h.step, h.ours = s, j.Entries[i].Ours
			by[key] = h
		}
	}
	var out []held
	for _, key := range order {
		if h, ok := by[key]; ok && h.ours != h.original {
			out = append(out, h)
			delete(by, key) // its place may be named twice
		}
	}
	return out, nil
}

// held are the objects of one change.
func (t *transaction) held() (out []held) {
	for i, s := range t.j.Plan.Steps {
		out = append(out, held{step: s, ours: t.j.Entries[i].Ours, original: t.j.Entries[i].Before})
	}
	return out
}

// astray is a held object that is not as it was left.
type astray struct {
	held
	now string
	err error
}

// strays compares the host with what is held. What hangs on an interface that is not
// there is not astray: it is set again when the interface comes.
func (e *Engine) strays(list []held) []astray {
	var out []astray
	for _, h := range list {
		now, err := e.Host.State(h.step.Kind, h.step.Target)
		if mutate.Gone(err) || err == nil && (now == h.ours || now == mutate.Absent && h.step.Kind == change.Sysctl) {
			continue
		}
		if err == nil && h.step.Kind == change.Table && now != mutate.Absent {
			// Another kernel may tell the same rules in other words.
			if want, err := e.Host.Want(h.step.Kind, h.step.Target, h.step.After); err == nil && want == now {
				continue
			}
		}
		if block := plan.FromBlock(h.step.After.Text); err == nil && h.step.Kind == change.File && block != "" && now != mutate.Absent {
			// A file of somebody else's: the lines above ours are his.
			i, err := e.Host.Image(h.step.Target)
			if err == nil && plan.FromBlock(i.Text) == block {
				continue
			}
			if h.ours = "with our lines"; err == nil {
				now = "without them, or with others among or below them"
			}
		}
		out = append(out, astray{held: h, now: now, err: err})
	}
	return out
}

func (a *astray) drift() Drift {
	d := Drift{ID: a.step.ID, Where: "kernel", Want: a.ours, Now: a.now}
	if a.step.Phase != change.Runtime {
		d.Where = "disk"
	}
	if a.err != nil {
		d.Now = a.err.Error()
	}
	return d
}
