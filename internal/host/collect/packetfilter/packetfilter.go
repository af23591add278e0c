// Package packetfilter reads a namespace's packet filter as the kernel tells it: raw
// nf_tables messages of one generation, the legacy x_tables tables that already
// exist, and BPF programs on netfilter hooks. Bytes in, bytes out: what they mean
// is logic/pfdecode's business, because libraries that decode here drop what they
// do not know.
//
// Nothing is woken. NETLINK_NETFILTER is opened only where nfnetlink and nf_tables
// are there already, and a legacy table is asked for only when the kernel lists it:
// a bare getsockopt creates the table.
package packetfilter

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Dump is what was read, not yet interpreted.
type Dump struct {
	nft    fact.Known[fact.NFTables]
	legacy fact.Known[[]fact.LegacyTable]
	ipsets fact.Known[[][]byte]
	accts  fact.Known[[][]byte]
	eb     fact.Known[bool]
	bridge fact.Known[string]
}

// Options of a dump.
type Options struct {
	// Elements asks for the elements of sets too: what reach needs, and an audit
	// does not. A set of a million elements costs the kernel a minute.
	Elements bool
	// Expand reads sets whole, up to 4 million elements each.
	Expand bool
	// Foreign is a stranger's namespace: its sets are never read whole.
	Foreign bool
}

// bound is how many elements of one set are read.
func (o Options) bound() int {
	switch {
	case !o.Elements:
		return 0
	case o.Expand && !o.Foreign:
		return maxExpanded
	}
	return maxElements
}

// Read dumps the packet filter of the calling thread's network namespace.
func Read(a *ask.Asker, b *ask.Budget, o Options) *Dump {
	advice := ""
	if !o.Expand && !o.Foreign {
		advice = "; reach, trace and snapshot read it whole with --expand-sets"
	}
	d := &Dump{
		nft:    readNFTables(a, b, o.bound(), advice),
		legacy: readLegacy(a, b),
		eb:     readEBTables(a),
		bridge: readBridge(a),
	}
	if o.Elements {
		d.ipsets = readIPSets(a, b)
		d.accts = readAccounting(a, b)
	}
	return d
}

// Decode fills the namespace's part. The messages stay as they are.
func (d *Dump) Decode(ns *fact.Namespace) {
	ns.PacketFilter = fact.PacketFilter{NFTables: d.nft, Legacy: d.legacy, IPSets: d.ipsets, Accounting: d.accts, EBTables: d.eb, BridgeNFCall: d.bridge}
}

// readEBTables tells whether the bridge tables of x_tables may hold rules. Their
// getsockopt creates the table and no file lists them, so that only their
// modules can be asked about.
func readEBTables(a *ask.Asker) fact.Known[bool] {
	for _, m := range []string{"ebtable_filter", "ebtable_nat", "ebtable_broute"} {
		if a.Present(m) {
			return fact.Value(true)
		}
		if g := a.Doubt(m); g != nil {
			return fact.Missing[bool](*g)
		}
	}
	return fact.Value(false)
}

// readBridge reads net.bridge.bridge-nf-call-ip6tables.
func readBridge(a *ask.Asker) fact.Known[string] {
	const name = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
	a.Note("open", name)
	s, err := os.ReadFile(name)
	switch {
	case err == nil:
		return fact.Value(strings.TrimSpace(string(s)))
	case !errors.Is(err, os.ErrNotExist):
		return fact.Missing[string](gapOf(err, name))
	case a.Present("br_netfilter"):
		// Before Linux 5.3 the one setting lives in the initial namespace.
		return fact.Missing[string](fact.Gap{Reason: fact.UnsupportedGap, What: name + " is not shown in this namespace"})
	}
	if g := a.Doubt("br_netfilter"); g != nil {
		return fact.Missing[string](*g)
	}
	return fact.Absent[string]()
}

// gapOf classifies an error of a read.
func gapOf(err error, what string) fact.Gap {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fact.Gap{Reason: fact.Permission, What: what}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return fact.Gap{Reason: fact.Truncated, What: what + ": " + err.Error()}
	}
	return fact.Gap{Reason: fact.NotCollected, What: what + ": " + err.Error()}
}
