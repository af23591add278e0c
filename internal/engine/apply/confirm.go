package apply

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// ConfirmOptions say how the proof is made that the host is still within reach.
type ConfirmOptions struct {
	// ByChecks takes the answers of the plan's checks for it, and no connection.
	ByChecks bool
	// PID is the process whose ancestors must hold the new connection; 0: this one.
	PID int
	// Sockets and Ancestors tell what is; nil: the kernel.
	Sockets   func() ([]Socket, error)
	Ancestors func(pid int) (map[uint64]bool, error)
}

// UnprovenError says that a confirmation is not one yet.
type UnprovenError struct {
	Missing []string // families
	Why     string
}

// Error implements error.
func (e *UnprovenError) Error() string {
	return fmt.Sprintf("not confirmed: no new connection over %s is proven (%s)", strings.Join(e.Missing, " and "), e.Why)
}

// ErrNothing says that no change waits.
var ErrNothing = errors.New("no change waits for a confirmation")

// Confirm keeps the change that waits: it puts the staged files in their places.
func (e *Engine) Confirm(ctx context.Context, o ConfirmOptions) (*Outcome, error) {
	d, unlock, err := e.begun()
	if err != nil {
		return nil, err
	}
	defer unlock()
	out, err := e.resume(d)
	if err != nil {
		return out, err
	}
	if out != nil {
		if out.Result != "confirmed" {
			return out, &RolledBackError{Cause: errors.New(out.Why), Outcome: *out}
		}
		return out, nil
	}
	t, err := openTransaction(d)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, ErrNothing
	}
	defer t.close()
	if o.ByChecks {
		if len(t.j.Plan.Checks) == 0 {
			return nil, &RefusedError{Why: "there is no check to confirm by", Hint: "declare checks in the intent, or confirm over a new connection"}
		}
		for _, c := range t.j.Plan.Checks {
			if err := e.check(ctx, c); err != nil {
				return nil, &RefusedError{Why: fmt.Sprintf("the check %s fails: %v", c, err), Hint: "the change is taken back at its deadline, or now with: sixfence harden rollback"}
			}
		}
		if err := t.prove(proof{By: "checks", Checks: t.j.Plan.Checks}); err != nil {
			return nil, err
		}
	} else if err := e.proveConnections(t, o); err != nil {
		return nil, err
	}
	if err := e.commit(t); err != nil {
		return nil, err
	}
	res, err := e.forward(d, t)
	return &res, err
}

// commit stages every file and passes the point of no return. What fails before it
// leaves the change waiting.
func (e *Engine) commit(t *transaction) error {
	err := func() error {
		if err := e.verify(t, true); err != nil {
			return err
		}
		if err := e.verify(t, false); err != nil {
			return err
		}
		for i, s := range t.j.Plan.Steps {
			if s.Kind != change.File || s.Phase == change.Runtime {
				continue
			}
			if err := e.boundary("stage %d", i); err != nil {
				return fmt.Errorf("stage %s: %w", s.Target, err)
			}
			if err := e.Host.Stage(s.Target, t.j.ID, s.After); err != nil {
				return err
			}
		}
		if err := e.hookBoot(t); err != nil {
			return err
		}
		if bootTime() >= t.j.DeadlineAt {
			return errors.New("the time was up before all was staged")
		}
		return e.boundary("commit")
	}()
	if err == nil {
		err = t.enter(committed)
		if err == nil || t.dir.Has("is-"+string(committed)) {
			return nil // whether it is on the disk or not: we go on, and so does whoever finds it
		}
	}
	for i, s := range t.j.Plan.Steps {
		if s.Kind == change.File && s.Phase != change.Runtime {
			_ = e.Host.Forget(s.Target, t.j.ID)
			e.Host.RemoveDirs(t.j.Entries[i].Dirs)
		}
	}
	_ = e.unhookBoot()
	return fmt.Errorf("not confirmed, and still waiting: %w", err)
}

// forward finishes what was committed. It may be repeated. What cannot be finished is
// undone as a whole.
func (e *Engine) forward(d *store.Dir, t *transaction) (Outcome, error) {
	out := Outcome{ID: t.j.ID, Result: t.kept(), Why: t.j.Why, Conflicts: leftAlone(&t.j.Plan)}
	if err := e.advance(t, &out); err != nil {
		e.log("cannot finish a confirmed change", "id", t.j.ID, "cause", err)
		back, uerr := e.undo(d, t, "it could not be finished: "+err.Error(), true)
		return back, &RolledBackError{Cause: errors.Join(err, uerr), Outcome: back}
	}
	if err := t.enter(done); err != nil {
		return out, err
	}
	out.Ephemeral = ephemeral(t.held())
	return out, e.finish(d, t, out)
}

func (e *Engine) advance(t *transaction, out *Outcome) error {
	if err := t.dir.Sync(); err != nil { // the commitment itself, if a crash came between
		return err
	}
	for i, s := range t.j.Plan.Steps {
		if s.Kind != change.File || s.Phase == change.Runtime {
			continue
		}
		if err := e.boundary("promote %d", i); err != nil {
			return err
		}
		en := t.j.Entries[i]
		now, err := e.Host.State(change.File, s.Target)
		if err != nil {
			return err
		}
		if now == en.Before && en.Before != en.Ours {
			if err := e.Host.Stage(s.Target, t.j.ID, s.After); err != nil { // it is there, unless a power cut took it
				return err
			}
		}
		if err := e.Host.Promote(s.Target, t.j.ID, en.Before, en.Ours); err != nil {
			return err
		}
		if err := e.boundary("promoted %d", i); err != nil {
			return err
		}
	}
	if e.restarted(t) {
		// The host was started in the middle of the promotion: the boot may have read one
		// file and not the other. What was confirmed is what it shall be.
		for i, s := range t.j.Plan.Steps {
			if s.Phase != change.Runtime {
				continue
			}
			now, err := e.Host.State(s.Kind, s.Target)
			if err == nil && now != t.j.Entries[i].Ours {
				err = e.Host.Set(s.Kind, s.Target, s.After)
			}
			for _, o := range s.Restores {
				if err == nil && o.Kind != change.Sysctl {
					err = e.Host.Restore(o, 0)
				}
			}
			if mutate.Gone(err) {
				out.Conflicts = append(out.Conflicts, s.ID+": what it hangs on is gone")
				err = nil
			}
			if err != nil {
				return err
			}
		}
	}
	for i, s := range t.j.Plan.Steps {
		if s.Phase != change.AfterConfirm || s.Kind == change.File {
			continue
		}
		if err := e.boundary("after %d", i); err != nil {
			return err
		}
		err := e.Host.Set(s.Kind, s.Target, s.After)
		if err != nil && s.Kind == change.Action && !errors.Is(err, mutate.ErrRejected) {
			out.Failed = append(out.Failed, err.Error()) // the files are right; what is made of them is late
			err = nil
		}
		if err == nil && s.Kind == change.Unit {
			err = e.syncUnits() // systemctl waits for no disk
		}
		if err != nil {
			return err
		}
	}
	return e.boundary("done")
}

// proof is what showed that the host is within reach.
type proof struct {
	By     string            `json:"by"` // connections, checks, console
	New    map[string]string `json:"new,omitempty"`
	Checks []string          `json:"checks,omitempty"`
}

const proofFile = "proof"

func (t *transaction) proof() []string {
	p := t.readProof()
	var out []string
	for f, k := range p.New {
		out = append(out, f+" "+k)
	}
	slices.Sort(out)
	return append(out, p.Checks...)
}

// families are those that have a way in to be proven.
func families(p *change.Plan) []string {
	var out []string
	for _, w := range p.Administered {
		if !slices.Contains(out, w.Family) {
			out = append(out, w.Family)
		}
	}
	slices.Sort(out)
	return out
}

// ownAddresses are this host's own: a connection from one of them never left it.
func ownAddresses() (map[netip.Addr]bool, error) {
	as, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := map[netip.Addr]bool{}
	for _, a := range as {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out[p.Addr().Unmap()] = true
		}
	}
	return out, nil
}

func (e *Engine) proveConnections(t *transaction, o ConfirmOptions) error {
	need := families(&t.j.Plan)
	if o.Sockets == nil {
		o.Sockets = Sockets
	}
	if o.Ancestors == nil {
		o.Ancestors = Ancestors
	}
	now, err := o.Sockets()
	if err != nil {
		return fmt.Errorf("read connections: %w", err)
	}
	held, err := o.Ancestors(o.PID)
	if err != nil {
		return fmt.Errorf("find our own connection: %w", err)
	}
	old, err := t.oldSockets()
	if err != nil {
		return err
	}
	if len(need) == 0 {
		// Nobody administered it over a network when it was planned. Whoever comes over one all
		// the same proves nothing by a connection that is as old as the change.
		incoming, err := Incoming()
		if err != nil {
			return err
		}
		for _, s := range now {
			if held[s.Inode] && incoming(s) && !s.Remote.Addr().IsLoopback() && slices.Contains(old, s.key()) {
				return &UnprovenError{Missing: []string{s.family()}, Why: "the connection this command came over, from " + s.Remote.String() + ", is as old as the change"}
			}
		}
		return t.prove(proof{By: "console"})
	}
	own, err := ownAddresses()
	if err != nil {
		return err
	}
	ports := map[uint16]bool{}
	for _, w := range t.j.Plan.Administered {
		ports[w.Local.Port()] = true
	}
	known := t.readProof()
	if known.New == nil {
		known = proof{By: "connections", New: map[string]string{}}
	}
	why := "this command was not started over a connection; multiplexed ssh, tmux and screen do not count"
	for _, s := range now {
		if !held[s.Inode] {
			continue
		}
		switch {
		case slices.Contains(old, s.key()):
			why = "the connection this command came over, from " + s.Remote.String() + ", is as old as the change"
		case !ports[s.Local.Port()]:
			why = fmt.Sprintf("the connection this command came over is to port %d, through which nobody administered this host", s.Local.Port())
		case s.Remote.Addr().IsLoopback() || s.Remote.Addr() == s.Local.Addr() || own[s.Remote.Addr()]:
			why = "the connection this command came over is from this host itself"
		default:
			known.New[s.family()] = s.key()
			why = "it came over " + s.family()
		}
	}
	if len(known.New) > 0 {
		if err := t.prove(known); err != nil {
			return err
		}
	}
	var missing []string
	for _, f := range need {
		if known.New[f] == "" {
			missing = append(missing, f)
		}
	}
	if len(missing) > 0 {
		return &UnprovenError{Missing: missing, Why: why}
	}
	return nil
}
