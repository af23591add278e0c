package scratch

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// home is where the jail keeps what nft is made of.
const home = "/.sixfence"

// tool is nft as it is found inside the jail.
type tool struct {
	path string
	env  []string
}

// system are the lists of names that nft may look into, copied as they are.
var system = []string{"/etc/protocols", "/etc/services", "/etc/passwd", "/etc/group"}

// made are files of our own. Host names are never asked for: the answer would be that of
// this machine, today.
var made = map[string]string{
	"/etc/nsswitch.conf":   "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
	"/etc/hosts":           "127.0.0.1 localhost\n::1 localhost\n",
	"/etc/iproute2/group":  "0 default\n",
	"/etc/host.conf":       "multi off\n",
	"/etc/resolv.conf":     "",
	home + "/input/.empty": "",
}

// jail makes a root directory in memory that holds nft and nothing else of the host,
// and moves in.
func jail(nft string) (*tool, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	parts, interp, err := closure(nft)
	if err != nil {
		return nil, err
	}
	type bind struct {
		fd int
		to string
	}
	var binds []bind
	defer func() {
		for _, b := range binds {
			_ = unix.Close(b.fd)
		}
	}()
	// Opened before the new root hides what is below it.
	open := func(from, to string) error {
		fd, err := unix.Open(from, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", from, err)
		}
		binds = append(binds, bind{fd, to})
		return nil
	}
	t := &tool{path: home + "/nft", env: []string{"LD_LIBRARY_PATH=" + home + "/lib", "LC_ALL=C", "TZ=UTC"}}
	if err := open(nft, t.path); err != nil {
		return nil, err
	}
	for name, path := range parts {
		if err := open(path, home+"/lib/"+name); err != nil {
			return nil, err
		}
	}
	if interp != "" {
		if err := open(interp, interp); err != nil {
			return nil, err
		}
	}
	files := map[string][]byte{}
	for _, p := range system {
		if b, err := os.ReadFile(p); err == nil && len(b) < 4<<20 {
			files[p] = b
		}
	}
	for p, text := range made {
		files[p] = []byte(text)
	}
	base, err := mountRoot()
	if err != nil {
		return nil, err
	}
	for p, b := range files {
		if err := place(base+p, b, 0o444); err != nil {
			return nil, err
		}
	}
	for _, b := range binds {
		if err := place(base+b.to, nil, 0o555); err != nil {
			return nil, err
		}
		if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(b.fd), base+b.to, "", unix.MS_BIND, ""); err != nil {
			return nil, fmt.Errorf("bind %s: %w", b.to, err)
		}
	}
	return t, enter(base)
}

// mountRoot mounts the new root over some directory that every system has.
func mountRoot() (string, error) {
	var last error
	for _, dir := range []string{"/tmp", "/run", "/var", "/mnt", "/srv"} {
		err := unix.Mount("sixfence", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1g,nr_inodes=16384")
		if err == nil {
			return dir, nil
		}
		last = err
	}
	return "", fmt.Errorf("mount a root directory in memory: %w", last)
}

// enter makes base the root directory, and forgets the old one.
func enter(base string) error {
	if err := os.Chdir(base); err != nil {
		return fmt.Errorf("enter jail: %w", err)
	}
	err := unix.PivotRoot(".", ".")
	if err == nil {
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("leave the old root: %w", err)
		}
	} else {
		// The root of an initial RAM disk cannot be pivoted.
		if e := unix.Mount(".", "/", "", unix.MS_MOVE, ""); e != nil {
			return fmt.Errorf("enter jail: %w", err)
		}
		if e := unix.Chroot("."); e != nil {
			return fmt.Errorf("enter jail: %w", e)
		}
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("enter jail: %w", err)
	}
	return nil
}

// place writes a file and makes the directories above it.
func place(path string, b []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil // the first one stays: those of the jail
	}
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}

// closure lists the libraries of a program by the name they are asked for, and its
// dynamic loader. A static program has neither.
func closure(path string) (libs map[string]string, interp string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, "", fmt.Errorf("read %s: %w", path, err)
			}
			interp = strings.TrimRight(string(b), "\x00")
		}
	}
	libs = map[string]string{}
	if interp == "" {
		return libs, "", nil
	}
	dirs := []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib64", "/usr/local/lib", filepath.Dir(interp)}
	for _, g := range []string{"/lib/*-linux-*", "/usr/lib/*-linux-*", "/usr/local/lib/*-linux-*"} {
		more, _ := filepath.Glob(g)
		dirs = append(dirs, more...)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	err = needed(path, f, f.Machine, dirs, libs, 0)
	return libs, interp, err
}

// needed adds what an ELF file needs, and what that needs.
func needed(path string, f *elf.File, m elf.Machine, dirs []string, libs map[string]string, depth int) error {
	names, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	var own []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		list, _ := f.DynString(tag)
		for _, l := range list {
			for d := range strings.SplitSeq(l, ":") {
				own = append(own, strings.NewReplacer("$ORIGIN", filepath.Dir(path), "${ORIGIN}", filepath.Dir(path)).Replace(d))
			}
		}
	}
	for _, n := range names {
		if libs[n] != "" || strings.Contains(n, "/") {
			continue
		}
		found := false
		for _, d := range append(own, dirs...) {
			p := filepath.Join(d, n)
			lib, err := elf.Open(p)
			if err != nil {
				continue
			}
			if lib.Machine == m && lib.Class == f.Class && depth < 16 {
				libs[n], found = p, true
				real := p
				if r, err := filepath.EvalSymlinks(p); err == nil {
					real = r
				}
				err = needed(real, lib, m, append(dirs, own...), libs, depth+1)
			}
			_ = lib.Close()
			if err != nil {
				return err
			}
			if found {
				break
			}
		}
		if !found {
			return fmt.Errorf("find library %s of %s: %w", n, path, fs.ErrNotExist)
		}
	}
	return nil
}
