package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
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

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// timed measures a part of this program.
func timed(f func()) sample {
	runtime.GC()
	c, t := cpu(), time.Now()
	f()
	return sample{wall: time.Since(t), cpu: cpu() - c}
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

// dump reads the packet filter into the Snapshot.
func (f *fixture) dump() {
	f.ns.Do(func() {
		a := ask.New(func(string) bool { return true }, false)
		packetfilter.Read(a, ask.NewBudget("bench", 10*time.Minute, 1e9, 1e12), packetfilter.Options{Elements: true, Expand: true}).Decode(f.self)
	})
}

// alone starts a program in the namespace where it sees no process and no namespace but
// its own.
func (f *fixture) alone(name string, args ...string) *exec.Cmd {
	argv := append([]string{"-fpm", "--mount-proc", "sh", "-c", `umount -l -R /run/netns 2>/dev/null; exec "$@"`, "sh", name}, args...)
	return f.ns.Command("unshare", argv...)
}

// resources is alone, with the peak memory of the program alone, in KiB, in a file: what
// the kernel reports to a parent is at least what the parent itself had when it forked.
func (f *fixture) resources(b *testing.B, name string, args ...string) sample {
	b.Helper()
	out := filepath.Join(b.TempDir(), "peak")
	s := measureCommand(b, f.alone(testlab.RequireTool(b, "time"), append([]string{"-o", out, "-f", "%M", name}, args...)...))
	text, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text)) // "Command exited with non-zero status 3" may come first
	if len(fields) == 0 {
		b.Fatalf("no peak memory of %s", name)
	}
	if s.rss, err = strconv.ParseInt(fields[len(fields)-1], 10, 64); err != nil {
		b.Fatal(err)
	}
	return s
}

// Every measurement is made so often, or until it has taken so long.
const (
	reachRuns = 5
	reachTime = 30 * time.Second
)

// repeat measures often.
func repeat(f func() sample) []sample {
	var out []sample
	for start := time.Now(); len(out) < reachRuns; {
		out = append(out, f())
		if time.Since(start) > reachTime {
			break
		}
	}
	return out
}

// of is the median of one number of several samples.
func of(list []sample, by func(sample) int64) int64 {
	out := make([]int64, len(list))
	for i, x := range list {
		out[i] = by(x)
	}
	slices.Sort(out)
	return out[len(out)/2]
}

func wall(s sample) int64 { return int64(s.wall) }
func used(s sample) int64 { return int64(s.cpu) }
func peak(s sample) int64 { return s.rss }

// reachCases are the shapes and their numbers of rules or elements.
var reachCases = []struct {
	shape, what string
	sizes       []int
}{
	{"srcport", "rules: a prefix and a port each, one chain", []int{1_000, 10_000, 100_000}},
	{"block", "rules: blocked hosts, then ports, one chain", []int{1_000, 10_000, 100_000}},
	{"mixed", "rules: hosts, accept and drop in turn, one chain", []int{1_000, 10_000, 100_000}},
	{"chains", "rules in many chains", []int{1_000, 10_000, 100_000}},
	{"set", "elements of interval sets", []int{10_000, 100_000, 1_000_000}},
	{"concset", "elements of concatenated sets", []int{10_000, 100_000, 1_000_000}},
}

// BenchmarkReach measures reach beside what nft needs to print the same ruleset: dump,
// decoding and analysis by themselves, and the programs as a whole. With
// SIXFENCE_BENCH_DOC=DIR it writes what it found into DIR/performance.md and
// DIR/img/reach-scaling.svg.
func BenchmarkReach(b *testing.B) {
	bin := build(b)
	var rows []reachRow
	start := time.Now()
	for _, c := range reachCases {
		for _, n := range c.sizes {
			b.Run(fmt.Sprintf("%s/%d", c.shape, n), func(b *testing.B) {
				fmt.Fprintf(os.Stderr, "%4.0f s: %s, %d\n", time.Since(start).Seconds(), c.shape, n)
				r := measureReach(b, bin, c.shape, n)
				r.what = c.what
				rows = append(rows, r)
			})
		}
	}
	fmt.Fprintf(os.Stderr, "%4.0f s: done\n", time.Since(start).Seconds())
	if dir := os.Getenv("SIXFENCE_BENCH_DOC"); dir != "" && len(rows) > 0 {
		if err := writeReach(dir, rows); err != nil {
			b.Fatal(err)
		}
	}
}

func measureReach(b *testing.B, bin, shape string, n int) reachRow {
	b.Helper()
	f := newFixture(b, shapes[shape](n))
	hold(b, f.ns, fmt.Sprintf("%d+%d@::", firstPort, listeners))
	r := reachRow{shape: shape, n: n}
	r.dump = repeat(func() sample { return timed(f.dump) })
	for range reachRuns {
		var sp *reach.Space
		r.decode = append(r.decode, timed(func() { sp = reach.NewSpace(f.snap, f.self, nil, false) }))
		r.analysis = append(r.analysis, timed(func() {
			if questions(sp) == 0 {
				b.Fatal("no answer")
			}
		}))
	}
	f.self.PacketFilter = fact.PacketFilter{}
	r.verb = repeat(func() sample {
		return f.resources(b, bin, "reach", "--expand-sets", "--format", "json", "--quiet")
	})
	r.nft = repeat(func() sample { return f.resources(b, "nft", "list", "ruleset") })
	for _, m := range []struct {
		name string
		list []sample
	}{{"dump", r.dump}, {"decode", r.decode}, {"analysis", r.analysis}, {"reach", r.verb}, {"nft", r.nft}} {
		b.ReportMetric(ms(time.Duration(of(m.list, wall))), "ms/"+m.name)
		b.ReportMetric(ms(time.Duration(of(m.list, used))), "ms-cpu/"+m.name)
	}
	b.ReportMetric(float64(of(r.verb, peak))/1024, "MB/reach")
	b.ReportMetric(float64(of(r.nft, peak))/1024, "MB/nft")
	b.ReportMetric(0, "ns/op")
	return r
}

// BenchmarkAnalysis is the part of BenchmarkReach that is ours alone, for profiles.
func BenchmarkAnalysis(b *testing.B) {
	for _, c := range reachCases {
		for _, n := range c.sizes {
			b.Run(fmt.Sprintf("%s/%d", c.shape, n), func(b *testing.B) {
				f := newFixture(b, shapes[c.shape](n))
				b.ResetTimer()
				var dump, decode, analysis []sample
				for range b.N {
					var sp *reach.Space
					dump = append(dump, timed(f.dump))
					decode = append(decode, timed(func() { sp = reach.NewSpace(f.snap, f.self, nil, false) }))
					analysis = append(analysis, timed(func() {
						if questions(sp) == 0 {
							b.Fatal("no answer")
						}
					}))
				}
				b.ReportMetric(ms(time.Duration(of(dump, used))), "ms/dump")
				b.ReportMetric(ms(time.Duration(of(decode, used))), "ms/decode")
				b.ReportMetric(ms(time.Duration(of(analysis, used))), "ms/analysis")
			})
		}
	}
}
