package cli

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/engine/apply"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestApplyWithoutProof: what could not be fired at is not applied, unless a person says
// so, who is told the reason.
func TestApplyWithoutProof(t *testing.T) {
	testlab.RequireRoot(t)
	var stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &stderr, log: slog.New(slog.DiscardHandler)}
	p := &change.Plan{Steps: []change.Step{{ID: "x"}}} // no intent: as of an older release
	p.ID = p.Sum()
	err := a.proveAgain(false)(t.Context(), p)
	var refused *apply.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Hint, "--unproven") || exitOf(err) != exitRefused {
		t.Errorf("without a proof: %v", err)
	}
	if p.Proof == nil || p.Proof.Status != change.Unproven || p.Sum() != p.ID {
		t.Errorf("the plan does not carry what came of it, or is another: %+v", p.Proof)
	}
	if err := a.proveAgain(true)(t.Context(), p); err != nil || !strings.Contains(stderr.String(), "could not be fired at: the plan does not say what is intended") {
		t.Errorf("--unproven: %v, %q", err, stderr.String())
	}
}

// TestProofText: the evidence is a line or two, and a failed one refuses with its witness.
func TestProofText(t *testing.T) {
	t.Parallel()
	text := func(p *change.Proof) string {
		x := planText{width: 80}
		x.proof(p)
		return strings.Join(strings.Fields(x.b.String()), " ")
	}
	good := change.Proof{Status: change.Proven, Kernel: "6.1", Interfaces: []string{"eth0"}, Shots: 10, Through: 4, Stopped: 6}
	if got := text(&good); got != "Proven: 10 shots at eth0, on kernel 6.1 in namespaces of their own, did what the intent says: 4 came through, 6 were stopped." {
		t.Error(got)
	}
	good.Together, good.Held = []string{"table ip a"}, []change.Misfire{{Shot: "MLD report"}}
	good.NotTogether, good.Limits = []string{"ebtables: it cannot be read"}, []string{"wg0 is no Ethernet"}
	if got := text(&good); !strings.Contains(got, "Other tables of this host (table ip a) stop 1 more: MLD report") || !strings.Contains(got, "Not proven together with ebtables: it cannot be read") || !strings.Contains(got, "Not as on the host: wg0") {
		t.Error(got)
	}
	good.Status, good.Reason, good.WayOut, good.NotFiredAt = change.Partial, "not all of this host could be tried", "Decide", []string{"wg0: it is no Ethernet"}
	if got := text(&good); !strings.HasPrefix(got, "PROVEN IN PART: 10 shots at eth0") || !strings.Contains(got, "were stopped. But not all of this host could be tried. Decide.") || !strings.Contains(got, "Nothing was fired at wg0: it is no Ethernet") {
		t.Error(got)
	}
	if got := unproved(&good); got != "not together with ebtables: it cannot be read; nothing was fired at wg0: it is no Ethernet" {
		t.Error(got)
	}
	bad := change.Proof{Status: change.Failed, Shots: 10, Failures: []change.Misfire{{Interface: "eth0", Group: "services", Shot: "tcp/23", Expected: "is stopped", Observed: "comes through", Packet: "a > b"}}}
	r := refusal(&bad)
	if got := text(&bad); !strings.HasPrefix(got, "NOT PROVEN: 1 of 10 shots") || !strings.Contains(r.Title, "1 shot of 10") || !strings.Contains(r.Detail, "tcp/23 at eth0: expected: is stopped; observed: comes through. The packet: a > b.") || r.WayOut == "" {
		t.Errorf("%s\n%+v", got, r)
	}
	if got := text(&change.Proof{Status: change.Unproven, Reason: "no namespace", WayOut: "allow them"}); !strings.Contains(got, "NOT PROVEN: no namespace. So nothing was fired at the planned state, and whether it does what the intent says is not known. Apply refuses it. Way out: allow them") {
		t.Error(got)
	}
}
