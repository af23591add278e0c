package sandbox

import (
	"fmt"

	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// KeepWithout is Collecting with one capability less.
func KeepWithout(name string) error {
	var want []cap.Value
	for _, v := range needed {
		if v.String() != name {
			want = append(want, v)
		}
	}
	if name != "" && len(want) == len(needed) {
		return fmt.Errorf("%s is not among the needed", name)
	}
	return keep(want)
}

// NeededMask is what /proc/PID/status shows when exactly the needed are there.
func NeededMask() uint64 {
	var m uint64
	for _, v := range needed {
		m |= 1 << v
	}
	return m
}
