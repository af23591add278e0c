package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
)

// Status is where the host stands.
type Status struct {
	Pending *Pending `json:"pending,omitempty"`
	// Confirmed is the last change that was kept, if any.
	Confirmed *Record `json:"confirmed,omitempty"`
	// Unseen are changes that were taken back while nobody looked.
	Unseen []Record `json:"unseen,omitempty"`
	// Drift are objects that are no longer as the last kept change left them.
	Drift []Drift `json:"drift,omitempty"`
	// Ephemeral is what is kept and will be gone after the next boot.
	Ephemeral []string `json:"ephemeral,omitempty"`
	// Restored is the last time that something was brought back, and RestoredToday how often
	// that happened in the last 24 hours.
	Restored      *Record  `json:"restored,omitempty"`
	RestoredToday int      `json:"restoredToday,omitempty"`
	Fights        []Fight  `json:"fights,omitempty"`
	Alerts        []string `json:"alerts,omitempty"`
}

// Drift is one object that is not as intended.
type Drift struct {
	ID    string `json:"id"` // of the step
	Where string `json:"where"`
	Want  string `json:"want"`
	Now   string `json:"now"`
	// By is who may have done it, as far as can be told.
	By []string `json:"by,omitempty"`
}

// Status reads where the host stands. It finishes what an interrupted run left, if
// nobody else is at it.
func (e *Engine) Status() (*Status, error) {
	s := &Status{}
	d, err := e.layer().Open(e.stateDir())
	if errors.Is(err, unix.ENOENT) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	defer d.Close()
	if unlock, err := d.Lock(lockFile, false); err == nil {
		_, err := e.resume(d)
		unlock()
		if err != nil {
			s.Alerts = append(s.Alerts, err.Error())
		}
	}
	t, err := openTransaction(d)
	switch {
	case err != nil:
		s.Alerts = append(s.Alerts, err.Error())
	case t != nil:
		s.Pending = e.describe(t)
		t.close()
	}
	names, _ := d.List()
	slices.Sort(names)
	for _, n := range names {
		if strings.HasPrefix(n, "corrupt") {
			s.Alerts = append(s.Alerts, "a damaged journal is kept as "+d.Path()+"/"+n+"; look at it, and remove it")
		}
	}
	rs, _, _, err := readHistory(d)
	if err != nil {
		s.Alerts = append(s.Alerts, err.Error())
	}
	past, err := d.Sub(pastDir)
	if err != nil {
		return s, nil
	}
	defer past.Close()
	for _, r := range rs {
		if r.Event != "rolled-back" && r.Event != "reverted-by-reboot" {
			continue
		}
		if p, err := past.Sub(r.Transaction); err == nil {
			if p.Has("is-" + unseen) {
				s.Unseen = append(s.Unseen, r)
			}
			p.Close()
		}
	}
	s.Fights = readFights(d)
	var good time.Time // the last time that all was surely well
	for i, r := range rs {
		switch r.Event {
		case "confirmed":
			s.Confirmed, good = &rs[i], r.At
		case "restored":
			s.Restored, good = &rs[i], r.At
			if time.Since(r.At) < 24*time.Hour {
				s.RestoredToday++
			}
		}
	}
	if s.Pending != nil || s.Confirmed == nil {
		return s, nil
	}
	list, err := keeping(past, rs)
	if err != nil {
		s.Alerts = append(s.Alerts, err.Error())
		return s, nil
	}
	strays := e.strays(list)
	s.Ephemeral = ephemeral(slices.DeleteFunc(list, func(h held) bool {
		return slices.ContainsFunc(strays, func(a astray) bool { return a.step.ID == h.step.ID })
	}))
	var since *clues
	for _, a := range strays {
		if since == nil {
			since = gather(good)
		}
		x := a.drift()
		x.By = e.culprits(a, since)
		s.Drift = append(s.Drift, x)
	}
	return s, nil
}

// Acknowledge marks every undo that nobody saw as seen, and lets be restored again what
// was fought over.
func (e *Engine) Acknowledge() error {
	d, unlock, err := e.begun()
	if errors.Is(err, ErrNothing) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	past, err := d.Sub(pastDir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer past.Close()
	ids, err := past.List()
	if err != nil {
		return err
	}
	if d.Has(fightsFile) {
		if err := errors.Join(d.Remove(fightsFile), d.Sync()); err != nil {
			return err
		}
	}
	for _, id := range ids {
		p, err := past.Sub(id)
		if err != nil {
			return err
		}
		if p.Has("is-" + unseen) {
			err = errors.Join(p.Remove("is-"+unseen), p.Sync())
		}
		p.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) describe(t *transaction) *Pending {
	p := &Pending{
		ID: t.j.ID, PlanID: t.j.Plan.ID, IntentHash: t.j.Plan.IntentHash, Phase: string(t.phase()), Begun: t.j.Begun, Deadline: t.j.Deadline,
		Remaining: max(0, t.j.DeadlineAt-bootTime()) / 1000, Armed: t.arming(), Who: t.j.Who, Administered: t.j.Plan.Administered,
		Left: leftAlone(&t.j.Plan),
	}
	for f := range t.readProof().New {
		p.Proven = append(p.Proven, f)
	}
	slices.Sort(p.Proven)
	for _, s := range t.j.Plan.Steps {
		if s.Kind == change.File && s.Phase != change.Runtime {
			p.Staged = append(p.Staged, s.Target)
		}
	}
	return p
}

// Rollback takes the change back that waits, at once. When none waits it returns
// ErrNothing: what was kept is taken back by a plan, see Former.
func (e *Engine) Rollback(_ context.Context) (*Outcome, error) {
	d, unlock, err := e.begun()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if out, err := e.resume(d); out != nil || err != nil {
		return out, err
	}
	t, err := openTransaction(d)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, ErrNothing
	}
	defer t.close()
	out, err := e.undo(d, t, "it was taken back by hand", false)
	return &out, err
}

// Resume finishes what an interrupted run left: the boot does so, and every verb.
func (e *Engine) Resume() (*Outcome, error) {
	d, unlock, err := e.begun()
	if errors.Is(err, ErrNothing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	return e.resume(d)
}
