package apply

import (
	"time"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
)

// witness notes to which places of routes that the change destroyed somebody led others.
// Without the note an undo could bring back what its owner has replaced, and then taken
// away.
type witness struct {
	ears   *mutate.Ears
	places map[string]bool // of what the change destroyed, once it destroys no more
}

func (w *witness) close() { w.ears.Close() }

// wait listens for some time.
func (w *witness) wait(d *store.Dir, id string, long time.Duration) {
	for end := time.Now().Add(long); ; {
		left := time.Until(end)
		if left <= 0 {
			return
		}
		w.ears.Wait(left)
		w.note(d, id, w.ears.Heard())
	}
}

func (w *witness) note(d *store.Dir, id string, heard []mutate.Rumour) {
	var theirs []mutate.Rumour
	for _, r := range heard {
		// Of an address nobody can tell, yet, that it was not the change that took it.
		if !r.Address && (w.places == nil || w.places[r.Place]) {
			theirs = append(theirs, r)
		}
	}
	if len(theirs) == 0 {
		return
	}
	t, err := openTransaction(d)
	if err != nil || t == nil {
		return
	}
	defer t.close()
	if t.j.ID != id {
		return
	}
	if t.touch(theirs); t.phase() == waiting {
		w.places = t.places()
	}
}

// places are where the routes led that the change destroyed.
func (t *transaction) places() map[string]bool {
	out := map[string]bool{}
	for _, en := range t.p.saved {
		for _, o := range en.Saved {
			if p := mutate.Place(o); p != "" {
				out[p] = true
			}
		}
	}
	return out
}

// touch notes what matters of it.
func (t *transaction) touch(heard []mutate.Rumour) {
	if len(heard) == 0 {
		return
	}
	places := t.places()
	for _, r := range heard {
		n := note{What: "touched", Object: r.Place}
		if r.Taken {
			n.What = "taken"
		}
		if places[r.Place] && t.p.touched[r.Place] == r.Taken && t.note(n) != nil {
			t.p.take(n)
		}
	}
}
