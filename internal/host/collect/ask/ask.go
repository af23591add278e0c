// Package ask holds the rules that every request of a collector obeys: it is
// logged, it is made only when the subsystem it would wake is already there, and it
// stays inside a budget.
//
// A read-only audit changes nothing. Opening a netlink family, a diag dump or an
// x_tables getsockopt can make the kernel load a module or create a table, so
// collectors say Present before they ask and Note what they asked.
package ask

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Entry is one line of the request log.
type Entry struct {
	Op   string // "present" (a question about the kernel, answered from files), "netlink", "getsockopt", "bpf", "ioctl", "open"
	What string // subsystem or message: "nf_tables", "RTM_GETLINK", "ip6tables filter" …
	Yes  bool   // of "present": the answer
}

// Asker carries the presence table and the request log through one collection.
// It is safe for concurrent use.
type Asker struct {
	present func(subsystem string) bool
	doubt   func(subsystem string) *fact.Gap
	mu      sync.Mutex
	log     []Entry
	keep    bool
}

// New returns an Asker that answers Present with f. With keepLog every request
// is recorded for Log.
func New(f func(subsystem string) bool, keepLog bool) *Asker {
	return &Asker{present: f, keep: keepLog}
}

// Present tells whether a kernel subsystem (module name with underscores:
// "nf_tables", "nfnetlink", "inet_diag", "tcp_diag", "udp_diag", "raw_diag",
// "sctp_diag", "packet_diag", "ip_set", "ip6_tables", "nfnetlink_hook", and "bpf" for the system call) is loaded
// or built in, so that asking it cannot load anything.
func (a *Asker) Present(subsystem string) bool {
	yes := a.present(subsystem)
	a.add(Entry{Op: "present", What: subsystem, Yes: yes})
	return yes
}

// SetDoubt gives the Asker a function that says why a "no" of Present is no
// proof. Call it before the Asker is shared.
func (a *Asker) SetDoubt(f func(subsystem string) *fact.Gap) { a.doubt = f }

// Doubt returns nil when a "no" of Present is certain: then the subsystem holds
// nothing. Otherwise (the list of modules could not be read) what the subsystem
// holds is unknown for the returned reason, and still must not be asked.
func (a *Asker) Doubt(subsystem string) *fact.Gap {
	if a.doubt == nil {
		return nil
	}
	return a.doubt(subsystem)
}

// Note records a request that is about to be made.
func (a *Asker) Note(op, what string) { a.add(Entry{Op: op, What: what}) }

func (a *Asker) add(e Entry) {
	if !a.keep {
		return
	}
	a.mu.Lock()
	a.log = append(a.log, e)
	a.mu.Unlock()
}

// Log returns what was asked, in order.
func (a *Asker) Log() []Entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]Entry(nil), a.log...)
}

// Budget bounds what one namespace, or a group of them, may cost. It is safe for
// concurrent use; the zero Budget allows nothing.
type Budget struct {
	name     string
	deadline time.Time
	objects  atomic.Int64
	bytes    atomic.Int64
}

// NewBudget returns a Budget of so much time, so many kernel objects and bytes.
// name says whose it is, for the Gap.
func NewBudget(name string, d time.Duration, objects, bytes int64) *Budget {
	b := &Budget{name: name, deadline: time.Now().Add(d)}
	b.objects.Store(objects)
	b.bytes.Store(bytes)
	return b
}

// Take spends; the Gap says which bound was hit, and whatever was read so far
// must then be kept as truncated or thrown away, never shown as complete.
func (b *Budget) Take(what string, objects, bytes int) *fact.Gap {
	switch {
	case time.Now().After(b.deadline):
		return &fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("%s of %s: out of time", what, b.name)}
	case b.objects.Add(-int64(objects)) < 0:
		return &fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("%s of %s: too many objects", what, b.name)}
	case b.bytes.Add(-int64(bytes)) < 0:
		return &fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("%s of %s: too many bytes", what, b.name)}
	}
	return nil
}

// Deadline is when the time is up.
func (b *Budget) Deadline() time.Time { return b.deadline }
