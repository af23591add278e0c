package rtnl

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

var nudNames = map[uint16]string{
	fact.NUDIncomplete: "INCOMPLETE", fact.NUDReachable: "REACHABLE", fact.NUDStale: "STALE", fact.NUDDelay: "DELAY",
	fact.NUDProbe: "PROBE", fact.NUDFailed: "FAILED", fact.NUDNoARP: "NOARP", fact.NUDPermanent: "PERMANENT",
}

func neighbourLines(ns fact.Namespace, k fact.Known[[]fact.Neighbour]) []string {
	list, _ := k.Get()
	names := map[int]string{}
	links, _ := ns.Links.Get()
	for _, l := range links {
		names[l.Index] = l.Name
	}
	var out []string
	for _, e := range list {
		state := nudNames[e.State]
		if e.Flags&0x08 != 0 {
			state = "proxy"
		}
		out = append(out, fmt.Sprintf("%v dev=%s mac=%s router=%v %s", e.Address, names[e.Index], e.MAC, e.Flags&fact.NeighRouter != 0, state))
	}
	slices.Sort(out)
	return out
}

func TestNeighboursAgainstIP(t *testing.T) {
	t.Parallel()
	n, peer := testlab.NewNS(t, "neigh"), testlab.NewNS(t, "peer")
	testlab.Link(n, "v0", peer, "v1")
	n.IP("addr", "add", "2001:db8::1/64", "dev", "v0", "nodad")
	peer.IP("addr", "add", "2001:db8::2/64", "dev", "v1", "nodad")
	testlab.Eventually(t, 10*time.Second, "link-local address", func() bool {
		return strings.Contains(n.IP("-6", "addr", "show", "dev", "v0", "scope", "link", "-tentative"), "fe80")
	})
	add := func(addr, mac, nud string, more ...string) {
		n.IP(append([]string{"-6", "neigh", "add", addr, "lladdr", mac, "dev", "v0", "nud", nud}, more...)...)
	}
	add("2001:db8::a", "02:00:00:00:00:0a", "permanent", "router")
	add("2001:db8::b", "02:00:00:00:00:0b", "noarp")
	add("2001:db8::c", "02:00:00:00:00:0c", "reachable", "protocol", "4")
	add("2001:db8::d", "02:00:00:00:00:0d", "stale")
	add("2001:db8::e", "02:00:00:00:00:0e", "stale") // delay, once something is sent
	add("2001:db8::f", "02:00:00:00:00:0f", "probe")
	n.IP("-6", "neigh", "add", "proxy", "2001:db8:9::9", "dev", "v0")
	n.IP("-6", "neigh", "add", "proxy", "2001:db8:9::8", "dev", "v0", "router")

	oracle := func(args ...string) []string {
		var out []string
		for _, r := range ipJSON(t, n, append([]string{"-6", "neigh", "show"}, args...)...) {
			_, isRouter := r["router"]
			state := "proxy"
			if s, ok := r["state"].([]any); ok {
				state = fmt.Sprint(s...)
			}
			out = append(out, fmt.Sprintf("%s dev=%s mac=%s router=%v %s", str(r, "dst"), str(r, "dev"), str(r, "lladdr"), isRouter, state))
		}
		slices.Sort(out)
		return out
	}
	// Entries move on by themselves: look until both sides saw the same moment,
	// and until every state was seen.
	seen := map[string]bool{}
	n.Do(func() {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Errorf("socket: %v", err)
			return
		}
		defer unix.Close(fd)
		for _, dst := range []string{"2001:db8::77", "2001:db8::e"} { // the first is nobody: incomplete, then failed
			to := &unix.SockaddrInet6{Port: 9, Addr: netip.MustParseAddr(dst).As16()}
			if err := unix.Sendto(fd, []byte("x"), 0, to); err != nil {
				t.Errorf("send to %s: %v", dst, err)
			}
		}
	})
	compared := false
	testlab.Eventually(t, 25*time.Second, "every state, seen alike by ip(8)", func() bool {
		before := oracle("nud", "all")
		ns := collect(n)
		ours := neighbourLines(ns, ns.Neighbours)
		if after := oracle("nud", "all"); !slices.Equal(before, after) {
			return false
		}
		if !slices.Equal(ours, before) {
			t.Errorf("neighbours differ\nours  %s\nip(8) %s", strings.Join(ours, "\n      "), strings.Join(before, "\n      "))
			return true
		}
		for _, l := range ours {
			seen[l[strings.LastIndexByte(l, ' ')+1:]] = true
		}
		compared = true
		return len(seen) == len(nudNames)
	})
	if !compared {
		t.Error("never compared")
	}
	ns := collect(n)
	sameLines(t, "proxy neighbours", neighbourLines(ns, ns.ProxyNeighbours), oracle("proxy"))
	for _, e := range must(t, "neighbours", ns.Neighbours) {
		if e.Address.String() == "2001:db8::a" && (e.State != fact.NUDPermanent || e.Flags&fact.NeighRouter == 0) {
			t.Errorf("pinned router: %+v", e)
		}
		if e.Address.String() == "2001:db8::c" && e.Protocol != 4 {
			t.Errorf("protocol: %+v", e)
		}
	}
}

// TestNeighbourTableAgainstProc looks from another namespace at numbers that
// the kernel shows as files in the initial one only. Others use the table at the
// same time: what counts up must lie between a reading before and one after.
func TestNeighbourTableAgainstProc(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "ndtbl")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	n.Sysctl("net/ipv6/neigh/v0/base_reachable_time_ms", "12000")
	n.Sysctl("net/ipv6/neigh/v0/retrans_time_ms", "800")
	n.Sysctl("net/ipv6/neigh/v0/unres_qlen_bytes", "54321")

	stat := func() map[string]uint64 {
		b, err := os.ReadFile("/proc/1/net/stat/ndisc_cache")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		names := strings.Fields(lines[0])
		sum := map[string]uint64{}
		for _, l := range lines[1:] {
			for i, f := range strings.Fields(l) {
				v, err := strconv.ParseUint(f, 16, 64)
				if err != nil {
					t.Fatal(err)
				}
				if sum[names[i]] += v; names[i] == "entries" {
					sum[names[i]] = v // not per CPU
				}
			}
		}
		return sum
	}
	before := stat()
	ns := collect(n)
	after := stat()
	tab := must(t, "neighbour table", ns.NeighbourTable)
	for name, got := range map[string]uint64{
		"allocs": tab.Allocs, "destroys": tab.Destroys, "lookups": tab.Lookups, "hits": tab.Hits, "res_failed": tab.ResFailed,
		"periodic_gc_runs": tab.PeriodicGCRuns, "forced_gc_runs": tab.ForcedGCRuns, "table_fulls": must(t, "table_fulls", tab.TableFulls),
	} {
		if _, ok := before[name]; !ok {
			t.Errorf("the oracle has no %s", name)
		}
		if got < before[name] || got > after[name] {
			t.Errorf("%s = %d, before %d, after %d", name, got, before[name], after[name])
		}
	}
	if tab.Entries == 0 && before["entries"] > 0 && after["entries"] > 0 {
		t.Errorf("entries = 0, the file says %d", before["entries"])
	}
	for name, got := range map[string]uint64{"gc_thresh1": uint64(tab.GCThresh1), "gc_thresh2": uint64(tab.GCThresh2), "gc_thresh3": uint64(tab.GCThresh3), "gc_interval": tab.GCInterval / 1000} {
		b, err := os.ReadFile("/proc/sys/net/ipv6/neigh/default/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSpace(string(b)); fmt.Sprint(got) != want {
			t.Errorf("%s = %d, the file says %s", name, got, want)
		}
	}
	parms := map[int]fact.NeighbourParms{}
	for _, p := range tab.Parms {
		parms[p.Index] = p
	}
	v0 := link(t, ns, "v0").Index
	if got, want := parms[v0], (fact.NeighbourParms{Index: v0, BaseReachableMs: 12000, RetransMs: 800, QueueBytes: 54321}); got != want {
		t.Errorf("v0: %+v, want %+v", got, want)
	}
	if len(parms) != 4 {
		t.Errorf("parms of %d interfaces and the default, want 3 and 1: %+v", len(parms), tab.Parms)
	}
}
