package bench

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab"
)

// The published normal host: 3 namespaces (the initial one and two of ours), 20
// interfaces, 500 processes, 1,000 sockets, 1,000 nftables rules.
const (
	hostSpaces    = 2 // besides the initial one
	hostPairs     = 9 // veth pairs between the two: 18 interfaces, and two loopbacks
	hostProcesses = 500
	hostSockets   = 1000
	hostRules     = 1000
)

// TestMain turns the test binary into a process of the fixture when asked to:
// one that listens on some ports and waits for its standard input to close.
func TestMain(m *testing.M) {
	if n := os.Getenv("SIXFENCE_BENCH_SOCKETS"); n != "" {
		if err := holdSockets(n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// holdSockets listens on COUNT TCP ports from FIRST on, written FIRST+COUNT[@ADDRESS];
// without an address alternately on the wildcard and on loopback.
func holdSockets(spec string) error {
	ports, host, fixed := strings.Cut(spec, "@")
	first, count, _ := strings.Cut(ports, "+")
	from, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	keep := make([]net.Listener, 0, n)
	for p := from; p < from+n; p++ {
		addr := host
		switch {
		case fixed:
		case p%2 == 0:
			addr = "127.0.0.1"
		default:
			addr = "::"
		}
		l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(p)))
		if err != nil {
			return err
		}
		keep = append(keep, l)
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	for _, l := range keep {
		l.Close()
	}
	return nil
}

// normalHost builds the fixture and returns the path of a fresh static binary.
func normalHost(b *testing.B) string {
	b.Helper()
	a, z := testlab.NewNS(b, "na"), testlab.NewNS(b, "nz")
	for i := range hostPairs {
		testlab.Link(a, fmt.Sprintf("eth%d", i), z, fmt.Sprintf("eth%d", i))
	}
	var rules strings.Builder
	rules.WriteString("table inet filter {\n chain input { type filter hook input priority 0; policy drop;\n")
	for i := range hostRules {
		fmt.Fprintf(&rules, "  ip6 saddr 2001:db8:%x::/48 tcp dport %d accept\n", i, 1024+i)
	}
	rules.WriteString(" }\n}\n")
	nft := filepath.Join(b.TempDir(), "rules.nft")
	if err := os.WriteFile(nft, []byte(rules.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	a.Run(testlab.RequireTool(b, "nft"), "-f", nft)

	holders := 100
	for i := range holders {
		hold(b, a, fmt.Sprintf("%d+%d", 20000+i*hostSockets/holders, hostSockets/holders))
	}
	for range hostProcesses - holders {
		c := exec.Command("sleep", "3600")
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	}
	return build(b)
}

// hold starts a process that keeps listeners open in a namespace.
func hold(b testing.TB, ns *testlab.NS, spec string) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	c := ns.Command(self)
	c.Env = append(os.Environ(), "SIXFENCE_BENCH_SOCKETS="+spec)
	in, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = c.Wait() })
	if _, err := out.Read(make([]byte, 6)); err != nil {
		b.Fatalf("socket holder %s: %v", spec, err)
	}
}

func build(b testing.TB) string {
	b.Helper()
	bin := filepath.Join(b.TempDir(), "sixfence")
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "../cmd/sixfence")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// sample is one run of a command.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // KiB
}

func measure(b *testing.B, name string, args ...string) sample {
	b.Helper()
	return measureCommand(b, exec.Command(name, args...))
}

func measureCommand(b *testing.B, c *exec.Cmd) sample {
	b.Helper()
	var errb bytes.Buffer
	c.Stderr = &errb
	start := time.Now()
	err := c.Run()
	s := sample{wall: time.Since(start)}
	// Findings and gaps are exit codes 1 and 3: only a run that did not happen is an error.
	if err != nil && c.ProcessState == nil {
		b.Fatalf("%v: %v\n%s", c.Args, err, errb.String())
	}
	if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.rss = u.Maxrss
		s.cpu = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return s
}

func report(b *testing.B, ss []sample) {
	b.Helper()
	slices.SortFunc(ss, func(x, y sample) int { return int(x.wall - y.wall) })
	var rss int64
	for _, s := range ss {
		rss = max(rss, s.rss)
	}
	b.ReportMetric(ms(ss[0].wall), "ms/min")
	b.ReportMetric(ms(ss[len(ss)/2].wall), "ms/median")
	b.ReportMetric(ms(ss[len(ss)-1].wall), "ms/max")
	b.ReportMetric(float64(rss)/1024, "MB/rss-max")
	b.ReportMetric(0, "ns/op")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkAudit measures `sixfence audit` on the normal host: median of ten,
// warm and with the page, dentry and inode caches dropped before each run.
func BenchmarkAudit(b *testing.B) {
	bin := normalHost(b)
	for _, format := range []string{"text", "json"} {
		run := func(b *testing.B, before func()) {
			b.Helper()
			var ss []sample
			for range 10 {
				before()
				ss = append(ss, measure(b, bin, "audit", "--format", format))
			}
			report(b, ss)
		}
		b.Run("warm/"+format, func(b *testing.B) { run(b, func() {}) })
		b.Run("cold/"+format, func(b *testing.B) {
			run(b, func() {
				syscall.Sync()
				if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
	b.Run("peer=lynis", func(b *testing.B) {
		lynis := testlab.RequireTool(b, "lynis")
		report(b, []sample{measure(b, lynis, "audit", "system", "--quick", "--no-colors", "--tests-from-group", "networking,firewalls,kernel")})
	})
	b.Run("peer=lynis-full", func(b *testing.B) {
		lynis := testlab.RequireTool(b, "lynis")
		report(b, []sample{measure(b, lynis, "audit", "system", "--quick", "--no-colors")})
	})
	b.Run("peer=oscap", func(b *testing.B) {
		oscap := testlab.RequireTool(b, "oscap")
		ds := ""
		for _, p := range []string{"/usr/share/xml/scap/ssg/content/ssg-debian12-ds.xml", "/usr/share/xml/scap/ssg/content/ssg-debian11-ds.xml"} {
			if _, err := os.Stat(p); err == nil {
				ds = p
				break
			}
		}
		if ds == "" {
			testlab.CannotRun(b, "needs a SCAP data stream (ssg-debian)")
		}
		var ss []sample
		for range 3 {
			ss = append(ss, measure(b, oscap, "xccdf", "eval", "--profile", "xccdf_org.ssgproject.content_profile_anssi_np_nt28_restrictive", ds))
		}
		report(b, ss)
	})
}

// BenchmarkSockets measures a whole audit of a host with many listeners, owners
// resolved, beside ss. The reading alone, without the rest of the audit, is
// measured in internal/host/collect.
func BenchmarkSockets(b *testing.B) {
	bin := build(b)
	for _, n := range []int{1000, 10000, 100000} {
		b.Run(fmt.Sprintf("listeners=%d", n), func(b *testing.B) {
			ns := testlab.NewNS(b, "sk")
			// 15,000 to a process: the usual hard limit of descriptors is 20,000.
			for i, left := 0, n; left > 0; i, left = i+1, left-15000 {
				hold(b, ns, fmt.Sprintf("10000+%d@127.0.0.%d", min(left, 15000), i+1))
			}
			var ours, ss []sample
			for range 5 {
				ours = append(ours, measure(b, "ip", "netns", "exec", ns.Name, bin, "audit"))
				ss = append(ss, measure(b, "ip", "netns", "exec", ns.Name, "ss", "-tulnp"))
			}
			report(b, ours)
			slices.SortFunc(ss, func(x, y sample) int { return int(x.wall - y.wall) })
			b.ReportMetric(ms(ss[len(ss)/2].wall), "ms/ss")
			b.ReportMetric(float64(ss[len(ss)/2].wall)/float64(ours[len(ours)/2].wall), "ss/audit")
		})
	}
}
