package sock

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// everything is what this kernel has: the tests look at the answer, not at presence.
func everything(name string) bool { return name != "sctp_diag" && name != "raw_diag" }

func nothing(string) bool { return false }

func noOwners(uint64) fact.Known[[]int] { return fact.Absent[[]int]() }

func budget() *ask.Budget { return ask.NewBudget("test", time.Minute, 1<<40, 1<<40) }

func read(t *testing.T, ns *testlab.NS, present func(string) bool, learn func(uint64) Options) []fact.Socket {
	t.Helper()
	var d *Dump
	ns.Do(func() { d = Read(ask.New(present, false), budget()) })
	if learn != nil {
		d.Learn(learn)
	}
	var out fact.Namespace
	d.Decode(&out, noOwners)
	s, ok := out.Sockets.Get()
	if !ok {
		g, _ := out.Sockets.Gap()
		t.Fatalf("sockets: %v", g)
	}
	return s
}

// bed is a namespace with a socket of every kind in it.
type bed struct {
	ns    *testlab.NS
	own   map[uint64]int // inode → descriptor here
	files []*os.File
}

func (l *bed) keep(t *testing.T, fd int, err error) int {
	t.Helper()
	if err != nil {
		t.Errorf("make socket: %v", err)
		return -1
	}
	f := os.NewFile(uintptr(fd), "socket")
	l.files = append(l.files, f)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Errorf("stat: %v", err)
	}
	l.own[st.Ino] = fd
	return fd
}

func (l *bed) socket(t *testing.T, domain, typ, proto int, set func(fd int) error, addr unix.Sockaddr, listen bool) {
	t.Helper()
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
	if l.keep(t, fd, err) < 0 {
		return
	}
	if set != nil {
		if err := set(fd); err != nil {
			t.Errorf("set option: %v", err)
		}
	}
	if addr != nil {
		if err := unix.Bind(fd, addr); err != nil {
			t.Errorf("bind %+v: %v", addr, err)
		}
	}
	if listen {
		if err := unix.Listen(fd, 4); err != nil {
			t.Errorf("listen: %v", err)
		}
	}
}

func opt(level, name, value int) func(int) error {
	return func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) }
}

func newBed(t *testing.T) *bed {
	l := &bed{ns: testlab.NewNS(t, "sock"), own: map[uint64]int{}}
	t.Cleanup(func() {
		for _, f := range l.files {
			f.Close()
		}
	})
	l.ns.IP("addr", "add", "2001:db8::1/64", "dev", "lo", "nodad")
	l.ns.Do(func() {
		v6only, dual := opt(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1), opt(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
		mapped := netip.MustParseAddr("::ffff:127.0.0.1").As16()
		global := netip.MustParseAddr("2001:db8::1").As16()
		l.socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0, dual, &unix.SockaddrInet6{Port: 1001}, true)
		l.socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0, v6only, &unix.SockaddrInet6{Port: 1002}, true)
		l.socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0, dual, &unix.SockaddrInet6{Port: 1003, Addr: mapped}, true)
		l.socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0, nil, &unix.SockaddrInet6{Port: 1004, Addr: global}, true)
		l.socket(t, unix.AF_INET, unix.SOCK_STREAM, 0, nil, &unix.SockaddrInet4{Port: 1005}, true)
		l.socket(t, unix.AF_INET, unix.SOCK_STREAM, 0, nil, &unix.SockaddrInet4{Port: 1006, Addr: [4]byte{127, 0, 0, 1}}, true)
		l.socket(t, unix.AF_INET, unix.SOCK_STREAM, 0, nil, &unix.SockaddrInet4{Port: 1007}, false) // bound, does not listen
		for _, p := range []int{unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE} {
			l.socket(t, unix.AF_INET6, unix.SOCK_DGRAM, p, dual, &unix.SockaddrInet6{Port: 1101}, false)
			l.socket(t, unix.AF_INET6, unix.SOCK_DGRAM, p, v6only, &unix.SockaddrInet6{Port: 1102}, false)
			l.socket(t, unix.AF_INET, unix.SOCK_DGRAM, p, nil, &unix.SockaddrInet4{Port: 1103}, false)
		}
		l.socket(t, unix.AF_INET6, unix.SOCK_DGRAM, 0, dual, &unix.SockaddrInet6{Port: 1104, Addr: mapped}, false)
		l.socket(t, unix.AF_INET6, unix.SOCK_DGRAM, 0, func(fd int) error {
			return unix.Connect(fd, &unix.SockaddrInet6{Port: 1101, Addr: netip.IPv6Loopback().As16()})
		}, nil, false)
		l.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
			return unix.Connect(fd, &unix.SockaddrInet4{Port: 1103, Addr: [4]byte{127, 0, 0, 1}})
		}, nil, false)
		bound := func(fd int) error { return unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo") }
		l.socket(t, unix.AF_INET6, unix.SOCK_DGRAM, 0, bound, &unix.SockaddrInet6{Port: 1105}, false)
		l.socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0, bound, &unix.SockaddrInet6{Port: 1008}, true)
		group := func(v6only int) func(fd int) error {
			return func(fd int) error {
				if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only); err != nil {
					return err
				}
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
		}
		// A reuseport group beside IPv4 on the same port: nothing follows from it.
		l.socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0, group(0), &unix.SockaddrInet6{Port: 1009}, true)
		l.socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0, group(1), &unix.SockaddrInet6{Port: 1009}, true)
		l.socket(t, unix.AF_INET, unix.SOCK_STREAM, 0, opt(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), &unix.SockaddrInet4{Port: 1009}, true)
		l.socket(t, unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, nil, nil, false)
		l.socket(t, unix.AF_INET, unix.SOCK_RAW, 41, nil, nil, false)
		l.socket(t, unix.AF_INET6, unix.SOCK_RAW, 89, nil, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}, false)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0300) // ETH_P_ALL, network order
		l.keep(t, fd, err)
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if l.keep(t, fd, err); err == nil {
			if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0xdd86, Ifindex: 1}); err != nil { // ETH_P_IPV6
				t.Errorf("bind packet: %v", err)
			}
		}
		// Go's "tcp" with an IPv4 wildcard makes a dual-stack socket.
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				var st unix.Stat_t
				if unix.Fstat(int(fd), &st) == nil {
					l.own[st.Ino] = int(fd)
				}
			})
		}}
		ln, err := lc.Listen(context.Background(), "tcp", "0.0.0.0:1010")
		if err != nil {
			t.Errorf("listen: %v", err)
			return
		}
		t.Cleanup(func() { ln.Close() })
	})
	return l
}

func key(s fact.Socket) string {
	v6 := "-"
	if v, ok := s.V6Only.Get(); ok {
		v6 = strconv.FormatBool(v)
	}
	return fmt.Sprintf("%s %s %d %s %v %d %s v6only=%s if=%d ino=%d uid=%d", s.Family, s.Protocol, s.Number, s.State, s.Local, s.Port, s.Remote, v6, s.Index, s.Inode, s.UID)
}

func keys(socks []fact.Socket) []string {
	var out []string
	for _, s := range socks {
		out = append(out, key(s))
	}
	slices.Sort(out)
	return out
}

func TestReadsEverySocketAsTheKernelHasIt(t *testing.T) {
	t.Parallel()
	l := newBed(t)
	socks := read(t, l.ns, everything, nil)
	seen := map[uint64]fact.Socket{}
	for _, s := range socks {
		seen[s.Inode] = s
	}
	// Each socket itself is the oracle for its options.
	receivers := 0
	for inode, fd := range l.own {
		listening, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		typ, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		s, ok := seen[inode]
		if typ == unix.SOCK_STREAM && listening == 0 {
			if ok {
				t.Errorf("a socket that does not listen is listed: %s", key(s))
			}
			continue
		}
		receivers++
		if !ok {
			t.Errorf("socket %d (type %d) is not listed", inode, typ)
			continue
		}
		domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if domain == unix.AF_INET6 && s.State != "connected" && s.Protocol != "raw" {
			want, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := s.V6Only.Get(); !ok || got != (want == 1) {
				t.Errorf("%s: v6only is %d", key(s), want)
			}
		}
		if domain != unix.AF_PACKET && !s.IndexUnknown {
			want, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
			if err != nil || s.Index != want {
				t.Errorf("%s: bound to interface %d (%v)", key(s), want, err)
			}
		}
	}
	if receivers < 26 || len(seen) != receivers {
		t.Errorf("%d receivers, %d listed", receivers, len(seen))
	}
	for _, want := range []string{
		"ipv6 tcp 0 listen :: 1001", "ipv6 tcp 0 listen ::ffff:127.0.0.1 1003", "ipv6 tcp 0 listen :: 1010",
		"ipv4 raw 41 unconnected 0.0.0.0 0", "ipv6 raw 58 unconnected :: 0", "ipv6 raw 89 unconnected ::1 0",
		"packet packet 3 unconnected", "packet packet 34525 unconnected", "ipv6 udplite 0 unconnected :: 1102", "ipv4 udplite 0 unconnected 0.0.0.0 1103",
		"ipv6 udp 0 unconnected ::ffff:127.0.0.1 1104",
	} {
		if !slices.ContainsFunc(keys(socks), func(k string) bool { return strings.HasPrefix(k, want) }) {
			t.Errorf("no socket %q in\n%s", want, strings.Join(keys(socks), "\n"))
		}
	}
}

// Both sources must say the same about the same sockets: the fallback is what
// most production kernels get.
func TestProcSaysTheSameAsDiag(t *testing.T) {
	t.Parallel()
	l := newBed(t)
	self := func(inode uint64) Options {
		fd, ok := l.own[inode]
		if !ok {
			return Options{}
		}
		var o Options
		if v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err == nil {
			o.V6Only = fact.Value(v == 1)
		}
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); err == nil {
			o.Index = fact.Value(v)
		}
		return o
	}
	diag := read(t, l.ns, everything, self)
	proc := read(t, l.ns, nothing, self)
	for i := range proc {
		if proc[i].Source != "proc" {
			t.Errorf("asked %s although nothing is present: %s", proc[i].Source, key(proc[i]))
		}
		if proc[i].State == "connected" && proc[i].Family == "ipv6" { // diag does not tell v6only of these
			proc[i].V6Only = fact.Known[bool]{}
		}
	}
	for i := range diag {
		if diag[i].State == "connected" && diag[i].Family == "ipv6" {
			diag[i].V6Only = fact.Known[bool]{}
		}
	}
	if d := cmp.Diff(keys(diag), keys(proc)); d != "" {
		t.Errorf("diag (-) and proc (+) differ:\n%s", d)
	}
	for _, s := range read(t, l.ns, nothing, nil) {
		if s.Protocol == "packet" || s.Local.Is4In6() {
			continue
		}
		if !s.IndexUnknown {
			t.Errorf("%s: /proc cannot know its interface", key(s))
		}
		if _, ok := s.V6Only.Get(); ok {
			t.Errorf("%s: v6only was guessed", key(s))
		}
	}
}

// ss is the oracle for the list as a whole.
func TestAgreesWithSS(t *testing.T) {
	t.Parallel()
	testlab.RequireTool(t, "ss")
	l := newBed(t)
	want := map[string]bool{}
	raw := strings.Count(l.ns.Run("ss", "-wnHaO"), "\n") // ss has no inode for these without raw_diag
	for _, args := range [][]string{{"-tuln"}, {"-0n"}} {
		for line := range strings.Lines(l.ns.Run("ss", append(args, "-HaeO")...)) {
			if i := strings.Index(line, "ino:"); i >= 0 && !strings.Contains(line, "ESTAB") {
				ino, _, _ := strings.Cut(line[i+4:], " ")
				v6 := ""
				if j := strings.Index(line, "v6only:"); j >= 0 {
					v6 = line[j+7 : j+8]
				}
				want[strings.TrimSpace(ino)+" "+v6] = true
			}
		}
	}
	got := map[string]bool{}
	for _, s := range read(t, l.ns, everything, nil) {
		if s.Protocol == "raw" {
			raw--
		}
		if s.State == "connected" || s.Protocol == "udplite" || s.Protocol == "raw" {
			continue
		}
		v6 := ""
		if v, ok := s.V6Only.Get(); ok && s.Source == "inet_diag" {
			v6 = map[bool]string{false: "0", true: "1"}[v]
		}
		got[fmt.Sprint(s.Inode, " ", v6)] = true
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ss (-) and Read (+) differ:\n%s", d)
	}
	if raw != 0 {
		t.Errorf("ss shows %d more raw sockets", raw)
	}
}

func TestAsksNothingThatIsNotThere(t *testing.T) {
	t.Parallel()
	ns := testlab.NewNS(t, "sock")
	a := ask.New(nothing, true)
	ns.Do(func() { Read(a, budget()) })
	for _, e := range a.Log() {
		if e.Op == "netlink" {
			t.Errorf("asked %q of a kernel that would have to load it", e.What)
		}
	}
	a = ask.New(everything, true)
	ns.Do(func() { Read(a, budget()) })
	present := map[string]bool{}
	asked := 0
	for _, e := range a.Log() {
		if e.Op == "present" && e.Yes {
			present[e.What] = true
		}
		if e.Op != "netlink" {
			continue
		}
		asked++
		need := map[string]string{"tcp": "tcp_diag", "udp": "udp_diag", "udplite": "udp_diag", "packet": "packet_diag"}[strings.Fields(e.What)[1]]
		if need == "" || !present[need] || need != "packet_diag" && !present["inet_diag"] {
			t.Errorf("asked %q before knowing that it is present", e.What)
		}
	}
	if asked != 7 {
		t.Errorf("%d requests", asked)
	}
}

func TestOverBudgetIsAGap(t *testing.T) {
	t.Parallel()
	l := newBed(t)
	for name, present := range map[string]func(string) bool{"diag": everything, "proc": nothing} {
		for what, b := range map[string]*ask.Budget{"objects": ask.NewBudget("test", time.Minute, 3, 1<<30), "bytes": ask.NewBudget("test", time.Minute, 1<<30, 300), "time": ask.NewBudget("test", 0, 1<<30, 1<<30)} {
			var d *Dump
			l.ns.Do(func() { d = Read(ask.New(present, false), b) })
			var ns fact.Namespace
			d.Decode(&ns, noOwners)
			if g, ok := ns.Sockets.Gap(); !ok || g.Reason != fact.Truncated {
				t.Errorf("%s, %s: %v %v", name, what, ns.Sockets.State(), g)
			}
		}
	}
}
