package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// fixture is a namespace with an address of each family, 50 listeners and a ruleset.
type fixture struct {
	ns   *testlab.NS
	snap *fact.Snapshot
	self *fact.Namespace
}

func newFixture(b *testing.B, rules string) *fixture {
	b.Helper()
	ns, peer := testlab.NewNS(b, "ra"), testlab.NewNS(b, "rb")
	testlab.Link(ns, "eth0", peer, "eth0")
	ns.IP("addr", "add", "192.0.2.1/24", "dev", "eth0")
	ns.IP("addr", "add", "2001:db8:ffff::1/64", "dev", "eth0", "nodad")
	f := &fixture{ns: ns}
	c, err := collect.Run(collect.Options{}) // before there are rules
	if err != nil {
		b.Fatal(err)
	}
	f.snap = c.Snapshot()
	for i := range f.snap.Namespaces {
		if f.snap.Namespaces[i].ID.Inode == ns.Inode() {
			f.self = &f.snap.Namespaces[i]
		}
	}
	if f.self == nil {
		b.Fatal("the namespace was not collected")
	}
	file := filepath.Join(b.TempDir(), "rules.nft")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		b.Fatal(err)
	}
	ns.Run(testlab.RequireTool(b, "nft"), "-f", file)
	return f
}

// stages are the parts of an analysis, as CPU time (user and system) and by the clock.
type stages struct{ dump, decode, analysis span }

type span struct{ cpu, wall time.Duration }

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func timed(f func()) span {
	runtime.GC()
	c, t := cpu(), time.Now()
	f()
	return span{cpu() - c, time.Since(t)}
}

// questions asks about 50 ports over both families, as for listeners on every address.
func questions(sp *reach.Space) int {
	n := 0
	for i := range listeners {
		l := reach.WildcardListener("tcp", uint16(firstPort+i))
		sp.Expose(&l)
		n += len(l.IPv4) + len(l.IPv6)
	}
	return n
}

func (f *fixture) run(b *testing.B, elements bool) stages {
	b.Helper()
	var s stages
	n := f.self
	s.dump = timed(func() {
		f.ns.Do(func() {
			a := ask.New(func(string) bool { return true }, false)
			packetfilter.Read(a, ask.NewBudget("bench", 10*time.Minute, 1e9, 1e12), packetfilter.Options{Elements: elements, Expand: elements}).Decode(n)
		})
	})
	var sp *reach.Space
	s.decode = timed(func() { sp = reach.NewSpace(f.snap, n, nil, false) })
	s.analysis = timed(func() {
		if questions(sp) == 0 {
			b.Fatal("no answer")
		}
	})
	return s
}

func median[T any](list []T, by func(T) time.Duration) time.Duration {
	out := make([]time.Duration, len(list))
	for i, x := range list {
		out[i] = by(x)
	}
	slices.Sort(out)
	return out[len(out)/2]
}

// alone starts a program in the namespace where it sees no process and no namespace but
// its own.
func (f *fixture) alone(name string, args ...string) *exec.Cmd {
	argv := append([]string{"-fpm", "--mount-proc", "sh", "-c", `umount -l -R /run/netns 2>/dev/null; exec "$@"`, "sh", name}, args...)
	return f.ns.Command("unshare", argv...)
}

// reachSizes are the numbers of rules or elements that BenchmarkReach asks for.
var reachSizes = []int{1_000, 10_000, 100_000}

// BenchmarkReach measures reach beside what nft needs to print the same ruleset: dump,
// decoding and analysis by themselves, and the programs as a whole.
func BenchmarkReach(b *testing.B) {
	bin := build(b)
	for _, shape := range []string{"srcport", "block", "mixed", "chains", "set", "concset"} {
		for _, n := range reachSizes {
			b.Run(fmt.Sprintf("%s/%d", shape, n), func(b *testing.B) {
				f := newFixture(b, shapes[shape](n))
				hold(b, f.ns, fmt.Sprintf("%d+%d@::", firstPort, listeners))
				var st []stages
				var ours, nft []sample
				for range 5 {
					st = append(st, f.run(b, true))
					ours = append(ours, measureCommand(b, f.alone(bin, "reach", "--expand-sets", "--format", "json", "--quiet")))
					nft = append(nft, measureCommand(b, f.alone("nft", "list", "ruleset")))
				}
				b.ReportMetric(ms(median(st, func(s stages) time.Duration { return s.dump.cpu })), "ms/dump")
				b.ReportMetric(ms(median(st, func(s stages) time.Duration { return s.decode.cpu })), "ms/decode")
				b.ReportMetric(ms(median(st, func(s stages) time.Duration { return s.analysis.cpu })), "ms/analysis")
				b.ReportMetric(ms(median(st, func(s stages) time.Duration { return s.analysis.wall })), "ms/analysis-wall")
				b.ReportMetric(ms(median(ours, func(s sample) time.Duration { return s.wall })), "ms/reach")
				b.ReportMetric(ms(median(ours, func(s sample) time.Duration { return s.cpu })), "ms/reach-cpu")
				b.ReportMetric(ms(median(nft, func(s sample) time.Duration { return s.wall })), "ms/nft")
				b.ReportMetric(ms(median(nft, func(s sample) time.Duration { return s.cpu })), "ms/nft-cpu")
				b.ReportMetric(float64(ours[len(ours)/2].rss)/1024, "MB/reach")
				b.ReportMetric(float64(nft[len(nft)/2].rss)/1024, "MB/nft")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkAnalysis is the part of BenchmarkReach that is ours alone, for profiles.
func BenchmarkAnalysis(b *testing.B) {
	for _, shape := range []string{"srcport", "block", "mixed", "chains", "set", "concset"} {
		for _, n := range reachSizes {
			b.Run(fmt.Sprintf("%s/%d", shape, n), func(b *testing.B) {
				f := newFixture(b, shapes[shape](n))
				b.ResetTimer()
				var st []stages
				for range b.N {
					st = append(st, f.run(b, true))
				}
				b.ReportMetric(ms(median(st, func(s stages) time.Duration { return s.dump.cpu })), "ms/dump")
				b.ReportMetric(ms(median(st, func(s stages) time.Duration { return s.decode.cpu })), "ms/decode")
				b.ReportMetric(ms(median(st, func(s stages) time.Duration { return s.analysis.cpu })), "ms/analysis")
			})
		}
	}
}
