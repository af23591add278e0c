package rtnl

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestDrivers: the kernel says the driver of an interface of the thread's namespace to
// a thread that has no capability, which has them back afterwards.
func TestDrivers(t *testing.T) {
	n := testlab.NewNS(t, "drv")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	n.IP("link", "add", "br0", "type", "bridge")
	n.IP("tuntap", "add", "dev", "t0", "mode", "tap")
	n.Do(func() {
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var before, during, after [2]unix.CapUserData
		if err := unix.Capget(&h, &before[0]); err != nil || before[0].Effective == 0 {
			t.Errorf("this test needs capabilities: %v", err)
		}
		back, err := withoutCapabilities()
		if err != nil {
			t.Errorf("without capabilities: %v", err)
			return
		}
		_ = unix.Capget(&h, &during[0])
		if during[0].Effective != 0 || during[1].Effective != 0 {
			t.Errorf("asked with %x %x", during[0].Effective, during[1].Effective)
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			t.Errorf("socket: %v", err)
			return
		}
		defer unix.Close(fd)
		for name, want := range map[string]string{"v0": "veth", "v1": "veth", "br0": "bridge", "t0": "tun"} {
			if got, ok := queryDriver(asker(), budget(), fd, ifindex(t, name)).known("x").Get(); !ok || got != want {
				t.Errorf("%s: driver %q, %v", name, got, ok)
			}
		}
		if k := queryDriver(asker(), budget(), fd, ifindex(t, "lo")).known("x"); k.State() != fact.StateUnsupported {
			t.Errorf("lo: %v", k.State())
		}
		if g, ok := queryDriver(asker(), budget(), fd, 1<<20).known("driver of x").Gap(); !ok || g.Reason != fact.NotCollected {
			t.Errorf("an interface that is gone: %v", g)
		}
		back()
		_ = unix.Capget(&h, &after[0])
		if after != before {
			t.Errorf("the capabilities are not back: %v, were %v", after, before)
		}
	})
	// What has a kind needs no question.
	ns := collect(n)
	for _, l := range must(t, "links", ns.Links) {
		if g, _ := l.Driver.Gap(); l.Kind != "" && (l.Driver.State() != fact.StateGap || g.What != "") {
			t.Errorf("%s (%s) was asked for its driver", l.Name, l.Kind)
		}
	}
}

// TestDriversOfHardware: what stands in sysfs is what the kernel says. Where the host
// has no hardware there is nothing to compare.
func TestDriversOfHardware(t *testing.T) {
	runtime.LockOSThread()
	d := Read(asker(), budget())
	runtime.UnlockOSThread()
	ns := fact.Namespace{Name: "own"}
	d.Decode(&ns)
	for _, l := range must(t, "links", ns.Links) {
		got, ok := l.Driver.Get()
		want, err := os.Readlink(filepath.Join("/sys/class/net", l.Name, "device/driver"))
		switch {
		case err != nil && l.Kind == "" && l.Name != "lo" && l.Driver.State() == fact.StateGap:
			t.Errorf("%s: nobody asked", l.Name)
		case err == nil && (!ok || got != filepath.Base(want)):
			t.Errorf("%s: driver %q, sysfs says %s", l.Name, got, want)
		}
	}
}

func TestDriverNamesAreWords(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]fact.State{"e1000e": fact.StateValue, "": fact.StateUnsupported, "a b": fact.StateGap, "x\x1b[2J": fact.StateGap} {
		var a driverAnswer
		copy(a.name[:], name)
		if k := a.known("driver"); k.State() != want {
			t.Errorf("%q: %v", name, k.State())
		}
	}
}
