package mutate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
)

func (h *Host) sysctlPath(target string) (string, error) {
	if target == "" || filepath.IsAbs(target) || filepath.Clean(target) != target || strings.HasPrefix(target, "..") {
		return "", fmt.Errorf("sysctl %q: not a path below /proc/sys", target)
	}
	root := h.Proc
	if root == "" {
		root = "/proc/sys"
	}
	return filepath.Join(root, target), nil
}

// sysctlWant is a value as it compares: white space between words is one space.
func sysctlWant(v string) string { return "= " + strings.Join(strings.Fields(v), " ") }

func (h *Host) sysctlState(target string) (string, error) {
	v, err := h.sysctlRead(target)
	switch {
	case errors.Is(err, unix.EIO): // stable_secret that was never set
		return Absent, nil
	case err != nil:
		return "", err
	}
	return sysctlWant(v), nil
}

func (h *Host) sysctlRead(target string) (string, error) {
	p, err := h.sysctlPath(target)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(p)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	return string(b), nil
}

// oneWay are keys that the kernel never takes back.
var oneWay = []string{"kernel/modules_disabled", "kernel/kexec_load_disabled", "kernel/unprivileged_bpf_disabled", "kernel/yama/ptrace_scope"}

// Reversible tells why a change of this object could not be undone; nil when it can.
func (h *Host) Reversible(k change.Kind, target, before string) error {
	switch {
	case k == change.Sysctl && slices.Contains(oneWay, target):
		return fmt.Errorf("set %s: the kernel never takes it back: %w", target, ErrNoWayBack)
	case k == change.Sysctl && before == Absent:
		return fmt.Errorf("set %s: it has no value now, and none can be taken from it: %w", target, ErrNoWayBack)
	}
	return nil
}

func (h *Host) sysctlSet(target string, i change.Image) error {
	if i.Absent {
		return fmt.Errorf("set %s: a sysctl cannot be taken away", target)
	}
	p, err := h.sysctlPath(target)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(p, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	defer f.Close()
	// One write: the kernel takes each as a value of its own.
	if _, err := f.WriteString(strings.TrimSpace(i.Text) + "\n"); err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	return nil
}

// Value is a sysctl and what it was.
type Value struct {
	Target string `json:"target"`
	Before string `json:"before"` // a state
	Ours   string `json:"ours"`
}

// Text is the value of a sysctl's state.
func Text(state string) string { return strings.TrimPrefix(state, "= ") }

// overwrites are the keys of conf/all that overwrite the same key everywhere else,
// and what else they write.
var overwrites = map[string][]string{
	"net/ipv6/conf/all/disable_ipv6":                nil,
	"net/ipv6/conf/all/forwarding":                  nil,
	"net/ipv6/conf/all/addr_gen_mode":               nil,
	"net/ipv6/conf/all/ignore_routes_with_linkdown": nil,
	"net/ipv6/conf/all/force_forwarding":            nil,
	"net/ipv4/conf/all/forwarding":                  {"net/ipv4/ip_forward", "net/ipv4/conf/all/accept_redirects"},
	"net/ipv4/ip_forward":                           {"net/ipv4/conf/all/forwarding", "net/ipv4/conf/all/accept_redirects"},
}

// Overwrites reads the other sysctls that setting this one changes.
func (h *Host) Overwrites(target string) ([]Value, error) {
	more, is := overwrites[target]
	if !is {
		return nil, nil
	}
	pattern := strings.Replace(target, "/all/", "/*/", 1)
	if target == "net/ipv4/ip_forward" {
		pattern = "net/ipv4/conf/*/forwarding"
	}
	p, err := h.sysctlPath(strings.Replace(pattern, "*", "all", 1))
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(filepath.Dir(p))
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var out []Value
	add := func(t string) error {
		if t == target {
			return nil
		}
		s, err := h.sysctlState(t)
		if errors.Is(err, unix.ENOENT) {
			return nil // the interface is just gone
		}
		if err == nil {
			out = append(out, Value{Target: t, Before: s})
		}
		return err
	}
	for _, n := range names {
		if err := add(strings.Replace(pattern, "*", n.Name(), 1)); err != nil {
			return nil, err
		}
	}
	for _, t := range more {
		if err := add(t); err != nil {
			return nil, err
		}
	}
	return out, nil
}
