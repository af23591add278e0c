package collect

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/proc"
	"github.com/sixfence/sixfence/internal/host/collect/sock"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// crowdOf opens n listeners in a namespace, in as few processes as the limit on
// descriptors allows.
func crowdOf(b *testing.B, n int) *testlab.NS {
	b.Helper()
	ns := testlab.NewNS(b, "bench")
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		b.Fatal(err)
	}
	each := min(n, int(min(lim.Max, 1<<20))-100)
	for first := 0; first < n; first += each {
		actor(b, nil, ns, "listeners", "SIXFENCE_TEST_FIRST="+strconv.Itoa(first), "SIXFENCE_TEST_COUNT="+strconv.Itoa(min(each, n-first)))
	}
	return ns
}

// ssTime is the median of three runs of ss -tulnp.
func ssTime(b *testing.B, ns *testlab.NS, want int) time.Duration {
	b.Helper()
	ss := testlab.RequireTool(b, "ss")
	var all []time.Duration
	for range 3 {
		c := ns.Command(ss, "-tulnpHO")
		out, err := c.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(out)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(start))
		lines := 0
		for _, c := range text {
			if c == '\n' {
				lines++
			}
		}
		if lines != want {
			b.Fatalf("ss lists %d of %d", lines, want)
		}
	}
	slices.Sort(all)
	return all[1]
}

func benchmarkListeners(b *testing.B, n int, present func(string) bool) {
	ns := crowdOf(b, n)
	ss := ssTime(b, ns, n)
	fd, err := unix.Open("/run/netns/"+ns.Name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	b.ReportAllocs()
	for b.Loop() {
		a := ask.New(present, false)
		// Processes and sockets are read side by side, as two of our parts do.
		t := proc.Scan(a, ask.NewBudget("bench", time.Minute, 1<<40, 1<<40))
		var d *sock.Dump
		ns.Do(func() { d = sock.Read(a, ask.NewBudget("bench", time.Minute, 1<<40, 1<<40)) })
		var out fact.Namespace
		d.Decode(&out, t.Owners)
		socks, ok := out.Sockets.Get()
		if !ok || len(socks) != n {
			b.Fatalf("%d of %d sockets", len(socks), n)
		}
		for i := range socks {
			if _, ok := socks[i].Owners.Get(); !ok {
				b.Fatalf("no owner: %+v", socks[i])
			}
		}
	}
	per := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(float64(ss.Microseconds())/1000, "ss-ms")
	b.ReportMetric(float64(per.Microseconds())/1000, "ours-ms")
	b.ReportMetric(float64(ss)/float64(per), "times-faster")
	b.ReportMetric(float64(per.Nanoseconds())/float64(n), "ns/listener")
}

func present(name string) bool { return name != "sctp_diag" && name != "raw_diag" }

// Listeners with owners, by sock_diag, beside ss -tulnp on the same sockets.
func BenchmarkListeners(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkListeners(b, n, present) })
	}
}

// BenchmarkListeners100k is the size that docs/performance.md is about.
func BenchmarkListeners100k(b *testing.B) { benchmarkListeners(b, 100_000, present) }

// The same where the diag modules are not loaded.
func BenchmarkListenersFromProc100k(b *testing.B) {
	benchmarkListeners(b, 100_000, func(string) bool { return false })
}

// A host on which a user made 5,000 namespaces: the whole collection.
func BenchmarkCrowd5000(b *testing.B) {
	testlab.RequireRoot(b)
	actor(b, nobody, nil, "crowd", "SIXFENCE_TEST_COUNT=5000")
	b.ReportAllocs()
	for b.Loop() {
		c, err := Run(Options{})
		if err != nil {
			b.Fatal(err)
		}
		if s := c.Snapshot(); len(s.Namespaces) > DefaultBudgets().Spaces+64 {
			b.Fatalf("%d namespaces", len(s.Namespaces))
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys)/(1<<20), "MB-sys")
}
