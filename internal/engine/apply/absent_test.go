package apply

import (
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/model/change"
)

// TestSomebodyDeletesMeanwhile deletes an address, a route and a neighbour between their
// reading and the switch that would have destroyed them, early and at the very last
// moment, and adds others: the undo leaves away what they deleted, and makes the others
// again.
func TestSomebodyDeletesMeanwhile(t *testing.T) {
	t.Parallel()
	type object struct {
		kind   change.Kind
		target string
		on     change.Image
	}
	gone := []object{
		{change.AddressObj, "eth1 2001:db8:f0ff::6/128", change.Image{}},
		{change.AddressObj, "eth1 2001:db8:f0fe::6/64", change.Image{}},
		{change.RouteObj, "2001:db8:f0fd::/48 via fe80::98 dev eth1 metric 3000", change.Image{}},
		{change.Neighbour, "eth1 fe80::6", change.Image{Text: "02:00:00:00:00:06"}},
	}
	come := []object{
		{change.AddressObj, "eth1 2001:db8:f1ff::6/128", change.Image{}},
		{change.AddressObj, "eth1 2001:db8:f1fe::6/64", change.Image{}},
		{change.RouteObj, "2001:db8:f1fd::/48 via fe80::98 dev eth1 metric 3000", change.Image{}},
		{change.Neighbour, "eth1 fe80::7", change.Image{Text: "02:00:00:00:00:07"}},
	}
	for _, last := range []bool{false, true} {
		l := newLab(t)
		p := l.plan([]change.Step{{ID: "off", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/eth1/disable_ipv6", Before: change.Image{Text: "0"}, After: change.Image{Text: "1"}}})
		h := *l.host
		set := func(os []object, absent bool) {
			for _, o := range os {
				i := o.on
				if absent {
					i = change.Image{Absent: true}
				}
				if err := h.Set(o.kind, o.target, i); err != nil {
					t.Error(err)
				}
			}
		}
		meanwhile := func() { set(gone, true); set(come, false) }
		l.ns.Do(func() {
			set(gone, false)
			e := l.engine()
			e.Arm = hostArmer{}
			e.Boundary = func(name string) error {
				if !last && name == "step 0 noted" {
					meanwhile()
				}
				return nil
			}
			done := false
			l.host.Before = func(_ change.Kind, target string) error {
				if last && !done && target == "net/ipv6/conf/eth1/disable_ipv6" {
					done = true
					meanwhile()
				}
				return nil
			}
			if _, err := e.Apply(labContext, p, Options{Timeout: time.Minute}); err != nil {
				t.Error(err)
				return
			}
			if _, err := e.Rollback(labContext); err != nil {
				t.Error(err)
			}
			for _, o := range gone {
				if now, err := h.State(o.kind, o.target); err != nil || now != mutate.Absent {
					t.Errorf("at the last moment %v: %s is %s, %v", last, o.target, now, err)
				}
			}
			for _, o := range come {
				if now, err := h.State(o.kind, o.target); err != nil || now == mutate.Absent {
					t.Errorf("at the last moment %v: %s is %s, %v", last, o.target, now, err)
				}
			}
			if out := routes(t, l, "2001:db8:f0fe::/64"); out != "" {
				t.Errorf("at the last moment %v: the route of an address that is gone: %s", last, out)
			}
		})
	}
}

func routes(t *testing.T, l *lab, dst string) string {
	t.Helper()
	return strings.TrimSpace(l.ns.IP("-6", "route", "show", dst))
}
