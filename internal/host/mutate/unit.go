package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/model/change"
)

// program finds the first of some programs.
func program(paths ...string) string {
	for _, p := range paths {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// ErrNoProgram says that what would have to do it is not installed.
var ErrNoProgram = errors.New("the program for it is not installed")

func (h *Host) systemctl(args ...string) (run.Result, error) {
	p := program("/usr/bin/systemctl", "/bin/systemctl")
	if p == "" {
		return run.Result{}, fmt.Errorf("systemctl: %w", ErrNoProgram)
	}
	if h.Root != "" {
		args = append([]string{"--root=" + h.Root}, args...)
	}
	return run.Run(context.Background(), run.Program{Path: p, Args: args, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Timeout: time.Minute})
}

// unitState is "enabled" or "disabled". A unit that is not there is disabled: its file
// is another object.
func (h *Host) unitState(name string) (string, error) {
	r, err := h.systemctl("is-enabled", name)
	if errors.Is(err, ErrNoProgram) {
		return "disabled", nil
	}
	if err != nil {
		return "", err
	}
	if s := strings.TrimSpace(string(r.Stdout)); s == "enabled" || s == "enabled-runtime" {
		return "enabled", nil
	}
	return "disabled", nil
}

func (h *Host) unitSet(name string, i change.Image) error {
	verb := "enable"
	if i.Absent || i.Text == "disabled" {
		verb = "disable"
	}
	r, err := h.systemctl(verb, name)
	if err != nil {
		return err
	}
	if r.Exit != 0 && !i.Absent {
		return fmt.Errorf("%s unit %s: %s", verb, name, strings.TrimSpace(string(r.Stderr)))
	}
	if h.Root != "" || !SystemdHere() {
		return nil // what runs is not ours to start and stop
	}
	// It runs from now on, or no longer, as it will after a boot. Nobody waits: at boot this
	// is done by a unit that others wait for.
	act := map[string]string{"enable": "start", "disable": "stop"}[verb]
	if r, err = h.systemctl("--no-block", act, name); err != nil {
		return err
	}
	if r.Exit != 0 && act == "start" {
		return fmt.Errorf("start unit %s: %s", name, strings.TrimSpace(string(r.Stderr)))
	}
	return nil
}

// SystemdHere tells whether PID 1 is a systemd that works in our namespaces: a unit of
// another one's would act on the host's network and files, not on ours.
func SystemdHere() bool {
	if st, err := os.Stat("/run/systemd/system"); err != nil || !st.IsDir() {
		return false
	}
	for _, ns := range []string{"net", "mnt", "pid"} {
		a, err1 := os.Readlink("/proc/1/ns/" + ns)
		b, err2 := os.Readlink("/proc/self/ns/" + ns)
		if err1 != nil || err2 != nil || a != b {
			return false
		}
	}
	return true
}

// ErrRejected says that the program which reads a file refuses it: what was written must
// not stay.
var ErrRejected = errors.New("the program that reads what was written refuses it")

// nmNotRunning is what nmcli exits with where NetworkManager does not run (nmcli(1)).
const nmNotRunning = 8

// act performs an action by its name.
func (h *Host) act(name string) error {
	var p string
	var runs [][]string
	switch name {
	case "initramfs":
		if p = program("/usr/sbin/update-initramfs"); p != "" {
			runs = [][]string{{"-u"}}
		} else if p = program("/usr/bin/dracut", "/usr/sbin/dracut"); p != "" {
			runs = [][]string{{"--force", "--regenerate-all"}}
		}
	case "networkctl-reload":
		p, runs = program("/usr/bin/networkctl", "/bin/networkctl"), [][]string{{"reload"}}
	case "daemon-reload":
		p, runs = program("/usr/bin/systemctl", "/bin/systemctl"), [][]string{{"daemon-reload"}}
	case "nmcli-reload":
		p, runs = program("/usr/bin/nmcli"), [][]string{{"connection", "reload"}, {"general", "reload", "conf"}}
	case "netplan-generate":
		p, runs = program("/usr/sbin/netplan"), [][]string{{"generate"}}
	default:
		return fmt.Errorf("action %q is not known", name)
	}
	if p == "" {
		return fmt.Errorf("action %s: %w", name, ErrNoProgram)
	}
	for _, args := range runs {
		r, err := run.Run(context.Background(), run.Program{Path: p, Args: args, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Timeout: 10 * time.Minute})
		if err != nil {
			return err
		}
		if r.Exit != 0 && name == "nmcli-reload" {
			if _, err := os.Stat("/run/dbus/system_bus_socket"); err != nil || r.Exit == nmNotRunning {
				return nil // it reads the files when it starts
			}
		}
		if r.Exit != 0 {
			err := fmt.Errorf("action %s: %s", name, strings.TrimSpace(string(r.Stderr)))
			if name == "netplan-generate" { // the next boot would have no network
				err = errors.Join(err, ErrRejected)
			}
			return err
		}
	}
	return nil
}
