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
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sixfence/sixfence/internal/model/change"
)

// Options of Apply.
type Options struct {
	Timeout time.Duration // until the undo acts (default 5 minutes)
	Who     Who
	Former  string // of a rollback: the transaction that is taken back
	// Session are the connections that Apply was started over. A plan that was made for
	// another way in proves nothing for them, and is refused.
	Session []change.Way
	// Sockets tells the connections of now; nil: the kernel's TCP sockets.
	Sockets func() ([]Socket, error)
	// restores are the objects of a change that brings back what somebody undid, who it was.
	// It confirms itself, and nobody waits for it: no undo is armed.
	restores []string
	why      string
}

// Apply performs the runtime part of a plan and leaves it waiting for Confirm.
func (e *Engine) Apply(ctx context.Context, plan *change.Plan, o Options) (*Pending, error) {
	if err := valid(plan); err != nil {
		return nil, err
	}
	if err := reckoned(plan, o.Session); err != nil {
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
	for _, c := range slices.Clone(plan.Checks) {
		if err := e.check(ctx, c); err != nil {
			if o.Former != "" {
				// The way back is not closed by what is broken already.
				e.log("the check fails, and is not asked after the rollback", "check", c, "cause", err)
				plan.Checks = slices.DeleteFunc(slices.Clone(plan.Checks), func(x string) bool { return x == c })
				continue
			}
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

// reckoned refuses a plan that was made without the connections in use: whether they
// survive, and whether others like them get in, was asked of those only that it names.
func reckoned(p *change.Plan, session []change.Way) error {
	for _, s := range session {
		if !slices.ContainsFunc(p.Administered, func(w change.Way) bool {
			return w.Family == s.Family && w.Local == s.Local && w.Remote.Addr() == s.Remote.Addr()
		}) {
			return &RefusedError{
				Why:  fmt.Sprintf("you are here from %s to %s, and the plan was made without that way in: nobody has asked whether it stays open", s.Remote.Addr(), s.Local),
				Hint: "make the plan again from this session: sudo sixfence harden plan -o FILE",
			}
		}
	}
	return nil
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
