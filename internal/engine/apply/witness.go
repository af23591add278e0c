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

func (w *witness) note(d *store.Dir, id string, heard []string) {
	var theirs []string
	for _, p := range heard {
		if w.places == nil || w.places[p] {
			theirs = append(theirs, p)
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
	places := map[string]bool{}
	for _, en := range t.p.saved {
		for _, o := range en.Saved {
			if p := mutate.Place(o); p != "" {
				places[p] = true
			}
		}
	}
	if t.phase() == waiting {
		w.places = places
	}
	for _, p := range theirs {
		if places[p] && !t.p.touched[p] {
			_ = t.note(note{What: "touched", Object: p})
		}
	}
}
