package rtnl

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

const ndaProtocol = 12 // NDA_PROTOCOL, kernel 5.0

func neighbour6(b []byte) (fact.Neighbour, verdict) { return decodeNeighbour(b, unix.AF_INET6) }

// decodeNeighbour decodes struct ndmsg of a neighbour or proxy entry of a family.
func decodeNeighbour(b []byte, family byte) (fact.Neighbour, verdict) {
	if len(b) < unix.SizeofNdMsg {
		return fact.Neighbour{}, malformed
	}
	if b[0] != family {
		return fact.Neighbour{}, skip
	}
	out := fact.Neighbour{
		Index: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		State: binary.NativeEndian.Uint16(b[8:]),
		Flags: b[10],
	}
	a := attrs{rest: b[unix.SizeofNdMsg:]}
	for a.next() {
		switch a.typ {
		case unix.NDA_DST:
			out.Address = a.addr()
		case unix.NDA_LLADDR:
			out.MAC = hardwareAddress(a.v)
		case ndaProtocol:
			out.Protocol = a.u8()
		}
	}
	if a.bad || !out.Address.IsValid() || out.Address.Is4() != (family == unix.AF_INET) {
		return fact.Neighbour{}, malformed
	}
	return out, keep
}

// hardwareAddress writes a link-layer address of any length as xx:xx:…
func hardwareAddress(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	const hex = "0123456789abcdef"
	out := make([]byte, 0, 3*len(b))
	for i, c := range b {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, hex[c>>4], hex[c&15])
	}
	return string(out)
}

// NDTA_* and NDTPA_* (include/uapi/linux/neighbour.h).
const (
	ndtaName       = 1
	ndtaThresh1    = 2
	ndtaThresh2    = 3
	ndtaThresh3    = 4
	ndtaConfig     = 5
	ndtaParms      = 6
	ndtaStats      = 7
	ndtaGCInterval = 8

	ndtpaIfIndex           = 1
	ndtpaBaseReachableTime = 4
	ndtpaRetransTime       = 5
	ndtpaQueueLenBytes     = 16
)

// neighbourTable decodes RTM_NEWNEIGHTBL of ndisc_cache: one message with the
// global part and the defaults, then one for each interface.
func (d *Dump) neighbourTable(at string) fact.Known[fact.NeighbourTable] {
	if k, ok := refused[fact.NeighbourTable](&d.table, at); ok {
		return k
	}
	var out fact.NeighbourTable
	found := false
	for _, b := range d.table.messages(unix.RTM_NEWNEIGHTBL) {
		switch global, how := decodeTable(b, &out); how {
		case malformed:
			return fact.Missing[fact.NeighbourTable](fact.Gap{Reason: fact.ParseGap, What: d.table.what + at})
		case keep:
			found = found || global
		}
	}
	if !found {
		return fact.Absent[fact.NeighbourTable]()
	}
	slices.SortFunc(out.Parms, func(a, b fact.NeighbourParms) int { return cmp.Compare(a.Index, b.Index) })
	return fact.Value(out)
}

// decodeTable adds one message to the table; global is true when it held the
// thresholds and counters.
func decodeTable(b []byte, out *fact.NeighbourTable) (global bool, how verdict) {
	if len(b) < sizeofNdtMsg {
		return false, malformed
	}
	if b[0] != unix.AF_INET6 {
		return false, skip
	}
	thresholds, config, stats := 0, false, false
	name := false
	var parms []fact.NeighbourParms
	next := *out
	a := attrs{rest: b[sizeofNdtMsg:]}
	for a.next() {
		switch a.typ {
		case ndtaName:
			name = string(a.text()) == "ndisc_cache"
		case ndtaThresh1:
			next.GCThresh1 = a.u32()
			thresholds++
		case ndtaThresh2:
			next.GCThresh2 = a.u32()
			thresholds++
		case ndtaThresh3:
			next.GCThresh3 = a.u32()
			thresholds++
		case ndtaGCInterval:
			next.GCInterval = a.u64()
		case ndtaConfig: // struct ndt_config: u16 key_len, entry_size; u32 entries …
			if len(a.v) < 8 {
				return false, malformed
			}
			next.Entries = binary.NativeEndian.Uint32(a.v[4:])
			config = true
		case ndtaStats: // struct ndt_stats
			if len(a.v) < 80 {
				return false, malformed
			}
			n := func(i int) uint64 { return binary.NativeEndian.Uint64(a.v[8*i:]) }
			next.Allocs, next.Destroys, next.ResFailed = n(0), n(1), n(3)
			next.Lookups, next.Hits = n(4), n(5)
			next.PeriodicGCRuns, next.ForcedGCRuns = n(8), n(9)
			next.TableFulls = fact.Unsupported[uint64]()
			if len(a.v) >= 88 {
				next.TableFulls = fact.Value(n(10))
			}
			stats = true
		case ndtaParms:
			p, ok := decodeParms(a.v)
			if !ok {
				return false, malformed
			}
			parms = append(parms, p)
		}
	}
	if a.bad {
		return false, malformed
	}
	if !name {
		return false, skip
	}
	if global = thresholds == 3 && config && stats; !global && (thresholds > 0 || config || stats) {
		return false, malformed
	}
	next.Parms = append(next.Parms, parms...)
	*out = next
	return global, keep
}

func decodeParms(b []byte) (fact.NeighbourParms, bool) {
	var p fact.NeighbourParms
	seen := 0
	a := attrs{rest: b}
	for a.next() {
		switch a.typ {
		case ndtpaIfIndex:
			p.Index = int(int32(a.u32()))
		case ndtpaBaseReachableTime:
			p.BaseReachableMs = a.u64()
			seen++
		case ndtpaRetransTime:
			p.RetransMs = a.u64()
			seen++
		case ndtpaQueueLenBytes:
			p.QueueBytes = a.u32()
			seen++
		}
	}
	return p, !a.bad && seen == 3
}
