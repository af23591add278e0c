package apply

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// The boot hook finishes a confirmation that a power cut interrupted. It is there only
// while files are being put in their places: between the staging and the end.
const (
	unitDir    = "/etc/systemd/system"
	bootUnit   = "sixfence-resume.service"
	bootTarget = "sysinit.target.wants"
)

// ResumeVerb is the verb that the boot hook calls.
const ResumeVerb = "resume"

const bootText = `# Written by sixfence; it removes it when the change that it confirms is complete.
[Unit]
Description=sixfence: complete a change that was confirmed when the power failed
DefaultDependencies=no
After=local-fs.target systemd-remount-fs.service
Before=network-pre.target systemd-sysctl.service systemd-modules-load.service sixfence-firewall.service shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
ConditionPathExists=%[1]s/pending/journal

[Service]
Type=oneshot
ExecStart=%[1]s/pending/sixfence harden resume --state-dir %[1]s
`

// hookBoot installs the hook, where systemd boots the host. Its program is our own
// copy, which is not on the disk before.
func (e *Engine) hookBoot(t *transaction) error {
	d, err := e.layer().Open(filepath.Join(e.Host.Root, unitDir))
	if errors.Is(err, unix.ENOENT) {
		return nil // the next command of ours completes it there
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if strings.ContainsAny(e.stateDir(), " \t\n%\"'\\$") {
		return fmt.Errorf("the state directory %q has a character that a unit cannot name", e.stateDir())
	}
	if err := t.dir.SyncFile(programFile); err != nil {
		return err
	}
	if err := t.dir.Sync(); err != nil {
		return err
	}
	if err := d.Replace(bootUnit, fmt.Appendf(nil, bootText, e.stateDir()), store.Attr{Mode: 0o644}); err != nil {
		return fmt.Errorf("install boot hook: %w", err)
	}
	w, err := d.Sub(bootTarget)
	if errors.Is(err, unix.ENOENT) {
		if err := e.layer().MkdirAll(filepath.Join(d.Path(), bootTarget), 0o755); err != nil {
			return err
		}
		w, err = d.Sub(bootTarget)
	}
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Symlink("../"+bootUnit, bootUnit); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("install boot hook: %w", err)
	}
	return w.Sync()
}

// unhookBoot removes the hook.
func (e *Engine) unhookBoot() error {
	d, err := e.layer().Open(filepath.Join(e.Host.Root, unitDir))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if w, err := d.Sub(bootTarget); err == nil {
		defer w.Close()
		if w.Has(bootUnit) {
			if err := errors.Join(w.Remove(bootUnit), w.Sync()); err != nil {
				return err
			}
		}
		if names, err := w.List(); err == nil && len(names) == 0 {
			_ = d.Rmdir(bootTarget)
		}
	}
	was := d.Has(bootUnit)
	for _, n := range []string{bootUnit, "." + bootUnit + ".new"} {
		if !d.Has(n) {
			continue
		}
		if err := d.Remove(n); err != nil {
			return err
		}
	}
	if err := d.Sync(); err != nil {
		return err
	}
	if was && e.Host.Root == "" && mutate.SystemdHere() {
		// systemd remembers units whose files are gone: the hook, and those that an undo took.
		if _, err := systemTool("systemctl", "daemon-reload"); err != nil {
			e.log("systemd remembers units of ours that are gone", "cause", err)
		}
	}
	return nil
}

// syncUnits makes durable what systemctl wrote.
func (e *Engine) syncUnits() error {
	d, err := e.layer().Open(filepath.Join(e.Host.Root, unitDir))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.SyncAll()
}

// SystemdInstalled tells whether units of ours would be started with the host: systemd runs
// it, or is what /sbin/init leads to, as in an image that is being made. systemctl alone
// tells nothing: Debian keeps it beside another init.
func SystemdInstalled() bool {
	if findProgram("systemctl") == "" {
		return false
	}
	if st, err := os.Stat("/run/systemd/system"); err == nil && st.IsDir() {
		return true
	}
	to, err := filepath.EvalSymlinks("/sbin/init")
	if err != nil || filepath.Base(to) != "systemd" {
		return false
	}
	st, err := os.Stat(to)
	return err == nil && st.Mode().IsRegular()
}

// ephemeral are the objects in force that nothing on this host sets again when it starts.
func ephemeral(list []held) (out []string) {
	if SystemdInstalled() {
		return nil
	}
	for _, h := range list {
		if h.step.Kind == change.Table && h.ours != mutate.Absent {
			out = append(out, "the rules ("+h.step.ID+"): no systemd loads them when this host starts")
		}
	}
	return out
}

// booted is when this boot began: when PID 1 was started, which in a container is later.
func booted() time.Time {
	ticks, err := strconv.ParseInt(started(1), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(bootTime()-10*ticks) * time.Millisecond) // USER_HZ is 100
}
