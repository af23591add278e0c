package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/sixfence/sixfence/internal/engine/apply"
	"github.com/sixfence/sixfence/internal/engine/prove"
	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/host/collect/kmod"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// prover makes the place of a proof, while this process may still make namespaces.
func (a *app) prover() *prove.Prover {
	var missing []string
	if t, err := tree.Host(); err == nil {
		defer t.Close()
		mods := kmod.Read(t)
		for _, m := range prove.Needs() {
			if !mods.Present(m) {
				missing = append(missing, m)
			}
		}
	}
	return prove.Start(missing)
}

// proven fires at a plan and keeps what came of it in the plan. A plan that does not do
// what its intent says is refused.
func (a *app) proven(ctx context.Context, pr *prove.Prover, p *change.Plan, snap *fact.Snapshot, quiet bool) {
	if len(p.Refusals) > 0 || len(p.Steps) == 0 {
		return
	}
	a.prove(ctx, pr, p, snap, quiet)
	if p.Proof.Status != change.Failed {
		return
	}
	p.Refusals = append(p.Refusals, refusal(p.Proof))
	p.ID = p.Sum()
}

func (a *app) prove(ctx context.Context, pr *prove.Prover, p *change.Plan, snap *fact.Snapshot, quiet bool) {
	done := a.progress(quiet, "firing at the planned state, in namespaces of its own")
	defer done()
	pr.Progress = func(what string) { a.log.Debug("proof", "step", what) }
	p.Proof = pr.Prove(ctx, p, snap, snap.Home())
}

// refusal says what a failed proof means, by its first witness.
func refusal(p *change.Proof) change.Refusal {
	f := p.Failures[0]
	at := ""
	if f.Interface != "" {
		at = " at " + f.Interface
	}
	r := change.Refusal{
		ID:     "proof-failed",
		Title:  fmt.Sprintf("Fired at on this kernel, the planned state does not do what the intent says: %s of %d", plural(len(p.Failures), "shot", "shots"), p.Shots),
		Detail: fmt.Sprintf("%s: %s%s: expected: %s; observed: %s.", f.Group, f.Shot, at, f.Expected, f.Observed),
		WayOut: "this is a fault of the planned rules, or of a setting under sysctls: take that out of the intent, or report it with the output of --format json, which has every packet",
	}
	if f.Packet != "" {
		r.Detail += " The packet: " + f.Packet + "."
	}
	if f.Group == "guests" && f.Observed == "comes through" {
		r.WayOut = "frames of bridged guests meet the rules only where br_netfilter is loaded and net.bridge.bridge-nf-call-ip6tables is 1: see to both, or take guardBridged out of the intent"
	}
	if strings.Contains(f.Observed, "another table") {
		r.WayOut = "another firewall of this host keeps it out: let it in there as well, or take it out of the intent"
	}
	return r
}

// proveAgain proves a plan on the present host and kernel, before anything is written.
func (a *app) proveAgain(unproven bool) func(context.Context, *change.Plan) error {
	return func(ctx context.Context, p *change.Plan) error {
		c, err := collect.Run(collect.Options{Elements: true})
		if err != nil {
			return fmt.Errorf("read this host: %w", err)
		}
		pr := a.prover()
		defer pr.Close()
		a.prove(ctx, pr, p, c.Snapshot(), false)
		switch p.Proof.Status {
		case change.Proven:
			return nil
		case change.Failed:
			r := refusal(p.Proof)
			return &apply.RefusedError{Why: r.Title + ". " + r.Detail, Hint: r.WayOut}
		}
		why := "the planned state could not be fired at: " + p.Proof.Reason
		if p.Proof.Status == change.Partial {
			why = "the planned state is proven in part: " + unproved(p.Proof)
		}
		if unproven {
			fmt.Fprintf(a.stderr, "sixfence: %s (--unproven: applied all the same)\n", cleaned(why))
			return nil
		}
		return &apply.RefusedError{Why: why, Hint: p.Proof.WayOut}
	}
}

// unproved says what a partial proof says nothing about.
func unproved(p *change.Proof) string {
	var parts []string
	if len(p.NotTogether) > 0 {
		parts = append(parts, "not together with "+strings.Join(p.NotTogether, "; "))
	}
	if len(p.NotFiredAt) > 0 {
		parts = append(parts, "nothing was fired at "+strings.Join(p.NotFiredAt, "; "))
	}
	return strings.Join(parts, "; ")
}
