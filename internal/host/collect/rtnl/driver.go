package rtnl

import (
	"encoding/binary"
	"errors"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// driverAnswer is the driver of one interface as the kernel names it.
type driverAnswer struct {
	name  [32]byte // ethtool_drvinfo.driver
	errno unix.Errno
	gap   *fact.Gap
}

// readDrivers asks for the driver of every interface that has no kind: of a virtual
// one the kind is the driver, and there may be thousands. What is read here before the
// process is sealed is whether an attribute of that number is there.
func (d *Dump) readDrivers(a *ask.Asker, b *ask.Budget) {
	d.drivers = map[int]driverAnswer{}
	var hardware []int
	for _, m := range d.links.messages(unix.RTM_NEWLINK) {
		if len(m) >= unix.SizeofIfInfomsg && m[0] == unix.AF_UNSPEC && binary.NativeEndian.Uint32(m[8:])&unix.IFF_LOOPBACK == 0 && !hasKind(m[unix.SizeofIfInfomsg:]) {
			hardware = append(hardware, int(int32(binary.NativeEndian.Uint32(m[4:]))))
		}
	}
	if len(hardware) == 0 {
		return
	}
	all := func(ans driverAnswer) {
		for _, i := range hardware {
			d.drivers[i] = ans
		}
	}
	// SIOCETHTOOL wants a name, and for a name that is gone by then dev_load() has the
	// module "netdev-NAME" loaded, if the caller may administer the network. The answer
	// itself needs no capability, so the thread asks without any.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back, err := withoutCapabilities()
	if err != nil {
		all(driverAnswer{gap: &fact.Gap{Reason: fact.NotCollected, What: "drivers of interfaces: " + err.Error()}})
		return
	}
	defer back()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		all(driverAnswer{gap: &fact.Gap{Reason: fact.NotCollected, What: "drivers of interfaces: " + err.Error()}})
		return
	}
	defer unix.Close(fd)
	for _, i := range hardware {
		d.drivers[i] = queryDriver(a, b, fd, i)
	}
}

// queryDriver asks by name, and asks for the name before and after: an interface that
// was renamed meanwhile would answer with another's driver.
func queryDriver(a *ask.Asker, b *ask.Budget, fd, index int) (ans driverAnswer) {
	for range maxTries {
		if ans.gap = b.Take("drivers of interfaces", 1, 0); ans.gap != nil {
			return ans
		}
		before, errno := nameOf(fd, index)
		if errno != 0 {
			return driverAnswer{errno: errno}
		}
		a.Note("ioctl", "ETHTOOL_GDRVINFO")
		info, err := unix.IoctlGetEthtoolDrvinfo(fd, before)
		ans.errno = 0
		if err != nil && !errors.As(err, &ans.errno) {
			ans.errno = unix.EIO
		}
		if err == nil {
			ans.name = info.Driver
		}
		if after, _ := nameOf(fd, index); after == before {
			return ans
		}
	}
	return driverAnswer{gap: &fact.Gap{Reason: fact.Truncated, What: "drivers of interfaces: they changed while they were read"}}
}

func nameOf(fd, index int) (string, unix.Errno) {
	r, err := unix.NewIfreq("x")
	if err != nil {
		return "", unix.EINVAL
	}
	r.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, r); err != nil {
		errno := unix.EIO
		_ = errors.As(err, &errno)
		return "", errno
	}
	return r.Name(), 0
}

// hasKind tells whether IFLA_LINKINFO holds IFLA_INFO_KIND.
func hasKind(b []byte) bool {
	a := attrs{rest: b}
	for a.next() {
		if a.typ != unix.IFLA_LINKINFO {
			continue
		}
		n := attrs{rest: a.v}
		for n.next() {
			if n.typ == unix.IFLA_INFO_KIND {
				return true
			}
		}
	}
	return false
}

// withoutCapabilities takes the effective capabilities from the calling thread, which
// must be locked, until back is called.
func withoutCapabilities() (back func(), err error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var old [2]unix.CapUserData
	if err := unix.Capget(&h, &old[0]); err != nil {
		return nil, err
	}
	none := old
	none[0].Effective, none[1].Effective = 0, 0
	if err := unix.Capset(&h, &none[0]); err != nil {
		return nil, err
	}
	// Giving back what is still permitted cannot fail; if it did, what comes next would
	// be refused, and would say so.
	return func() { _ = unix.Capset(&h, &old[0]) }, nil
}

// known is the name of the driver, or why there is none.
func (d driverAnswer) known(what string) fact.Known[string] {
	switch {
	case d.gap != nil:
		return fact.Missing[string](*d.gap)
	case d.errno == unix.EOPNOTSUPP:
		return fact.Unsupported[string]()
	case d.errno != 0:
		return fact.Missing[string](fact.Gap{Reason: fact.NotCollected, What: what + ": " + d.errno.Error()})
	}
	name := unix.ByteSliceToString(d.name[:])
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' {
			return fact.Missing[string](fact.Gap{Reason: fact.ParseGap, What: what})
		}
	}
	if name == "" {
		return fact.Unsupported[string]()
	}
	return fact.Value(name)
}
