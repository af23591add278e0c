// Package sandbox takes rights away from the process, in two stages.
//
// Collecting: the caller calls Collecting first of all. Only the capabilities that
// reading the host needs stay (table below), on every thread; the bounding, the
// ambient and the inheritable set shrink as well. There is no Landlock yet: a
// Landlock domain may not read /proc/PID/{fd,ns,exe} of processes outside of it,
// even as root.
//
// Sealed: before the first collected byte is interpreted or rendered, the caller
// calls Seal. No capability is left, on no thread; no_new_privs is set; Landlock
// lets the process write only below the given directories, read only what it names,
// and make no TCP connection (Linux 6.7). What cannot be enforced (an old kernel, a
// container that filters landlock_create_ruleset) is reported in the Result, never
// an error of the run. Files and sockets that are open stay usable, so that
// standard output needs no rule.
//
//	if err := sandbox.Collecting(); err != nil { … warn, go on }
//	c, err := collect.Run(…)                 // every file is opened here
//	waivers := read(…)                       // configuration, too
//	r, err := sandbox.Seal(sandbox.Options{Writable: []string{filepath.Dir(output)}})
//	s := c.Snapshot()                        // hostile input from here on
//
// audit --snapshot FILE and --root DIR start with Seal and name FILE or DIR in
// Readable. Time zones: the runtime reads /etc/localtime when a local time is first
// formatted, so format in UTC or do it once before Seal.
//
// What breaks without each capability (shown by TestEachCapabilityIsNeeded):
//
//	CAP_SYS_ADMIN        setns into other network namespaces; BPF links
//	CAP_SYS_PTRACE       owners of sockets and namespaces: /proc/PID/{fd,ns,exe}
//	                     of processes with more capabilities than we kept
//	CAP_NET_ADMIN        nf_tables dumps, x_tables getsockopt
//	CAP_DAC_READ_SEARCH  files and /proc/PID/fd of other users; lists of tables in
//	                     namespaces of other users
//
// Neither CAP_NET_RAW, CAP_BPF, CAP_PERFMON, CAP_SYS_CHROOT nor CAP_DAC_OVERRIDE is
// needed.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// Needed are the capabilities that collecting uses.
func Needed() []string {
	var out []string
	for _, v := range needed {
		out = append(out, v.String())
	}
	return out
}

var needed = []cap.Value{cap.SYS_ADMIN, cap.SYS_PTRACE, cap.NET_ADMIN, cap.DAC_READ_SEARCH}

// Held returns the effective capabilities of the calling thread, sorted, e.g.
// "cap_net_admin". They are what fact.Privilege wants.
func Held() []string {
	return flagged(cap.GetProc(), cap.Effective)
}

func flagged(s *cap.Set, which cap.Flag) []string {
	var out []string
	for v := cap.Value(0); v < cap.MaxBits(); v++ {
		if on, err := s.GetFlag(which, v); err == nil && on {
			out = append(out, v.String())
		}
	}
	slices.Sort(out)
	return out
}

// Collecting keeps only the capabilities that collecting needs, on every thread. An
// ordinary user has none of them and loses nothing.
func Collecting() error { return keep(needed) }

// keep drops every capability that is not in want from all sets of all threads.
func keep(want []cap.Value) error {
	if err := threads(); err != nil {
		return err
	}
	old := cap.GetProc()
	var problems []error
	// The bounding set says what an exec could give back. It can only be lowered
	// with CAP_SETPCAP, so it goes first.
	if ok, _ := old.GetFlag(cap.Effective, cap.SETPCAP); ok {
		var drop []cap.Value
		for v := cap.Value(0); v < cap.MaxBits(); v++ {
			if in, err := cap.GetBound(v); err == nil && in && !slices.Contains(want, v) {
				drop = append(drop, v)
			}
		}
		if err := cap.DropBound(drop...); err != nil {
			problems = append(problems, fmt.Errorf("lower the capability bounding set: %w", err))
		}
	}
	if err := cap.ResetAmbient(); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: before Linux 4.3
		problems = append(problems, fmt.Errorf("clear ambient capabilities: %w", err))
	}
	now := cap.NewSet()
	for _, v := range want {
		if ok, _ := old.GetFlag(cap.Permitted, v); ok {
			if err := errors.Join(now.SetFlag(cap.Permitted, true, v), now.SetFlag(cap.Effective, true, v)); err != nil {
				problems = append(problems, fmt.Errorf("keep %v: %w", v, err))
			}
		}
	}
	if err := now.SetProc(); err != nil {
		problems = append(problems, fmt.Errorf("drop capabilities: %w", err))
	}
	return errors.Join(problems...)
}

// Options of Seal.
type Options struct {
	// Writable are directories in which files may be created, written, renamed and
	// removed afterwards. Reading files there is not part of it: open with O_WRONLY.
	Writable []string
	// Readable are files, or directories with all below them, that may be read.
	Readable []string
	// Network leaves TCP and UDP alone, for a process that still has to connect.
	Network bool
}

// Result is what Seal could enforce, as the kernel says, not as we asked.
type Result struct {
	NoNewPrivs   bool     // on every thread
	Capabilities []string // still permitted on some thread; empty is as it should be
	LandlockABI  int      // 0: no Landlock; the higher, the more it covers
	Landlock     string   // why there is none
}

// Rights below a Writable directory.
const (
	writeFile = llsys.AccessFSWriteFile | llsys.AccessFSTruncate
	writeDir  = writeFile | llsys.AccessFSReadDir | llsys.AccessFSMakeReg | llsys.AccessFSRemoveFile
)

// newestABI is the Landlock version that this package was written for.
const newestABI = 10

// Seal gives up every capability for good, sets no_new_privs and enters
// Landlock, on all threads. An error means that less is enforced than the kernel
// offers or that a path does not exist; the Result is filled in any case.
func Seal(o Options) (Result, error) {
	if err := threads(); err != nil {
		return Result{}, err
	}
	var problems []error
	if err := keep(nil); err != nil {
		problems = append(problems, err)
	}
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		problems = append(problems, fmt.Errorf("set no_new_privs: %w", err))
	}
	// Looked up now: Landlock hides /proc.
	r, err := inspect()
	if err != nil {
		problems = append(problems, err)
	}
	var rules []landlock.Rule
	for _, p := range o.Readable {
		rules, err = appendRule(rules, p, llsys.AccessFSReadFile, llsys.AccessFSReadFile|llsys.AccessFSReadDir)
		problems = append(problems, err)
	}
	for _, p := range o.Writable {
		rules, err = appendRule(rules, p, writeFile, writeDir)
		problems = append(problems, err)
	}
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil || abi <= 0 {
		r.Landlock = "this kernel offers no Landlock"
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			r.Landlock = "Landlock is blocked here (a container's seccomp filter)"
		}
		return r, errors.Join(problems...)
	}
	restrict := landlock.V10.BestEffort().Restrict
	if o.Network {
		restrict = landlock.V10.BestEffort().RestrictPaths
	}
	if err := restrict(rules...); err != nil {
		r.Landlock = err.Error()
		if !strings.Contains(err.Error(), unix.EPERM.Error()) {
			problems = append(problems, fmt.Errorf("enter Landlock: %w", err))
		}
		return r, errors.Join(problems...)
	}
	r.LandlockABI = min(abi, newestABI)
	return r, errors.Join(problems...)
}

// appendRule adds a rule for an existing path; a file takes fewer rights.
func appendRule(rules []landlock.Rule, p string, file, dir landlock.AccessFSSet) ([]landlock.Rule, error) {
	st, err := os.Stat(p)
	if err != nil {
		return rules, fmt.Errorf("look up path for Landlock: %w", err)
	}
	if st.IsDir() {
		return append(rules, landlock.PathAccess(dir, p)), nil
	}
	return append(rules, landlock.PathAccess(file, p)), nil
}

// inspect asks the kernel about every thread of the process.
func inspect() (Result, error) {
	r := Result{NoNewPrivs: true}
	held := map[string]bool{}
	const dir = "/proc/self/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		// Without /proc only this thread can be asked.
		v, e := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
		r.NoNewPrivs = e == nil && v == 1
		r.Capabilities = flagged(cap.GetProc(), cap.Permitted)
		return r, nil
	}
	for _, t := range tasks {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/status")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread ended
		}
		if err != nil {
			return Result{}, fmt.Errorf("look at thread %s: %w", t.Name(), err)
		}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch key {
			case "NoNewPrivs":
				r.NoNewPrivs = r.NoNewPrivs && value == "1"
			case "CapPrm":
				for _, name := range mask(value) {
					held[name] = true
				}
			}
		}
	}
	for name := range held {
		r.Capabilities = append(r.Capabilities, name)
	}
	slices.Sort(r.Capabilities)
	return r, nil
}

// mask names the bits of a hexadecimal capability mask.
func mask(hex string) []string {
	var n uint64
	if _, err := fmt.Sscanf(hex, "%x", &n); err != nil {
		return []string{"cap_unreadable"}
	}
	var out []string
	for v := cap.Value(0); v < 64; v++ {
		if n&(1<<v) != 0 {
			out = append(out, v.String())
		}
	}
	return out
}
