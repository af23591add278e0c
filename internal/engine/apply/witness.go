package apply

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

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

// listeningFile is in the directory of a transaction when Listen listens.
const listeningFile = "listening"

// Listen is what runs beside a timer: it hears to which places others lead routes while the
// change waits, and notes it for the undo. It undoes nothing, and ends with the change.
func (e *Engine) Listen(ctx context.Context, id string) error {
	d, err := e.layer().OpenPrivate(e.stateDir())
	if err != nil {
		return err
	}
	defer d.Close()
	w := &witness{ears: mutate.Listen()}
	defer w.close()
	p, err := d.Sub(pendingDir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		err = p.Replace(listeningFile, nil, store.Attr{})
		p.Close()
	}
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		t, err := openTransaction(d)
		if err == nil && (t == nil || t.j.ID != id) {
			t.close()
			return nil
		}
		t.close()
		w.wait(d, id, time.Second)
	}
	return nil
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
