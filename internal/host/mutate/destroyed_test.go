package mutate

import (
	"testing"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestModifyAddressMakesNone changes the flags of an address that is there, and of one
// that somebody deleted meanwhile: the kernel would make that one anew.
func TestModifyAddressMakesNone(t *testing.T) {
	ns := testlab.NewNS(t, "modify")
	const target = "lo 2001:db8::53/128"
	h := &Host{}
	ns.Do(func() {
		i, err := index("lo")
		if err == nil {
			err = h.Set(change.Sysctl, "net/ipv6/conf/lo/disable_ipv6", change.Image{Text: "0"})
		}
		if err == nil {
			err = h.Set(change.AddressObj, target, change.Image{})
		}
		if err != nil {
			t.Error(err)
			return
		}
		as, err := addressesOf(map[uint32]string{i: "lo"})
		if err != nil || len(as) == 0 {
			t.Errorf("%v, %v", as, err)
			return
		}
		o := as[len(as)-1]
		for _, a := range as {
			if a.Target == target {
				o = a
			}
		}
		message := func(f uint32) []byte { return attr(append([]byte(nil), o.Message...), 8, u32(f)) } // IFA_FLAGS
		before, err := flagsOf(o, i)
		if err != nil {
			t.Error(err)
		}
		const noPrefixRoute = 0x200
		if err := modifyAddress(message(before | noPrefixRoute)); err != nil {
			t.Error(err)
		}
		if now, err := flagsOf(o, i); err != nil || now != before|noPrefixRoute {
			t.Errorf("flags %#x, %v, want %#x", now, err, before|noPrefixRoute)
		}
		if err := h.Set(change.AddressObj, target, change.Image{Absent: true}); err != nil {
			t.Error(err)
		}
		if err := modifyAddress(message(before)); err != nil {
			t.Error(err)
		}
		if now, err := h.State(change.AddressObj, target); err != nil || now != Absent {
			t.Errorf("it is %s, %v", now, err)
		}
	})
}
