package mutate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/selinux"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// maxFile bounds a file that we replace, in bytes.
const maxFile = 16 << 20

func fileWant(i change.Image) string {
	sum := sha256.Sum256([]byte(i.Text))
	mode := i.Mode
	if mode == 0 {
		mode = 0o644
	}
	return fmt.Sprintf("file %s %04o %d:%d", hex.EncodeToString(sum[:]), mode, i.UID, i.GID)
}

func (h *Host) open(target string) (*store.Dir, string, error) {
	if !filepath.IsAbs(target) || filepath.Clean(target) != target || target == "/" {
		return nil, "", fmt.Errorf("file %q: not an absolute path", target)
	}
	d, err := h.Layer.Open(filepath.Join(h.Root, filepath.Dir(target)))
	return d, filepath.Base(target), err
}

func stateIn(d *store.Dir, name string) (string, error) {
	b, i, err := d.Read(name, maxFile)
	if errors.Is(err, unix.ENOENT) {
		return Absent, nil
	}
	if err != nil {
		return "", err
	}
	return fileWant(change.Image{Text: string(b), Mode: i.Mode, UID: i.UID, GID: i.GID}), nil
}

func (h *Host) fileState(target string) (string, error) {
	d, name, err := h.open(target)
	if errors.Is(err, unix.ENOENT) {
		return Absent, nil
	}
	if err != nil {
		return "", err
	}
	defer d.Close()
	return stateIn(d, name)
}

// Image reads a file whole. Of a symbolic link it says where it leads, as "-> there":
// a link is never replaced, so that a plan made from that is refused.
func (h *Host) Image(target string) (change.Image, error) {
	d, name, err := h.open(target)
	if errors.Is(err, unix.ENOENT) {
		return change.Image{Absent: true}, nil
	}
	if err != nil {
		return change.Image{}, err
	}
	defer d.Close()
	b, i, err := d.Read(name, maxFile)
	if errors.Is(err, unix.ENOENT) {
		return change.Image{Absent: true}, nil
	}
	if err != nil {
		if to, e := os.Readlink(filepath.Join(h.Root, target)); e == nil {
			return change.Image{Text: "-> " + to, Mode: 0o777}, nil
		}
		return change.Image{}, err
	}
	return change.Image{Text: string(b), Mode: i.Mode, UID: i.UID, GID: i.GID, Label: i.Label}, nil
}

// MissingDirs are the parents of a file that are not there, outermost first.
func (h *Host) MissingDirs(target string) ([]string, error) {
	var out []string
	for dir := filepath.Dir(target); dir != "/"; dir = filepath.Dir(dir) {
		d, err := h.Layer.Open(filepath.Join(h.Root, dir))
		if err == nil {
			d.Close()
			break
		}
		if !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		out = append([]string{dir}, out...)
	}
	return out, nil
}

// Writable tells why no file could be put in that place; nil where one can, for all that is
// seen. What is mounted read-only is so for root, too.
func (h *Host) Writable(target string) error {
	for dir := filepath.Dir(target); ; dir = filepath.Dir(dir) {
		err := unix.Access(filepath.Join(h.Root, dir), unix.W_OK)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			return fmt.Errorf("write in %s: %w", dir, err)
		}
	}
}

// makeDirs makes the directories of a file, with the labels that they are to have.
func (h *Host) makeDirs(target string) error {
	missing, err := h.MissingDirs(target)
	if err != nil {
		return err
	}
	if err := h.Layer.MkdirAll(filepath.Join(h.Root, filepath.Dir(target)), 0o755); err != nil || len(missing) == 0 {
		return err
	}
	policy, err := selinux.Read(h.Root)
	if err != nil {
		return err
	}
	for _, m := range missing {
		label := policy.Label(m, unix.S_IFDIR)
		if label == "" {
			continue
		}
		d, name, err := h.open(m)
		if err != nil {
			return err
		}
		err = d.Relabel(name, label)
		d.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Label is what the host's SELinux wants a file of that path to be labelled; empty
// where there is none. An unreadable policy is an error: with a wrong label a file may
// be one that nobody can read at the next boot.
func (h *Host) Label(path string) (string, error) {
	p, err := selinux.Read(h.Root)
	return p.Label(path, unix.S_IFREG), err
}

// RemoveDirs removes directories that we made, innermost first, where they are empty.
func (h *Host) RemoveDirs(dirs []string) {
	for i := len(dirs) - 1; i >= 0; i-- {
		d, name, err := h.open(dirs[i])
		if err != nil {
			continue
		}
		if d.Rmdir(name) == nil {
			_ = d.Sync()
		}
		d.Close()
	}
}

// aside is the name, beside a file, that its new content has before Promote, and its
// old content afterwards. It begins with a dot and ends in a way that no directory of
// drop-ins reads.
func aside(name, id string) string { return "." + name + "." + id + ".sixfence" }

// Stage puts the new content beside the file, complete and on the disk. Nothing that
// is read by anybody changes. It may be repeated.
func (h *Host) Stage(target, id string, after change.Image) error {
	if err := h.ask(change.File, target); err != nil {
		return fmt.Errorf("stage %s: %w", target, err)
	}
	if after.Absent {
		return nil
	}
	if err := h.makeDirs(target); err != nil {
		return err
	}
	d, name, err := h.open(target)
	if err != nil {
		return err
	}
	defer d.Close()
	temp := aside(name, id)
	s, err := stateIn(d, temp)
	switch {
	case err != nil:
		return err
	case s == fileWant(after):
		if err := d.Inherit(temp, name); err != nil {
			return err
		}
		return d.Sync()
	case s != Absent:
		if err := d.Remove(temp); err != nil {
			return err
		}
	}
	mode := after.Mode
	if mode == 0 {
		mode = 0o644
	}
	label := after.Label
	if label == "" {
		if _, i, err := d.Read(name, maxFile); err == nil {
			label = i.Label
		}
	}
	if label == "" {
		if label, err = h.Label(target); err != nil {
			return err
		}
	}
	if err := d.Write(temp, []byte(after.Text), store.Attr{Mode: mode, UID: after.UID, GID: after.GID, Label: label}); err != nil {
		return err
	}
	if err := d.Inherit(temp, name); err != nil {
		return err
	}
	return d.Sync()
}

// ConflictError says that somebody else changed an object meanwhile: what they wrote
// is kept.
type ConflictError struct {
	Target string
	Now    string
}

// Error implements error.
func (e *ConflictError) Error() string {
	return e.Target + " was changed by somebody else meanwhile; that is kept"
}

// Promote puts the staged content in the file's place, at once, and keeps the old
// file, the very same inode, beside it. It may be repeated: what is done stays done.
func (h *Host) Promote(target, id, before, ours string) error {
	if err := h.ask(change.File, target); err != nil {
		return fmt.Errorf("promote %s: %w", target, err)
	}
	return h.swap(target, id, before, ours)
}

// Demote is Promote undone.
func (h *Host) Demote(target, id, before, ours string) error {
	if err := h.ask(change.File, target); err != nil {
		return fmt.Errorf("restore %s: %w", target, err)
	}
	return h.swap(target, id, ours, before)
}

// swap takes a file from one state to the other; the one it leaves is kept aside.
func (h *Host) swap(target, id, from, to string) error {
	d, name, err := h.open(target)
	if errors.Is(err, unix.ENOENT) && to == Absent {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	now, err := stateIn(d, name)
	if err != nil {
		return err
	}
	temp := aside(name, id)
	switch {
	case now == to:
		return d.Sync()
	case now != from:
		return &ConflictError{Target: target, Now: now}
	case to == Absent:
		// Somebody's later content would go with it: take it, look at it, put it back.
		if d.Has(temp) {
			if err := d.Remove(temp); err != nil {
				return err
			}
		}
		if err := d.Move(name, temp); err != nil {
			return err
		}
		if s, err := stateIn(d, temp); err != nil || s != from {
			_ = d.Move(temp, name)
			return &ConflictError{Target: target, Now: s}
		}
	case from == Absent:
		if err := d.Move(temp, name); errors.Is(err, unix.EEXIST) {
			return &ConflictError{Target: target, Now: "present"}
		} else if err != nil {
			return err
		}
	default:
		if s, err := stateIn(d, temp); err != nil || s != to {
			return fmt.Errorf("put %s in its place: the content beside it is not the one expected (%s): %w", target, s, errors.Join(err, ErrNoWayBack))
		}
		err := d.Exchange(temp, name)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			// A file system that cannot exchange: two renames, the old file kept first.
			old := temp + ".old"
			if err = d.Rename(name, old); err == nil {
				if err = d.Rename(temp, name); err == nil {
					err = d.Rename(old, temp)
				}
			}
		}
		if err != nil {
			return err
		}
		if s, err := stateIn(d, temp); err != nil || s != from {
			if e := d.Exchange(temp, name); e == nil {
				return &ConflictError{Target: target, Now: s}
			}
		}
	}
	return d.Sync()
}

// Forget removes what Stage and Promote left beside the file.
func (h *Host) Forget(target, id string) error {
	d, name, err := h.open(target)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	temp := aside(name, id)
	if !d.Has(temp) {
		return nil
	}
	if err := d.Remove(temp); err != nil {
		return err
	}
	return d.Sync()
}

// Ours tells whether a name in a directory is one that Stage makes.
func Ours(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".sixfence")
}
