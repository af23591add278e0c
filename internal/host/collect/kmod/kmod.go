// Package kmod reads what kernel modules a host has loaded, built in and could
// load, what the boot loader decided, and what an unprivileged user may create.
//
// It also answers the question that keeps an audit read-only: is a subsystem
// there already, so that asking it loads nothing (Present)? The answer comes from
// files alone. A kernel without module support can load nothing, so everything may
// be asked there.
//
// In a directory tree (audit --root) the module files of the newest kernel release
// below /lib/modules are read, and nothing of /proc or /sys.
package kmod

import (
	"bytes"
	"compress/gzip"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// maxIndex bounds depmod's files, in bytes: modules.alias of a full distribution
// kernel has 2 MB.
const maxIndex = 16 << 20

// Source is what is read of a host; *tree.Tree is one.
type Source interface {
	Live() bool
	ReadFile(name string, max int64) fact.Known[[]byte]
	List(dir string) fact.Known[[]string]
	Stat(name string) fact.Known[tree.Info]
}

// Dump is what was read, not yet interpreted.
type Dump struct {
	live    bool
	release string

	procKernel bool               // /proc/sys/kernel is there, so that a missing key means something
	disabled   fact.Known[[]byte] // /proc/sys/kernel/modules_disabled
	modules    fact.Known[[]byte] // /proc/modules
	sysBuiltin map[string]bool    // /sys/module/X without initstate: built in
	sysLoaded  map[string]bool    // /sys/module/X with initstate: loaded
	builtin    fact.Known[[]byte] // modules.builtin
	config     fact.Known[[]byte] // kernel configuration, unpacked
	dep, alias fact.Known[[]byte] // modules.dep, modules.alias
	cmdline    fact.Known[[]byte] // allow-listed names only, see readCmdline
	params     map[string][]byte  // /sys/module/ipv6/parameters
	paramsErr  *fact.Gap          // why params are unknown
	hasIPv6Mod bool               // /sys/module/ipv6 exists
	osRelease  fact.Known[[]byte] // os-release
	userns     [3]fact.Known[[]byte]
	tun        fact.Known[tree.Info]

	// Parsed at once, because Present is asked while collecting.
	loaded map[string]bool
	built  map[string]bool
}

// Read reads module state, boot parameters and limits on user namespaces; of a
// directory tree only what is on disk.
func Read(t Source) *Dump {
	d := &Dump{live: t.Live(), sysBuiltin: map[string]bool{}, sysLoaded: map[string]bool{}}
	d.osRelease = t.ReadFile("etc/os-release", tree.MaxFile)
	if d.osRelease.State() == fact.StateAbsent {
		d.osRelease = t.ReadFile("usr/lib/os-release", tree.MaxFile)
	}
	if d.live {
		d.readLive(t)
	} else {
		d.release = newestRelease(t)
	}
	d.readDisk(t)
	d.loaded = loadedNames(d.modules.Or(nil))
	d.built = builtinNames(d.builtin.Or(nil))
	for name := range d.sysLoaded {
		d.loaded[name] = true
	}
	for name := range d.sysBuiltin {
		d.built[name] = true
	}
	if _, ok := d.builtin.Get(); !ok {
		for name := range builtinByConfig(d.config.Or(nil)) {
			d.built[name] = true
		}
	}
	return d
}

func (d *Dump) readLive(t Source) {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		d.release = unix.ByteSliceToString(u.Release[:])
	}
	_, d.procKernel = t.Stat("proc/sys/kernel/ostype").Get()
	d.disabled = t.ReadFile("proc/sys/kernel/modules_disabled", 64)
	d.modules = t.ReadFile("proc/modules", maxIndex)
	d.cmdline = readCmdline(t)
	for i, k := range []string{"kernel/unprivileged_userns_clone", "user/max_user_namespaces", "kernel/apparmor_restrict_unprivileged_userns"} {
		d.userns[i] = t.ReadFile("proc/sys/"+k, 64)
	}
	d.tun = t.Stat("dev/net/tun")

	for _, name := range Interest() {
		if _, ok := t.Stat("sys/module/" + name).Get(); !ok {
			continue
		}
		// Only what was loaded has a state; what is built in has parameters at most.
		if _, ok := t.Stat("sys/module/" + name + "/initstate").Get(); ok {
			d.sysLoaded[name] = true
		} else {
			d.sysBuiltin[name] = true
		}
	}
	if !d.procKernel {
		// Without /proc a missing file says nothing.
		blind := fact.Missing[[]byte](fact.Gap{Reason: fact.NotCollected, What: "/proc/sys/kernel is not there (procfs is not mounted, or hidden)"})
		for _, k := range []*fact.Known[[]byte]{&d.disabled, &d.modules, &d.cmdline, &d.userns[0], &d.userns[1], &d.userns[2]} {
			if k.State() == fact.StateAbsent {
				*k = blind
			}
		}
	}
	if d.cmdline.State() == fact.StateAbsent {
		d.cmdline = fact.Missing[[]byte](fact.Gap{Reason: fact.NotCollected, What: "/proc/cmdline is not there"})
	}
	d.hasIPv6Mod = d.sysLoaded["ipv6"] || d.sysBuiltin["ipv6"]
	d.params = map[string][]byte{}
	for _, p := range []string{"disable", "disable_ipv6", "autoconf"} {
		k := t.ReadFile("sys/module/ipv6/parameters/"+p, 64)
		if b, ok := k.Get(); ok {
			d.params[p] = b
		} else if g, gap := k.Gap(); gap {
			d.paramsErr = &g
		}
	}
	if _, ok := t.Stat("sys/module").Get(); !ok {
		d.paramsErr = &fact.Gap{Reason: fact.NotCollected, What: "/sys/module is not there (sysfs is not mounted)"}
	}
}

func (d *Dump) readDisk(t Source) {
	none := fact.Absent[[]byte]()
	d.builtin, d.dep, d.alias, d.config = none, none, none, none
	if d.release == "" || strings.ContainsRune(d.release, '/') || d.release == ".." {
		return
	}
	dir := "lib/modules/" + d.release
	d.builtin = t.ReadFile(dir+"/modules.builtin", maxIndex)
	d.dep = t.ReadFile(dir+"/modules.dep", maxIndex)
	d.alias = t.ReadFile(dir+"/modules.alias", maxIndex)
	d.config = t.ReadFile("boot/config-"+d.release, tree.MaxFile)
	if _, ok := d.config.Get(); !ok && d.live {
		if z, ok := t.ReadFile("proc/config.gz", tree.MaxFile).Get(); ok {
			d.config = gunzip(z)
		}
	}
}

// gunzip unpacks the kernel's own /proc/config.gz, which is needed while
// collecting to answer Present.
func gunzip(z []byte) fact.Known[[]byte] {
	bad := func(err error) fact.Known[[]byte] {
		return fact.Missing[[]byte](fact.Gap{Reason: fact.ParseGap, What: "/proc/config.gz: " + err.Error()})
	}
	r, err := gzip.NewReader(bytes.NewReader(z))
	if err != nil {
		return bad(err)
	}
	b, err := io.ReadAll(io.LimitReader(r, tree.MaxFile))
	if err != nil {
		return bad(err)
	}
	return fact.Value(b)
}

// newestRelease picks among the kernels of a directory tree the newest one that
// has modules.dep, else the newest.
func newestRelease(t Source) string {
	names, _ := t.List("lib/modules").Get()
	var all, full []string
	for _, n := range names {
		if i, ok := t.Stat("lib/modules/" + n).Get(); !ok || !i.IsDir() {
			continue
		}
		all = append(all, n)
		if _, ok := t.Stat("lib/modules/" + n + "/modules.dep").Get(); ok {
			full = append(full, n)
		}
	}
	if len(full) > 0 {
		all = full
	}
	if len(all) == 0 {
		return ""
	}
	return slices.MaxFunc(all, compareRelease)
}

// monolithic tells whether this kernel surely has no loadable modules
// (CONFIG_MODULES=n): neither /proc/modules nor kernel.modules_disabled exist
// although /proc/sys/kernel does.
func (d *Dump) monolithic() bool {
	return d.live && d.procKernel && d.modules.State() == fact.StateAbsent && d.disabled.State() == fact.StateAbsent
}

// Present tells whether a subsystem is loaded or built in, so that asking it cannot
// load a module (see ask.Asker.Present). On a kernel without modules it is true
// unless the kernel's configuration says that it was built without an ebtables
// table: the subsystem answers or not, and nothing can be loaded.
func (d *Dump) Present(subsystem string) bool {
	name := normal(subsystem)
	if s, ok := synonyms[name]; ok {
		name = s
	}
	if d.loaded[name] || d.built[name] || name == "bpf" && d.live {
		return true // bpf is a system call, never a module
	}
	if !d.monolithic() {
		return false
	}
	if strings.HasPrefix(name, "ebtable_") {
		// These cannot be asked at all, so the hint is the best there is.
		_, known := d.config.Get()
		return !known
	}
	return true
}

// Doubt says why a "no" of Present is no proof that the subsystem is not there;
// nil when it is one (see ask.Asker.Doubt).
func (d *Dump) Doubt(subsystem string) *fact.Gap {
	if d.Present(subsystem) || d.monolithic() {
		return nil
	}
	if _, ok := d.modules.Get(); !ok {
		g, gap := d.modules.Gap()
		if !gap {
			g = fact.Gap{Reason: fact.NotCollected}
		}
		return &fact.Gap{Reason: g.Reason, What: "whether " + subsystem + " is loaded (/proc/modules cannot be read)"}
	}
	_, byFile := d.builtin.Get()
	_, byConfig := d.config.Get()
	if !byFile && !byConfig {
		return &fact.Gap{Reason: fact.NotCollected, What: "whether " + subsystem + " is built into the kernel (modules.builtin of " + d.release + " is not visible here)"}
	}
	return nil
}

// Decode interprets it.
func (d *Dump) Decode(h *fact.Host) {
	h.OS = osRelease(d.osRelease)
	h.Modules.Release = d.release
	d.decodeFiles(&h.Modules)
	if !d.live {
		return // Supported, Loaded, boot and limits need the running kernel: not collected
	}
	d.decodeLive(h)
}

func (d *Dump) decodeLive(h *fact.Host) {
	m := &h.Modules
	switch {
	case d.monolithic():
		m.Supported = fact.Value(false)
		m.Loaded = fact.Absent[[]string]()
		h.Boot.ModulesDisabled = fact.Unsupported[bool]()
	default:
		if d.modules.State() == fact.StateValue || d.disabled.State() == fact.StateValue {
			m.Supported = fact.Value(true)
		} else {
			m.Supported = fact.Missing[bool](fact.Gap{Reason: fact.NotCollected, What: "whether the kernel has modules (/proc/modules and /proc/sys/kernel cannot be read)"})
		}
		h.Boot.ModulesDisabled = boolean(d.disabled, "kernel.modules_disabled")
		if b, ok := d.modules.Get(); ok {
			names := loadedNames(b)
			for n := range d.sysLoaded {
				names[n] = true
			}
			m.Loaded = fact.Value(sorted(names))
		} else {
			m.Loaded = lost[[]string](d.modules, "loaded modules (/proc/modules)")
		}
	}
	h.Boot.Parameters = bootParameters(d.cmdline)
	switch {
	case len(d.params) > 0 && d.paramsErr == nil:
		v := map[string]string{}
		for k, b := range d.params {
			v[k] = strings.TrimSpace(string(b))
		}
		h.Boot.IPv6Module = fact.Value(v)
	case d.paramsErr != nil:
		h.Boot.IPv6Module = fact.Missing[map[string]string](*d.paramsErr)
	case d.hasIPv6Mod:
		h.Boot.IPv6Module = fact.Missing[map[string]string](fact.Gap{Reason: fact.NotCollected, What: "parameters of the ipv6 module"})
	default:
		h.Boot.IPv6Module = fact.Absent[map[string]string]()
	}
	h.UserNS.Unprivileged = boolean(d.userns[0], "kernel.unprivileged_userns_clone")
	h.UserNS.Max = integer(d.userns[1], "user.max_user_namespaces")
	h.UserNS.AppArmor = boolean(d.userns[2], "kernel.apparmor_restrict_unprivileged_userns")
	if i, ok := d.tun.Get(); ok {
		h.UserNS.TunMode = fact.Value(i.Mode & 0o7777)
	} else {
		h.UserNS.TunMode = lost[uint32](d.tun, "/dev/net/tun")
	}
}

// decodeFiles fills in what the module files and the kernel configuration say.
func (d *Dump) decodeFiles(m *fact.Modules) {
	_, byFile := d.builtin.Get()
	_, byConfig := d.config.Get()
	switch {
	case byFile || byConfig:
		m.Builtin = fact.Value(sorted(d.built))
	case d.builtin.State() == fact.StateGap:
		m.Builtin = lost[[]string](d.builtin, "built-in modules")
	default:
		m.Builtin = fact.Missing[[]string](fact.Gap{Reason: fact.NotCollected, What: "built-in modules (neither modules.builtin nor a kernel configuration of release " + d.release + " is there)"})
	}
	if d.monolithic() {
		m.Loadable = fact.Absent[map[string]string]()
		m.Depends = fact.Absent[map[string][]string]()
		m.Aliases = fact.Absent[map[string][]string]()
		return
	}
	if b, ok := d.dep.Get(); ok {
		paths, needs := dependencies(b)
		m.Loadable, m.Depends = fact.Value(paths), fact.Value(needs)
	} else {
		g := unseen(d.dep, path.Join("/lib/modules", d.release, "modules.dep"))
		m.Loadable, m.Depends = fact.Missing[map[string]string](g), fact.Missing[map[string][]string](g)
	}
	if b, ok := d.alias.Get(); ok {
		m.Aliases = fact.Value(aliases(b))
	} else {
		m.Aliases = fact.Missing[map[string][]string](unseen(d.alias, path.Join("/lib/modules", d.release, "modules.alias")))
	}
}

// unseen is the Gap of a module index that is not there: in a container the
// host's modules are loaded from files that cannot be seen, so that a missing
// index proves nothing.
func unseen(k fact.Known[[]byte], what string) fact.Gap {
	if g, gap := k.Gap(); gap {
		return g
	}
	return fact.Gap{Reason: fact.NotCollected, What: what + " is not there: what can be loaded is unknown"}
}

// lost carries absence and Gaps over to a fact of another type.
func lost[T, S any](k fact.Known[S], what string) fact.Known[T] {
	switch k.State() {
	case fact.StateAbsent:
		return fact.Absent[T]()
	case fact.StateUnsupported:
		return fact.Unsupported[T]()
	}
	g, _ := k.Gap()
	if g.What == "" {
		g.What = what
	}
	return fact.Missing[T](g)
}

func sorted(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
