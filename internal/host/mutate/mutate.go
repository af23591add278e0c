// Package mutate is the only writer of the host. It sets one object at a time: a
// sysctl, our own nft table, a permanent neighbour, an address, a route, a file, a
// unit of ours. For each it tells the present state as a short string, and what that
// string will be once an Image is set, so that whoever undoes a change can compare
// three of them: before, ours, now.
//
// It works in the network namespace of the calling process and never makes a
// decision: engine/apply says what, in which order, and keeps the journal.
package mutate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// Absent is the state of an object that does not exist.
const Absent = "absent"

// Host is what is changed.
type Host struct {
	// Root is put in front of the path of every file; empty in production.
	Root string
	// Layer writes the files.
	Layer *store.Layer
	// Proc is where /proc/sys is; empty in production.
	Proc string
	// Before is asked before each change of the kernel; its error is what the change
	// returns. For tests.
	Before func(k change.Kind, target string) error
}

// ErrNoWayBack says that a change could not be undone, and is not made therefore.
var ErrNoWayBack = errors.New("it could not be undone")

func (h *Host) ask(k change.Kind, target string) error {
	if h.Before == nil {
		return nil
	}
	return h.Before(k, target)
}

// State is the object's present state: Absent, or a string that is equal exactly when
// the object is.
func (h *Host) State(k change.Kind, target string) (string, error) {
	switch k {
	case change.File:
		return h.fileState(target)
	case change.Sysctl:
		return h.sysctlState(target)
	case change.Table:
		return tableState(target)
	case change.Neighbour:
		return neighbourState(target)
	case change.AddressObj:
		return addressState(target)
	case change.RouteObj:
		return routeState(target)
	case change.Unit:
		return h.unitState(target)
	case change.Action:
		return Absent, nil
	}
	return "", fmt.Errorf("read %s: no object of a kind %q is known", target, k)
}

// Want is the state that an object has once it is set to the Image.
func (h *Host) Want(k change.Kind, target string, i change.Image) (string, error) {
	switch {
	case k == change.Unit && i.Text != "enabled":
		return "disabled", nil
	case i.Absent, k == change.Action:
		return Absent, nil
	}
	switch k {
	case change.File:
		return fileWant(i), nil
	case change.Sysctl:
		return sysctlWant(i.Text), nil
	case change.Table:
		return tableWant(target, i.Text)
	case change.Neighbour:
		return neighbourWant(i.Text)
	case change.AddressObj, change.RouteObj:
		return "present", nil
	case change.Unit:
		return "enabled", nil
	}
	return "", fmt.Errorf("read %s: no object of a kind %q is known", target, k)
}

// Set sets the object of a running kernel, or a unit, to the Image. Files have a way
// of their own: Stage and Promote.
func (h *Host) Set(k change.Kind, target string, i change.Image) error {
	if err := h.ask(k, target); err != nil {
		return fmt.Errorf("set %s: %w", target, err)
	}
	switch k {
	case change.Sysctl:
		return h.sysctlSet(target, i)
	case change.Table:
		return tableSet(target, i)
	case change.Neighbour:
		return neighbourSet(target, i)
	case change.AddressObj:
		return addressSet(target, i)
	case change.RouteObj:
		return routeSet(target, i)
	case change.Unit:
		return h.unitSet(target, i)
	case change.Action:
		return h.act(target)
	}
	return fmt.Errorf("set %s: an object of kind %q cannot be set", target, k)
}

// Namespace names the network namespace that the calling thread works in.
func Namespace() string {
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return ""
	}
	return s
}

// NamespaceSeen tells whether anything that this process can see keeps a network namespace
// alive: a process in it, or a mount of it, as `ip netns` makes.
func NamespaceSeen(name string) bool {
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), " "+name+" ") {
		return true
	}
	ps, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return true
	}
	return slices.ContainsFunc(ps, func(p string) bool {
		s, err := os.Readlink(p)
		return err == nil && s == name
	})
}

// Gone tells whether an error of State or Set means that what the object hangs on
// (an interface, a subsystem) is no longer there.
func Gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, errNoInterface)
}
