package apply

import (
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/model/change"
)

// deleted is an address of somebody else's, who takes it away while we work.
const deleted = "2001:db8:f0ff::6/128"

// TestSomebodyDeletesMeanwhile deletes an address between its reading and the switch
// that would have destroyed it: the undo leaves it away.
func TestSomebodyDeletesMeanwhile(t *testing.T) {
	l := newLab(t)
	p := l.plan([]change.Step{{ID: "off", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/eth1/disable_ipv6", Before: change.Image{Text: "0"}, After: change.Image{Text: "1"}}})
	set := func(i change.Image) {
		if err := l.host.Set(change.AddressObj, "eth1 "+deleted, i); err != nil {
			t.Error(err)
		}
	}
	l.ns.Do(func() {
		set(change.Image{})
		e := l.engine()
		e.Arm = hostArmer{}
		e.Boundary = func(name string) error {
			if name == "step 0 noted" {
				set(change.Image{Absent: true})
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
		if now, err := l.host.State(change.AddressObj, "eth1 "+deleted); err != nil || now != mutate.Absent {
			t.Errorf("it is %s, %v", now, err)
		}
	})
}
