// Package collect reads a host: every fact of a Snapshot, read-only, in two steps.
//
// Run reads bytes while the process still holds the capabilities that the dumps
// and setns need. Snapshot interprets them afterwards, when the caller has
// sealed itself, because what was read is hostile input.
package collect

import (
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/apps"
	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/files"
	"github.com/sixfence/sixfence/internal/host/collect/kmod"
	"github.com/sixfence/sixfence/internal/host/collect/manager"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/host/collect/proc"
	"github.com/sixfence/sixfence/internal/host/collect/rtnl"
	"github.com/sixfence/sixfence/internal/host/collect/sock"
	"github.com/sixfence/sixfence/internal/host/collect/space"
	"github.com/sixfence/sixfence/internal/host/collect/sysctl"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Options of a collection.
type Options struct {
	Root    string // a directory tree to read instead of the running host
	Budgets Budgets
	KeepLog bool // keep the request log
	// Elements asks for the elements of packet-filter sets, which reach needs.
	Elements bool
	// Expand reads sets whole that are larger than what is read otherwise, and takes the
	// time that the kernel needs to list them: minutes.
	Expand bool

	// present replaces the answers from the module files in tests of the promise
	// that what is not there is not asked.
	present func(subsystem string) bool
}

// Budgets bound what a collection may cost. Zero fields take the default.
type Budgets struct {
	Own     Budget // each namespace owned by the initial user namespace
	Foreign Budget // all namespaces owned by other user namespaces together
	Spaces  int    // how many foreign namespaces are entered at most
}

// Budget is one bound.
type Budget struct {
	Time    time.Duration
	Objects int64
	Bytes   int64
}

// DefaultBudgets fit a large production host.
func DefaultBudgets() Budgets {
	return Budgets{
		Own:     Budget{Time: 20 * time.Second, Objects: 4_000_000, Bytes: 1 << 30},
		Foreign: Budget{Time: 2 * time.Second, Objects: 100_000, Bytes: 64 << 20},
		Spaces:  32,
	}
}

func (b Budgets) orDefault() Budgets {
	d := DefaultBudgets()
	if b.Own == (Budget{}) {
		b.Own = d.Own
	}
	if b.Foreign == (Budget{}) {
		b.Foreign = d.Foreign
	}
	if b.Spaces == 0 {
		b.Spaces = d.Spaces
	}
	return b
}

// Collection is a host as bytes.
type Collection struct {
	snap  fact.Snapshot
	procs *proc.Table
	host  []interface{ Decode(*fact.Host) }
	space []*spaceDump
	log   *ask.Asker
}

type spaceDump struct {
	ns     fact.Namespace
	gap    *fact.Gap // it was not entered
	rtnl   *rtnl.Dump
	sysctl *sysctl.Dump
	sock   *sock.Dump
	filter *packetfilter.Dump
	fd     int     // while collecting
	lost   []int32 // netns ids that lead to no namespace that was found
}

// Log is the request log of the collection.
func (c *Collection) Log() []ask.Entry {
	if c.log == nil {
		return nil
	}
	return c.log.Log()
}

// Run collects. Only an unusable Root is an error: whatever cannot be read is a Gap.
func Run(o Options) (*Collection, error) {
	if o.Root != "" {
		return runRoot(o.Root)
	}
	return runLive(o)
}

func base(mode fact.Mode) fact.Snapshot {
	s := fact.Snapshot{SchemaVersion: fact.SchemaVersion}
	s.Host.Mode = mode
	s.Host.CollectedAt = time.Now().UTC().Truncate(time.Second)
	s.Host.ByteOrder = "little"
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		s.Host.ByteOrder = "big"
	}
	s.Host.WordSize = 32 << (^uint(0) >> 63)
	return s
}

func runRoot(dir string) (*Collection, error) {
	t, err := tree.Open(dir)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	c := &Collection{snap: base(fact.ModeRoot)}
	c.host = append(c.host, kmod.Read(t), files.Read(t), apps.Read(t), manager.Read(t, nil, fact.NamespaceID{}))
	return c, nil
}

func runLive(o Options) (*Collection, error) {
	budgets := o.Budgets.orDefault()
	t, err := tree.Host()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	c := &Collection{snap: base(fact.ModeLive)}
	h := &c.snap.Host
	h.Hostname, h.Kernel = uname()
	h.Privilege = privilege(t)

	mods := kmod.Read(t)
	present := mods.Present
	if o.present != nil {
		present = o.present
	}
	a := ask.New(present, o.KeepLog)
	a.SetDoubt(mods.Doubt)
	c.log = a
	v := &visitor{filter: packetfilter.Options{Elements: o.Elements, Expand: o.Expand}, c: c, a: a, budgets: budgets, end: time.Now().Add(maxTotal)}
	if o.Expand {
		v.budgets.Own.Time, v.budgets.Own.Bytes = maxExpand, 4<<30
		v.end = time.Now().Add(maxExpand)
	}
	c.procs = proc.Scan(a, v.own("process table"))
	spaces, gaps := space.Discover(a, v.own("namespace list"), c.procs)
	c.snap.Gaps = append(c.snap.Gaps, gaps...)
	defer func() { closeAll(v.spaces) }()

	var init fact.NamespaceID
	for i := range spaces {
		if spaces[i].Namespace.IsInit || init == (fact.NamespaceID{}) && spaces[i].Namespace.IsSelf {
			init = spaces[i].Namespace.ID
		}
		if spaces[i].Namespace.IsInit && spaces[i].Namespace.IsSelf {
			h.Privilege.InitialNetNS = true
		}
	}
	managers := running(c.procs)
	var wg sync.WaitGroup
	wg.Go(func() {
		c.host = append(c.host, mods, files.Read(t), apps.Read(t), packetfilter.ReadBPF(a), manager.Read(t, managers, init))
	})
	v.visit(spaces)
	v.join(c.procs, h)
	v.peers()
	c.snap.Gaps = append(c.snap.Gaps, v.leftGap()...)
	wg.Wait()
	return c, nil
}

func closeAll(s []space.Space) {
	for i := range s {
		if s[i].FD >= 0 {
			unix.Close(s[i].FD)
		}
	}
}

func (d *spaceDump) read(a *ask.Asker, b *ask.Budget, o packetfilter.Options) {
	d.sysctl = sysctl.Read(a, b)
	d.rtnl = rtnl.Read(a, b)
	d.sock = sock.Read(a, b)
	d.filter = packetfilter.Read(a, b, o)
}

// Snapshot interprets what Run read.
func (c *Collection) Snapshot() *fact.Snapshot {
	s := &c.snap
	for _, d := range c.host {
		d.Decode(&s.Host)
	}
	s.Namespaces = make([]fact.Namespace, len(c.space))
	for i, d := range c.space {
		ns := &s.Namespaces[i]
		*ns = d.ns
		if d.gap != nil || d.rtnl == nil {
			ns.Unread(d.gap)
			continue
		}
		d.rtnl.Decode(ns)
		d.sysctl.Decode(ns)
		d.sock.Decode(ns, c.procs.Owners)
		d.filter.Decode(ns)
		s.Gaps = append(s.Gaps, d.lostPeers(ns)...)
	}
	if c.procs != nil {
		var gaps []fact.Gap
		s.Host.Processes, gaps = c.procs.Processes(s.Namespaces)
		s.Gaps = append(s.Gaps, gaps...)
	}
	return s
}

func uname() (fact.Known[string], fact.Known[fact.Kernel]) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		g := fact.Gap{Reason: fact.NotCollected, What: "uname: " + err.Error()}
		return fact.Missing[string](g), fact.Missing[fact.Kernel](g)
	}
	s := unix.ByteSliceToString
	return fact.Value(s(u.Nodename[:])), fact.Value(fact.Kernel{Release: s(u.Release[:]), Machine: s(u.Machine[:])})
}
