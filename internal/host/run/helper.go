package run

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Helper is this very program, started anew in namespaces of its own (StartApart): a Go
// process cannot enter a user namespace by itself, since it has threads.
type Helper struct {
	Name string
	// Life bounds its life, whatever its caller does. A caller may give it less.
	Life time.Duration
	// Main is all that it does; it gets the argument of Start and returns the exit code.
	Main func(arg string) int
}

// helperEnv marks the environment of a helper, so that it never starts another, and says
// how long it may live.
const helperEnv = "SIXFENCE_HELPER"

// OutOfTime is what a helper prints to standard error when its time is up.
const OutOfTime = "out of time"

// Inside tells whether this process is a helper.
func Inside() bool { return os.Getenv(helperEnv) != "" }

// Hook turns this process into the helper, if it was started as such, and does not return
// then. It is called by init functions and not by main, so that every program that links
// the package of a helper can start it, tests as well.
func (h Helper) Hook() {
	if len(os.Args) != 2 || os.Args[0] != h.Name || !Inside() {
		return
	}
	if os.Getpid() != 1 { // somebody else has started it
		fmt.Fprintln(os.Stderr, h.Name+": not for use by hand")
		os.Exit(2) //nolint:forbidigo // the helper has no main of its own
	}
	life, err := time.ParseDuration(os.Getenv(helperEnv))
	if err != nil || life > h.Life {
		life = h.Life
	}
	// Whatever hangs: the namespaces die with this process.
	time.AfterFunc(life, func() {
		fmt.Fprintln(os.Stderr, OutOfTime)
		os.Exit(3) //nolint:forbidigo // a bound on time
	})
	unix.CloseOnExec(3)         // this program, where it was started from a copy in memory
	os.Exit(h.Main(os.Args[1])) //nolint:forbidigo // the helper has no main of its own
}

// Start starts the helper.
func (h Helper) Start(arg string) (*Apart, error) {
	return StartApart(Program{Path: Self, Name: h.Name, Args: []string{arg}, Env: []string{helperEnv + "=" + h.Life.String()}})
}

// CallerEnded ends the helper, which has nobody to work for: the end of its input is the
// end of its caller, also while something is being done. Everything in its namespaces
// ends with it.
func CallerEnded() {
	os.Exit(0) //nolint:forbidigo // nobody is there who would hear of an error
}
