package sysctl

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

func asker() *ask.Asker { return ask.New(func(string) bool { return true }, false) }

func budget() *ask.Budget { return ask.NewBudget("lab", 20*time.Second, 1<<20, 1<<28) }

// collect reads and decodes in the namespace of the calling thread.
func collect() fact.Namespace {
	ns := fact.Namespace{Name: "lab"}
	Read(asker(), budget()).Decode(&ns)
	return ns
}

func sysctls(t testing.TB, n *testlab.NS) fact.Sysctls {
	t.Helper()
	var ns fact.Namespace
	n.Do(func() { ns = collect() })
	s, ok := ns.Sysctls.Get()
	if !ok {
		g, _ := ns.Sysctls.Gap()
		t.Fatalf("sysctls unknown: %v", g)
	}
	if six, ok := ns.IPv6.Get(); !ok || !six {
		t.Fatalf("IPv6 = %v, %v", six, ok)
	}
	return s
}

// TestReadMatchesFiles compares every value with os.ReadFile, on interfaces with
// odd names, and makes sure nothing that exists was left out silently.
func TestReadMatchesFiles(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "sysctl")
	odd := []string{"eth0.100", "a-b_c@d", "x\\y", "\x01\x1b[31m", "..a", "q\xff", "\u202eabc"}
	for i, name := range odd {
		n.IP("link", "add", name, "type", "veth", "peer", "name", fmt.Sprintf("p%d", i))
	}
	n.Sysctl("net/ipv6/conf/eth0.100/accept_ra", "2")
	n.Sysctl("net/ipv6/conf/eth0.100/max_addresses", "7")
	n.Sysctl("net/ipv6/icmp/ratemask", "0-1,3-127")
	s := sysctls(t, n)

	if got := s.Get("net/ipv6/conf/eth0.100/accept_ra").Or("?"); got != "2" {
		t.Errorf("accept_ra of eth0.100 = %q", got)
	}
	if got := s.Get("net/ipv6/icmp/ratemask").Or("?"); got != "0-1,3-127" {
		t.Errorf("ratemask = %q", got)
	}
	if g := s.Get("net/ipv6/conf/eth0.100/no_such_key"); g.State() != fact.StateUnsupported {
		t.Errorf("a key the kernel lacks is %v", g.State())
	}
	if g := s.Get("net/core/no_such_key"); g.State() != fact.StateGap {
		t.Errorf("a key nobody asked for is %v", g.State())
	}

	want := map[string]string{}
	var mu sync.Mutex
	n.Do(func() {
		err := filepath.WalkDir("/proc/sys/net/ipv6", func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			key := fact.InterfaceName([]byte(strings.TrimPrefix(p, "/proc/sys/")))
			b, err := os.ReadFile(p)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case e.Name() == "flush":
			case e.Name() == "stable_secret":
				want[key] = "unset"
			case err != nil:
				t.Errorf("oracle: %v", err)
			default:
				want[key] = strings.TrimSpace(string(b))
			}
			return nil
		})
		if err != nil {
			t.Errorf("oracle: %v", err)
		}
	})
	got := map[string]string{}
	for k, v := range s.Values {
		if strings.HasPrefix(k, "net/ipv6/") {
			got[k] = v
		}
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[k]; !ok {
			t.Errorf("%q is missing", k)
		} else if v != want[k] {
			t.Errorf("%q = %q, the file says %q", k, v, want[k])
		}
		delete(got, k)
	}
	for k := range got {
		t.Errorf("%q is not a file", k)
	}
	if len(want) < 60*len(odd) {
		t.Errorf("the oracle saw only %d files", len(want))
	}
	if len(s.Gaps) != 0 {
		t.Errorf("gaps: %v", s.Gaps)
	}
	for _, name := range odd {
		if dir := "net/ipv6/conf/" + fact.InterfaceName([]byte(name)); !slices.Contains(s.Complete, dir) {
			t.Errorf("%q is not complete", dir)
		}
	}
}

// TestOtherKeys compares the keys outside net/ipv6.
func TestOtherKeys(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "sysctl")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	n.Sysctl("net/ipv4/conf/v0/forwarding", "1")
	n.Sysctl("net/ipv4/tcp_mtu_probing", "1")
	s := sysctls(t, n)
	for _, key := range []string{
		"net/ipv4/ip_forward", "net/ipv4/tcp_mtu_probing", "net/ipv4/conf/v0/forwarding", "net/ipv4/conf/v1/forwarding",
		"net/ipv4/conf/all/forwarding", "net/ipv4/conf/default/forwarding",
		"net/core/devconf_inherit_init_net", "net/core/fb_tunnels_only_for_init_net", "net/bridge/bridge-nf-call-ip6tables",
		"net/bridge/bridge-nf-call-iptables", "net/netfilter/nf_log_all_netns", "net/netfilter/nf_conntrack_count",
		"net/netfilter/nf_conntrack_frag6_high_thresh", "net/netfilter/nf_conntrack_frag6_timeout",
	} {
		var want string
		state := fact.StateValue
		n.Do(func() {
			b, err := os.ReadFile("/proc/sys/" + key)
			if os.IsNotExist(err) {
				state = fact.StateUnsupported
			} else if err != nil {
				t.Errorf("oracle: %v", err)
			}
			want = strings.TrimSpace(string(b))
		})
		got := s.Get(key)
		if got.State() != state || got.Or("") != want {
			t.Errorf("%s: %v %q, want %v %q", key, got.State(), got.Or(""), state, want)
		}
	}
}

// TestStableSecretStaysOutside sets a secret and looks for it in everything that
// was read.
func TestStableSecretStaysOutside(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "sysctl")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	const secret = "2001:0db8:dead:beef:cafe:f00d:1234:5678"
	n.Sysctl("net/ipv6/conf/v0/stable_secret", secret)
	var d *Dump
	n.Do(func() { d = Read(asker(), budget()) })
	for _, part := range []string{secret, "dead", "f00d"} {
		if strings.Contains(string(d.values), part) {
			t.Errorf("the dump holds %q", part)
		}
	}
	var ns fact.Namespace
	d.Decode(&ns)
	s, _ := ns.Sysctls.Get()
	for key, want := range map[string]string{
		"net/ipv6/conf/v0/stable_secret":      "set",
		"net/ipv6/conf/v1/stable_secret":      "unset",
		"net/ipv6/conf/default/stable_secret": "unset",
	} {
		if got := s.Get(key).Or("?"); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
}

// TestProbeReadsNothing proves that telling set from unset reads no byte: the
// descriptor's offset has not moved, so the first real read still gets it all.
func TestProbeReadsNothing(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "sysctl")
	const secret = "2001:0db8:0000:0000:0000:0000:0000:0001"
	n.Sysctl("net/ipv6/conf/default/stable_secret", secret)
	n.Do(func() {
		fd, errno := open(unix.AT_FDCWD, "/proc/sys/net/ipv6/conf/default/stable_secret", unix.O_RDONLY)
		if errno != 0 {
			t.Errorf("open: %v", errno)
			return
		}
		defer unix.Close(fd)
		if got, errno := probeSecret(fd); got != isSet || errno != 0 {
			t.Errorf("probe: %v, %v", got, errno)
		}
		b := make([]byte, 64)
		k, _ := readFD(fd, b)
		if got := strings.TrimSpace(string(b[:k])); got != secret {
			t.Errorf("after the probe the file reads %q", got)
		}
	})
}

// TestNamespacesInParallel reads two namespaces at once, many times: each must
// see its own values although both threads share one process.
func TestNamespacesInParallel(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for i := range 2 {
		n := testlab.NewNS(t, "sysctl")
		want := fmt.Sprint(100 + i)
		n.Sysctl("net/ipv6/conf/lo/max_addresses", want)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 20 {
				n.Do(func() {
					ns := collect()
					s, _ := ns.Sysctls.Get()
					if got := s.Get("net/ipv6/conf/lo/max_addresses").Or("?"); got != want {
						t.Errorf("max_addresses = %q, want %q", got, want)
					}
				})
			}
		}()
	}
	wg.Wait()
}

func TestBudget(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "sysctl")
	for name, b := range map[string]*ask.Budget{
		"objects": ask.NewBudget("lab", time.Minute, 50, 1<<20),
		"bytes":   ask.NewBudget("lab", time.Minute, 1<<20, 100),
		"time":    ask.NewBudget("lab", 0, 1<<20, 1<<20),
	} {
		var ns fact.Namespace
		n.Do(func() { Read(asker(), b).Decode(&ns) })
		if g, ok := ns.Sysctls.Gap(); !ok || g.Reason != fact.Truncated {
			t.Errorf("%s: %v %v", name, ns.Sysctls.State(), g)
		}
		if g, ok := ns.IPv6.Gap(); !ok || g.Reason != fact.Truncated {
			t.Errorf("%s: IPv6 %v %v", name, ns.IPv6.State(), g)
		}
	}
}

// TestMasked hides parts of /proc/sys in a mount namespace of its own: what is
// hidden is a Gap, and only what the kernel itself lacks is unsupported.
func TestMasked(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	for _, c := range []struct {
		name  string
		mask  func() error
		check func(*testing.T, fact.Namespace)
	}{
		{"all of /proc/sys", func() error { return unix.Mount("none", "/proc/sys", "tmpfs", 0, "") }, func(t *testing.T, ns fact.Namespace) {
			if g, ok := ns.IPv6.Gap(); !ok || g.Reason != fact.NotCollected {
				t.Errorf("IPv6: %v %v", ns.IPv6.State(), g)
			}
			if _, ok := ns.Sysctls.Gap(); !ok {
				t.Errorf("sysctls: %v", ns.Sysctls.State())
			}
		}},
		{"net", func() error { return unix.Mount("none", "/proc/sys/net", "tmpfs", 0, "") }, func(t *testing.T, ns fact.Namespace) {
			if _, ok := ns.IPv6.Gap(); !ok {
				t.Errorf("IPv6: %v", ns.IPv6.State())
			}
		}},
		{"net/ipv6", func() error { return unix.Mount("none", "/proc/sys/net/ipv6", "tmpfs", 0, "") }, func(t *testing.T, ns fact.Namespace) {
			if _, ok := ns.IPv6.Gap(); !ok {
				t.Errorf("IPv6: %v", ns.IPv6.State())
			}
			s, _ := ns.Sysctls.Get()
			if k := s.Get("net/ipv6/conf/all/forwarding"); k.State() != fact.StateGap {
				t.Errorf("forwarding: %v", k.State())
			}
			if k := s.Get("net/ipv4/ip_forward"); k.State() != fact.StateValue {
				t.Errorf("ip_forward: %v", k.State())
			}
		}},
		{"one file", func() error {
			return unix.Mount("/dev/null", "/proc/sys/net/ipv6/conf/all/forwarding", "", unix.MS_BIND, "")
		}, func(t *testing.T, ns fact.Namespace) {
			s, _ := ns.Sysctls.Get()
			if k := s.Get("net/ipv6/conf/all/forwarding"); k.State() != fact.StateGap {
				t.Errorf("forwarding: %v %q", k.State(), k.Or(""))
			}
			if k := s.Get("net/ipv6/conf/all/accept_ra"); k.State() != fact.StateValue {
				t.Errorf("accept_ra: %v", k.State())
			}
		}},
		{"one file with another setting", func() error {
			return unix.Mount("/proc/sys/net/ipv6/conf/lo/accept_dad", "/proc/sys/net/ipv6/conf/lo/accept_ra", "", unix.MS_BIND, "")
		}, func(t *testing.T, ns fact.Namespace) {
			s, _ := ns.Sysctls.Get()
			if k := s.Get("net/ipv6/conf/lo/accept_ra"); k.State() != fact.StateGap {
				t.Errorf("accept_ra: %v %q", k.State(), k.Or(""))
			}
		}},
		{"one interface with another's settings", func() error {
			return unix.Mount("/proc/sys/net/ipv6/conf/default", "/proc/sys/net/ipv6/conf/lo", "", unix.MS_BIND, "")
		}, func(t *testing.T, ns fact.Namespace) {
			s, _ := ns.Sysctls.Get()
			if k := s.Get("net/ipv6/conf/lo/accept_ra"); k.State() != fact.StateGap {
				t.Errorf("accept_ra: %v %q", k.State(), k.Or(""))
			}
			if k := s.Get("net/ipv6/conf/default/accept_ra"); k.State() != fact.StateValue {
				t.Errorf("default.accept_ra: %v", k.State())
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := testlab.NewNS(t, "sysctl")
			var ns fact.Namespace
			n.Do(func() { // a thread of its own, thrown away afterwards
				if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
					t.Errorf("unshare: %v", err)
					return
				}
				if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
					t.Errorf("make mounts private: %v", err)
					return
				}
				if err := c.mask(); err != nil {
					t.Errorf("mask: %v", err)
					return
				}
				ns = collect()
			})
			c.check(t, ns)
		})
	}
}

// TestUnprivileged reads as an ordinary user: stable_secret has mode 0600.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "sysctl")
	var ns fact.Namespace
	n.Do(func() {
		// The raw call changes this thread only; setresuid also clears its capabilities.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			t.Errorf("setresuid: %v", errno)
			return
		}
		ns = collect()
	})
	s, _ := ns.Sysctls.Get()
	if g, ok := s.Get("net/ipv6/conf/lo/stable_secret").Gap(); !ok || g.Reason != fact.Permission {
		t.Errorf("stable_secret: %v", g)
	}
	if k := s.Get("net/ipv6/conf/lo/accept_ra"); k.State() != fact.StateValue {
		t.Errorf("accept_ra: %v", k.State())
	}
}

// TestLateInterface: an interface that netlink knows and the listing does not.
func TestLateInterface(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "sysctl")
	ns := fact.Namespace{Links: fact.Value([]fact.Link{
		{Index: 1, Name: "lo", Inet6: fact.Value(map[string]int32{})},
		{Index: 9, Name: "late0", Inet6: fact.Value(map[string]int32{})},
		{Index: 10, Name: "noipv6", Inet6: fact.Absent[map[string]int32]()},
	})}
	n.Do(func() { Read(asker(), budget()).Decode(&ns) })
	s, _ := ns.Sysctls.Get()
	for key, want := range map[string]fact.State{
		"net/ipv6/conf/late0/accept_ra":  fact.StateGap,
		"net/ipv6/conf/noipv6/accept_ra": fact.StateUnsupported,
		"net/ipv6/conf/lo/accept_ra":     fact.StateValue,
	} {
		if got := s.Get(key).State(); got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
}

// TestNoIPv6 covers ipv6.disable=1, which needs a reboot to be real.
func TestNoIPv6(t *testing.T) {
	t.Parallel()
	var ns fact.Namespace
	(&Dump{noIPv6: true}).Decode(&ns)
	if six, ok := ns.IPv6.Get(); !ok || six {
		t.Errorf("IPv6 = %v, %v", six, ok)
	}
	s, _ := ns.Sysctls.Get()
	if k := s.Get("net/ipv6/conf/all/forwarding"); k.State() != fact.StateUnsupported {
		t.Errorf("forwarding: %v", k.State())
	}
}

func TestSecretNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"stable_secret": true, "tcp_fastopen_key": true, "new_secret_2030": true,
		"ip6frag_secret_interval": false, "accept_ra": false, "hop_limit": false,
	} {
		if secret(name) != want {
			t.Errorf("secret(%q) = %v", name, !want)
		}
	}
}

func FuzzDirents(f *testing.F) {
	fd, err := unix.Open("/proc/sys/net", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		b := make([]byte, 4096)
		n, _ := unix.Getdents(fd, b)
		unix.Close(fd)
		f.Add(b[:max(n, 0)])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for name := range dirents(b) {
			if s := string(name); s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00") {
				t.Errorf("name %q leaves its directory", s)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("eth0.100"), []byte("1\n"))
	f.Add([]byte("\xff\x1b[2J"), []byte(""))
	f.Fuzz(func(t *testing.T, iface, value []byte) {
		d := &Dump{values: value, dirs: []dir{{
			path: "net/ipv6/conf", name: iface, listed: true,
			files: []file{{name: "accept_ra", end: len(value)}, {name: "mtu", state: failed, reason: fact.Permission}},
		}}}
		var ns fact.Namespace
		d.Decode(&ns)
		s, ok := ns.Sysctls.Get()
		if !ok || len(s.Values) != 1 || len(s.Gaps) != 1 || len(s.Complete) != 1 {
			t.Fatalf("%+v", s)
		}
	})
}

// BenchmarkRead is a namespace of 20 interfaces: about 65 settings and 18
// neighbour settings each.
func BenchmarkRead(b *testing.B) {
	n := testlab.NewNS(b, "sysctl")
	for i := range 10 {
		n.IP("link", "add", fmt.Sprintf("a%d", i), "type", "veth", "peer", "name", fmt.Sprintf("b%d", i))
	}
	n.Do(func() {
		b.ReportAllocs()
		for b.Loop() {
			d := Read(asker(), budget())
			var ns fact.Namespace
			d.Decode(&ns)
			if s, _ := ns.Sysctls.Get(); len(s.Values) < 1600 {
				b.Errorf("only %d values", len(s.Values))
			}
		}
	})
}
