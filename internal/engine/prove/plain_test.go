package prove_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/engine/prove"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// TestPlain: an interface without frames, as of a tunnel, is fired at too.
func TestPlain(t *testing.T) {
	t.Parallel()
	v := host(t, "tun")
	v.IP("tuntap", "add", "dev", "vpn0", "mode", "tun")
	v.IP("link", "set", "vpn0", "up")
	v.AddAddr("vpn0", "fd00:99::1/64")
	v.IP("addr", "add", "10.99.0.1/24", "dev", "vpn0")
	s := hostview.Snapshot(t, v)
	vpn := intent.Service{Name: "db", Ports: []string{"tcp/5432"}, Interfaces: []string{"vpn0"}}
	in := intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static}, "vpn0": {Addressing: intent.Static}}, Services: []intent.Service{ssh(), vpn}}
	p := planFor(t, in, s)
	got := proof(t, p, s)
	if got.Status != change.Proven || !slices.Contains(got.Interfaces, "vpn0") || len(got.NotFiredAt)+len(got.Limits) > 0 {
		t.Errorf("not proven: %q, limits %q", got.NotFiredAt, got.Limits)
	}
	report(t, got)
	rules(`iifname "vpn0" tcp dport 5432`, `tcp dport 5432`)(t, p)
	if got := proof(t, p, s); got.Status != change.Failed {
		t.Error("a service of the tunnel is open on the link, and that is proven")
	}
	p = planFor(t, in, s)
	rules(`iifname "vpn0" tcp dport 5432`, `iifname "vpn1" tcp dport 5432`)(t, p)
	if got := proof(t, p, s); got.Status != change.Failed || !slices.ContainsFunc(got.Failures, func(m change.Misfire) bool {
		return m.Interface == "vpn0" && strings.HasPrefix(m.Shot, "tcp/5432 from")
	}) {
		t.Error("a service of the tunnel is closed there, and that is proven")
		report(t, got)
	}
	// Where it could not be made again, the proof is no whole one.
	p = planFor(t, in, s)
	pr := prove.Start([]string{"tun"})
	defer pr.Close()
	if got := pr.Prove(t.Context(), p, s, &s.Namespaces[0]); got.Status != change.Partial || len(got.NotFiredAt) != 1 || !strings.HasPrefix(got.NotFiredAt[0], "vpn0: ") || !strings.Contains(got.WayOut, "--unproven") {
		t.Errorf("without tun: %s, not fired at %q", got.Status, got.NotFiredAt)
	}
}

// TestManyInterfaces: all that the intent names are fired at, and of those of containers
// one; what is left out of the rest is said by the status.
func TestManyInterfaces(t *testing.T) {
	t.Parallel()
	v, far := testlab.NewNS(t, "manv"), testlab.NewNS(t, "mana")
	var script strings.Builder
	in := intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{}, Services: []intent.Service{web()}}
	for i := range 70 {
		fmt.Fprintf(&script, "link add c%d type veth peer name p%d netns %s\nlink set c%d up\n", i, i, far.Name, i)
		if i < 5 {
			fmt.Fprintf(&script, "link add m%d link c%d type macvlan\nlink set m%d up\naddress add 2001:db8:%x::1/64 dev m%d\n", i, i, i, i, i)
			in.Interfaces[fmt.Sprintf("m%d", i)] = intent.Interface{Addressing: intent.Static}
		}
	}
	c := v.Command("ip", "-batch", "-")
	c.Stdin = strings.NewReader(script.String())
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v\n%s", err, out)
	}
	s := hostview.Snapshot(t, v)
	got := proof(t, planFor(t, in, s), s)
	if got.Status != change.Proven || !slices.Equal(got.Interfaces, []string{"m0", "m1", "m2", "m3", "m4", "c0"}) || !strings.Contains(strings.Join(got.Limits, "; "), "c0 is fired at for 69 more of its kind") {
		t.Errorf("five that the intent names: %s", got.Status)
		report(t, got)
	}
	for i := range 70 {
		in.Interfaces[fmt.Sprintf("c%d", i)] = intent.Interface{Addressing: intent.Static}
	}
	p := plan.New(in, s, plan.Options{Namespace: s.Namespaces[0].Name, Decode: hostview.Decode})
	p.Refusals = nil
	// That it is a partial proof then TestPlain sees; to fire at all of them takes long.
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	pr := prove.Start(nil)
	defer pr.Close()
	if got := pr.Prove(ctx, &p, s, &s.Namespaces[0]); got.Status != change.Unproven || len(got.NotFiredAt) != 12 || !strings.Contains(got.NotFiredAt[0], "room for 63") {
		t.Errorf("75 that the intent names: %s, not fired at %q", got.Status, got.NotFiredAt)
	}
}
