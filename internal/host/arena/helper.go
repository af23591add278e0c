package arena

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/host/scratch"
)

var self = run.Helper{Name: "sixfence-arena", Life: maxLife, Main: func(nft string) int { return help(nft, os.Stdin, os.Stdout) }}

func init() { self.Hook() }

// helper is the state of the namespaces.
type helper struct {
	nft   string
	env   []string
	proc  int         // of /proc: the root directory has none
	tun   int         // a path to /dev/net/tun; below 0: none
	far   chan func() // runs in the namespace of the far ends
	farID int         // its thread
	wires map[string]*wire
	guest map[string]*wire // of bridges
	names map[uint32]string
	conns []net.Conn
}

func help(nft string, in io.Reader, out io.Writer) int {
	h := &helper{wires: map[string]*wire{}, guest: map[string]*wire{}, names: map[uint32]string{}}
	enc := gob.NewEncoder(out)
	if err := h.init(nft); err != nil {
		return exit(enc.Encode(answer{Why: err.Error(), Unavailable: true, Hint: "allow namespaces, or run as root on the host itself"}))
	}
	if enc.Encode(answer{}) != nil {
		return 1
	}
	requests := make(chan request)
	go func() {
		dec := gob.NewDecoder(in)
		for {
			var r request
			if dec.Decode(&r) != nil {
				run.CallerEnded()
			}
			requests <- r
		}
	}()
	for r := range requests {
		var a answer
		if err := h.do(r, &a); err != nil {
			a.Why = err.Error()
			var u *UnavailableError
			var rules *RulesError
			switch {
			case errors.As(err, &u):
				a.Unavailable, a.Hint = true, u.Hint
			case errors.As(err, &rules):
				a.Rules = true
			}
		}
		if enc.Encode(a) != nil {
			return 1
		}
	}
	return 0
}

func exit(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

func (h *helper) init(nft string) error {
	var err error
	if h.proc, err = unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /proc: %w", err)
	}
	if h.tun, err = unix.Open("/dev/net/tun", unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		h.tun = -1
	}
	if h.nft, h.env, err = scratch.Jail(nft); err != nil {
		return err
	}
	h.far = make(chan func())
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: this thread is in another namespace
		h.farID = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			// What is sent is handled in the order in which it is sent: by one processor.
			var set unix.CPUSet
			if unix.SchedGetaffinity(0, &set) == nil {
				for cpu := range 1024 {
					if set.IsSet(cpu) {
						set.Zero()
						set.Set(cpu)
						_ = unix.SchedSetaffinity(0, &set)
						break
					}
				}
			}
			for _, k := range []string{"all", "default"} {
				_ = h.write("net/ipv6/conf/"+k+"/disable_ipv6", "1")
			}
		}
		ready <- err
		for f := range h.far {
			f()
		}
	}()
	if err := <-ready; err != nil {
		return fmt.Errorf("make a second network namespace: %w", err)
	}
	// A system whose /proc/sys cannot be written has nothing to prove settings with.
	if err := h.write("net/ipv4/conf/lo/forwarding", "0"); err != nil {
		return fmt.Errorf("write settings of a scratch namespace: %w", err)
	}
	return nil
}

// there runs f in the namespace of the far ends.
func (h *helper) there(f func() error) error {
	done := make(chan error)
	h.far <- func() { done <- f() }
	return <-done
}

func (h *helper) do(r request, a *answer) (err error) {
	switch {
	case r.Setup != nil:
		a.Failed, err = h.setup(r.Setup)
	case r.Set != nil:
		for _, s := range r.Set {
			if e := h.write(s.Path, s.Value); e != nil {
				a.Failed = append(a.Failed, s.Path+": "+e.Error())
			} else if got, e := h.read(s.Path); e != nil || got != strings.Join(strings.Fields(s.Value), " ") {
				a.Failed = append(a.Failed, fmt.Sprintf("%s: it is %q after %q was written", s.Path, got, s.Value))
			}
		}
	case r.Load != "":
		err = h.load(r.Load)
	case r.Replay != nil:
		var f Foreign
		if err = json.Unmarshal(r.Replay, &f); err == nil {
			a.Refused = replay(&f)
		}
	case r.Fire != nil:
		if f := r.Fire; f.Guest {
			a.Six, a.Four, err = h.pass(f)
			break
		}
		a.Six, a.Four, err = h.fire(r.Fire)
	case r.Try != nil:
		a.Outcomes, err = h.try(r.Try)
	case r.Begin != nil:
		var c net.Conn
		if c, err = net.DialTimeout("udp", r.Begin.String(), time.Second); err == nil {
			h.conns = append(h.conns, c)
			if _, err = c.Write([]byte("x")); err == nil {
				a.Flow = Flow{c.LocalAddr().(*net.UDPAddr).AddrPort(), *r.Begin}
			}
		}
	case r.Send != nil:
		a.Sent, err = h.send(r.Send)
	case r.Lookup != nil:
		a.Ways, err = h.lookup(r.Lookup)
	case r.Address:
		a.Addresses, err = h.addresses()
	case r.Fill != "":
		a.Filled, err = fill(r.Fill)
	}
	return err
}

// load runs nft.
func (h *helper) load(script string) error {
	r, err := run.Run(context.Background(), run.Program{
		Path: h.nft, Name: "nft", Args: []string{"-f", "-"}, Env: h.env, Stdin: []byte(script), Timeout: 20 * time.Second,
		Limits: []run.Limit{{Resource: unix.RLIMIT_AS, Value: 2 << 30}, {Resource: unix.RLIMIT_CPU, Value: 20}},
	})
	switch {
	case err != nil:
		return fmt.Errorf("load rules: %w", err)
	case r.Exit != 0:
		return &RulesError{"the kernel does not take the rules: " + strings.TrimSpace(string(r.Stderr))}
	}
	return nil
}

func (h *helper) sysctl(path string, flags int) (*os.File, error) {
	fd, err := unix.Openat(h.proc, "sys/"+path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (h *helper) write(path, value string) error {
	f, err := h.sysctl(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	return err
}

func (h *helper) read(path string) (string, error) {
	f, err := h.sysctl(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return strings.Join(strings.Fields(string(b)), " "), err
}
