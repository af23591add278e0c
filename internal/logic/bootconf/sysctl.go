package bootconf

import (
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Via tells by what road a line decides a key.
type Via string

// The roads.
const (
	ViaKey     Via = "key"     // the line names the key itself
	ViaGlob    Via = "glob"    // the line's pattern matches the key
	ViaAll     Via = "all"     // the kernel copies the value written to conf/all
	ViaDefault Via = "default" // the interface inherits conf/default when it is created
)

// Who applies a setting (fact.SysctlSetting.By).
const (
	BySystemd = "systemd-sysctl"
	ByProcps  = "procps"
	ByUFW     = "ufw"
	ByNobody  = "nobody" // the file exists and nothing reads it at boot
)

// Outcome is what boot will do with one key.
type Outcome struct {
	Value   string
	Setting fact.SysctlSetting // the line that decides; a duplicate of equal value counts as the later of the two lines
	Via     Via
	// Certain is false when the moment at which the interface appears decides
	// between Setting and Rivals, or between Setting and the kernel's own default
	// (ViaDefault: an interface older than the write keeps what it had).
	Certain bool
	Rivals  []fact.SysctlSetting
	// Lost are lines that also assign this very key (by name or pattern) and are
	// overridden, in the order in which they were read.
	Lost []fact.SysctlSetting
}

// entry is one option of systemd-sysctl's ordered map (sysctl.c, parse_file).
type entry struct {
	set  fact.SysctlSetting
	glob []string // brace-expanded patterns; nil for an explicit key
	gone bool
}

// stage is one program's run: its options in the order it applies them.
type stage struct {
	by       string
	entries  []entry
	explicit map[string]int // key or pattern text → entry
	globs    []int          // entries that are patterns
	// Every assignment as it was read, for the list of losers: by key, and the patterns.
	all      []read
	byKey    map[string][]int
	allGlobs []int
}

// read is an assignment of a file, with its pattern when it is one.
type read struct {
	set  fact.SysctlSetting
	glob []string
}

// Config is the boot-time sysctl configuration, ready for questions.
type Config struct {
	stages []*stage
}

// New takes the settings in the order in which they are read (fact.Files.Sysctl).
// Lines that nobody applies are left out.
func New(settings []fact.SysctlSetting) *Config {
	c := &Config{}
	byName := map[string]*stage{}
	for _, s := range settings {
		if s.By == ByNobody {
			continue
		}
		st := byName[s.By]
		if st == nil {
			st = &stage{by: s.By, explicit: map[string]int{}, byKey: map[string][]int{}}
			byName[s.By] = st
		}
		st.add(s)
	}
	// systemd-sysctl runs before basic.target, ufw and everything else after it.
	for _, by := range []string{BySystemd, ByProcps, ByUFW} {
		if st := byName[by]; st != nil {
			c.stages = append(c.stages, st)
		}
	}
	return c
}

// add is parse_file of sysctl.c (v239 to v257): an assignment equal to an earlier
// one leaves that one at its place; a different one replaces it, at the end.
func (st *stage) add(s fact.SysctlSetting) {
	e := entry{set: s}
	if isGlob(s.Key) && !s.Exclude {
		e.glob = expandBraces(s.Key)
	}
	if !s.Exclude {
		if e.glob != nil {
			st.allGlobs = append(st.allGlobs, len(st.all))
		} else {
			st.byKey[s.Key] = append(st.byKey[s.Key], len(st.all))
		}
		st.all = append(st.all, read{s, e.glob})
	}
	i, seen := st.explicit[s.Key]
	if seen && st.by == BySystemd {
		old := &st.entries[i]
		if old.set.Value == s.Value && old.set.Exclude == s.Exclude {
			old.set = s
			return
		}
	}
	if seen {
		st.entries[i].gone = true // overwritten by this one, later in the same run
	}
	st.explicit[s.Key] = len(st.entries)
	if e.glob != nil {
		st.globs = append(st.globs, len(st.entries))
	}
	st.entries = append(st.entries, e)
}

// write is one write of a stage to a key: what is written, and when.
type write struct {
	set   fact.SysctlSetting
	glob  bool
	stage int
	at    int
	// redundant: the key holds this value already, and systemd-sysctl from v251
	// suppresses such writes, so that conf/all is not copied once more.
	redundant bool
}

func (w write) after(o write) bool {
	return w.stage > o.stage || w.stage == o.stage && w.at > o.at
}

// lastWrite finds the write to key that comes last.
func (c *Config) lastWrite(key string) (write, bool) {
	var last write
	found := false
	consider := func(n int, at int) {
		e := &c.stages[n].entries[at]
		before := bootValue
		if found {
			before = last.set.Value
		}
		last = write{set: e.set, glob: e.glob != nil, stage: n, at: at, redundant: c.stages[n].by == BySystemd && e.set.Value == before}
		found = true
	}
	for n, st := range c.stages {
		if i, named := st.explicit[key]; named {
			// A line for the key itself, or its exclusion, takes it out of every pattern.
			if e := &st.entries[i]; !e.set.Exclude && e.glob == nil {
				consider(n, i)
			}
			continue
		}
		for _, i := range st.globs {
			if e := &st.entries[i]; !e.gone && matchAny(e.glob, key) {
				consider(n, i)
			}
		}
	}
	return last, found
}

// bootValue is what every key that conf/all is copied from holds before boot
// writes it.
const bootValue = "0"

// last is lastWrite over a key and its aliases.
func (c *Config) last(key string) (write, bool) {
	w, ok := c.lastWrite(key)
	if a := alias(key); a != "" {
		if o, found := c.lastWrite(a); found && (!ok || o.after(w)) {
			return o, true
		}
	}
	return w, ok
}

// alias is the other name of the same kernel variable.
func alias(key string) string {
	switch key {
	case "net/ipv4/ip_forward":
		return "net/ipv4/conf/all/forwarding"
	case "net/ipv4/conf/all/forwarding":
		return "net/ipv4/ip_forward"
	}
	return ""
}

// propagates tells whether the kernel copies a value written to conf/all to the
// interfaces, and to conf/default (net/ipv6/addrconf.c, net/ipv4/devinet.c).
func propagates(family, name string) (interfaces, dflt bool) {
	if family == "ipv4" {
		return name == "forwarding", name == "forwarding"
	}
	switch name {
	case "forwarding", "disable_ipv6", "addr_gen_mode", "ignore_routes_with_linkdown":
		return true, true
	case "force_forwarding":
		return true, false
	}
	return false, false
}

// splitConf takes net/ipv6/conf/IFACE/NAME apart.
func splitConf(key string) (family, iface, name string, ok bool) {
	p := strings.Split(key, "/")
	if len(p) != 5 || p[0] != "net" || p[1] != "ipv6" && p[1] != "ipv4" || p[2] != "conf" {
		return "", "", "", false
	}
	return p[1], p[3], p[4], true
}

func confKey(family, iface, name string) string {
	return "net/" + family + "/conf/" + iface + "/" + name
}

// Sysctl tells what boot will set a key to (path below /proc/sys, e.g.
// "net/ipv6/conf/eth0/accept_ra"), and by which line. It is false when no line
// touches the key. Network managers, which write keys of their own later, are
// not part of the answer.
func (c *Config) Sysctl(key string) (Outcome, bool) {
	direct, hasDirect := c.last(key)
	out := Outcome{}
	family, iface, name, isConf := splitConf(key)
	if !isConf || iface == "all" {
		if !hasDirect {
			return Outcome{}, false
		}
		out.decide(direct, "")
		out.Certain = true
		out.Lost = c.lost(key, out.Setting)
		return out, true
	}
	toIf, toDefault := propagates(family, name)
	all, hasAll := c.last(confKey(family, "all", name))
	if iface == "default" {
		hasAll = hasAll && toDefault
	} else {
		hasAll = hasAll && toIf
	}
	dflt, hasDefault := write{}, false
	if iface != "default" {
		dflt, hasDefault = c.last(confKey(family, "default", name))
	}
	out.Certain = true
	switch {
	case hasDirect && hasAll && all.after(direct) && all.redundant && direct.set.Value != all.set.Value:
		out.decide(direct, "")
		out.rival(all) // systemd before v251 writes it all the same
	case hasDirect && hasAll && all.after(direct):
		out.decide(all, ViaAll)
		// udev runs systemd-sysctl once more for the interface when it appears
		// (99-systemd.rules), never for lo: the direct line may come last after all.
		if iface != "default" && iface != "lo" && c.stages[direct.stage].by == BySystemd && direct.set.Value != all.set.Value {
			out.rival(direct)
		}
	case hasDirect:
		out.decide(direct, "")
	case hasAll:
		out.decide(all, ViaAll)
		// An interface created after these writes inherits "default".
		if hasDefault && dflt.set.Value != all.set.Value && (!toDefault || dflt.after(all)) {
			out.rival(dflt)
		} else if !toDefault && !hasDefault && iface != "lo" {
			out.Certain = false
		}
	case hasDefault:
		out.decide(dflt, ViaDefault)
		out.Certain = false
	default:
		return Outcome{}, false
	}
	out.Lost = c.lost(key, out.Setting)
	return out, true
}

func (o *Outcome) decide(w write, via Via) {
	o.Setting, o.Value = w.set, w.set.Value
	switch {
	case via != "":
		o.Via = via
	case w.glob:
		o.Via = ViaGlob
	default:
		o.Via = ViaKey
	}
}

func (o *Outcome) rival(w write) {
	o.Certain = false
	o.Rivals = append(o.Rivals, w.set)
}

// lost lists the other lines that name or match key with another value.
func (c *Config) lost(key string, won fact.SysctlSetting) []fact.SysctlSetting {
	var out []fact.SysctlSetting
	for _, st := range c.stages {
		at := slices.Clone(st.byKey[key])
		for _, i := range st.allGlobs {
			if matchAny(st.all[i].glob, key) {
				at = append(at, i)
			}
		}
		slices.Sort(at)
		for _, i := range at {
			if s := st.all[i].set; s.Value != won.Value && s != won {
				out = append(out, s)
			}
		}
	}
	return out
}

// Future tells what an interface whose name nobody knows yet gets: the value of
// a line for every interface ("net/ipv6/conf/*/NAME", which udev has
// systemd-sysctl apply when an interface appears), else what it inherits from
// conf/default. family is "ipv6" or "ipv4". Neither reaches interfaces of other
// network namespaces.
func (c *Config) Future(family, name string) (Outcome, bool) {
	var last write
	found := false
	for n, st := range c.stages {
		if st.by != BySystemd { // only systemd-sysctl is run again
			continue
		}
		for _, i := range st.globs {
			e := &st.entries[i]
			if e.gone {
				continue
			}
			for _, g := range e.glob {
				if f, iface, key, ok := splitConf(g); ok && f == family && strings.Trim(iface, "*") == "" && iface != "" && matchOne(key, name) {
					last, found = write{set: e.set, glob: true, stage: n, at: i}, true
				}
			}
		}
	}
	if found {
		o := Outcome{Certain: true}
		o.decide(last, "")
		return o, true
	}
	o, ok := c.Sysctl(confKey(family, "default", name))
	if ok {
		o.Via, o.Certain = ViaDefault, true
	}
	return o, ok
}

// DottedName recognises a line that was meant for an interface with a dot in its
// name and reaches none: "net.ipv6.conf.eth0.100.accept_ra" is the path
// conf/eth0/100/accept_ra. It returns the name that was meant; the working
// spelling is "net.ipv6.conf.eth0/100.accept_ra".
func DottedName(s fact.SysctlSetting) (iface string, ok bool) {
	p := strings.Split(s.Key, "/")
	if len(p) < 6 || p[0] != "net" || p[1] != "ipv6" && p[1] != "ipv4" || p[2] != "conf" && p[2] != "neigh" {
		return "", false
	}
	return strings.Join(p[3:len(p)-1], "."), true
}
