package apply

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

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
		if mutate.Gone(err) {
			stale = append(stale, s.ID+": what it hangs on is gone")
			continue
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
		case s.Kind == change.File && en.Before != en.Ours:
			if err := e.Host.Writable(s.Target); err != nil {
				return nil, &RefusedError{Why: "confirm could not write " + s.Target + ": " + err.Error(), Hint: "mount it writable: what is in the running kernel only is gone with the next boot"}
			}
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
	if o.Former != "" {
		if err := e.reconcile(d, p, o.Former); err != nil {
			return nil, err
		}
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
	if j.Links, err = mutate.Links(); err != nil {
		return nil, fmt.Errorf("read interfaces: %w", err)
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
