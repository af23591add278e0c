package files_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect/files"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// sentinel is the value of every key before systemd-sysctl runs; no generated
// line writes it.
const sentinel = "50"

var (
	oracleDirs   = []string{"etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d"}
	oracleIfaces = []string{"all", "default", "lo", "e0", "e1", "e0.100"}
	oracleKeys   = []string{"hop_limit", "dad_transmits", "forwarding"}
)

// randomConfig writes sysctl.d files that use every rule of sysctl.d(5).
func randomConfig(t *testing.T, r *rand.Rand, root string) {
	t.Helper()
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	line := func() string {
		iface := pick("all", "all", "default", "lo", "e0", "e1", "e0.100", "e9", "zz9", "*", "*", "e*", "e?", "[el]*", "[!e]*", "{e0,lo}*", "{e0,e1}", "?0", "e0*100", "none*")
		name := pick("hop_limit", "hop_limit", "dad_transmits", "forwarding", "forwarding", "*_limit", "dad_tr?nsmits")
		value := pick("1", "2", "3")
		if name == "forwarding" {
			value = pick("0", "1")
		}
		key := "net/ipv6/conf/" + iface + "/" + name
		switch r.IntN(4) {
		case 0: // dots; a dot of the name becomes a slash
			key = "net.ipv6.conf." + strings.ReplaceAll(iface, ".", "/") + "." + name
		case 1: // the common mistake: a dotted name stays dotted
			key = "net.ipv6.conf." + iface + "." + name
		case 2:
			key = "/net//ipv6/./conf/" + iface + "/" + name
		}
		switch r.IntN(14) {
		case 0:
			return "-" + key // exclusion
		case 1:
			return "-" + key + " = " + value
		case 2:
			return "  # " + key + "=" + value
		case 3:
			return "; x"
		case 4:
			return key // no assignment
		case 5:
			return "\t" + key + "\t=  " + value + " \r"
		case 6:
			return "- " + key + "=" + value
		}
		return key + pick("=", " = ") + value
	}
	for _, dir := range oracleDirs {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"10-a.conf", "50-b.conf", "9-c.conf", "x.conf", "readme.txt", ".hidden.conf"} {
			p := filepath.Join(root, dir, name)
			var err error
			switch r.IntN(12) {
			case 0, 1, 2, 3:
				var b strings.Builder
				for range 1 + r.IntN(4) {
					b.WriteString(line() + "\n")
				}
				err = os.WriteFile(p, []byte(b.String()), 0o644)
			case 4:
				err = os.WriteFile(p, nil, 0o644)
			case 5:
				err = os.Symlink("/dev/null", p)
			case 6:
				err = os.Symlink("nowhere", p)
			case 7:
				err = os.Mkdir(p, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	p := filepath.Join(root, "usr/lib/systemd/systemd-sysctl")
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, nil, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestSystemdSysctlOracle writes random configurations, has the real
// systemd-sysctl apply each in a namespace of its own, and compares every key
// with what files and bootconf say together.
func TestSystemdSysctlOracle(t *testing.T) {
	t.Parallel()
	bin := testlab.RequireTool(t, "systemd-sysctl")
	ns := testlab.NewNS(t, "sysctl")
	ns.IP("link", "add", "e0", "type", "veth", "peer", "name", "e1")
	ns.IP("link", "add", "e0.100", "type", "veth", "peer", "name", "peer")

	const n = 70
	work := t.TempDir()
	r := rand.New(rand.NewPCG(2026, 6))
	for i := range n {
		randomConfig(t, r, filepath.Join(work, fmt.Sprint(i)))
	}
	script := `set -e
mkdir -p /etc/sysctl.d /run/sysctl.d /usr/local/lib/sysctl.d /usr/lib/sysctl.d
i=0
while [ $i -lt ` + fmt.Sprint(n) + ` ]; do
  for k in hop_limit dad_transmits forwarding; do
    v=` + sentinel + `; [ $k = forwarding ] && v=0
    for f in /proc/sys/net/ipv6/conf/*/$k; do echo $v > $f; done
  done
  for d in ` + strings.Join(oracleDirs, " ") + `; do mount --bind ` + work + `/$i/$d /$d; done
  ` + bin + ` >/dev/null 2>&1 || true
  (cd /proc/sys; grep -H . net/ipv6/conf/*/hop_limit net/ipv6/conf/*/dad_transmits net/ipv6/conf/*/forwarding) > ` + work + `/$i/out
  ip link add zz9 type veth peer name zz8
  ` + bin + ` --prefix=/net/ipv4/conf/zz9 --prefix=/net/ipv4/neigh/zz9 --prefix=/net/ipv6/conf/zz9 --prefix=/net/ipv6/neigh/zz9 >/dev/null 2>&1 || true
  (cd /proc/sys; grep -H . net/ipv6/conf/zz9/hop_limit net/ipv6/conf/zz9/dad_transmits net/ipv6/conf/zz9/forwarding) >> ` + work + `/$i/out
  ip link del zz9
  for d in ` + strings.Join(oracleDirs, " ") + `; do umount /$d; done
  i=$((i+1))
done`
	ns.Run("unshare", "--mount", "--propagation", "private", "sh", "-c", script)

	via := map[bootconf.Via]int{}
	for i := range n {
		root := filepath.Join(work, fmt.Sprint(i))
		tr, err := tree.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		var h fact.Host
		files.Read(tr).Decode(&h)
		tr.Close()
		settings, ok := h.Files.Sysctl.Get()
		if !ok {
			t.Fatalf("config %d: sysctl is no value", i)
		}
		c := bootconf.New(settings)
		live := map[string]string{}
		out, err := os.ReadFile(filepath.Join(root, "out"))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			k, v, _ := strings.Cut(l, ":")
			live[k] = v
		}
		if len(live) < (len(oracleIfaces)+1)*len(oracleKeys) {
			t.Fatalf("config %d: the namespace told only %d values", i, len(live))
		}
		for _, iface := range oracleIfaces {
			for _, name := range oracleKeys {
				key := "net/ipv6/conf/" + iface + "/" + name
				want := sentinel
				if name == "forwarding" {
					want = "0"
				}
				o, ok := c.Sysctl(key)
				if ok && o.Via != bootconf.ViaDefault { // the interfaces are older than the write
					want = o.Value
				}
				via[o.Via]++
				if live[key] != want {
					t.Errorf("config %d: %s is %s after boot, predicted %s (%+v)", i, key, live[key], want, o)
				}
				if ok && o.Via != bootconf.ViaDefault && o.Setting.Origin.Line == 0 {
					t.Errorf("config %d: %s decided by a line without number", i, key)
				}
			}
		}
		// An interface that appears later, with the second run that udev makes.
		for _, name := range oracleKeys {
			key := "net/ipv6/conf/zz9/" + name
			want := live["net/ipv6/conf/default/"+name]
			if o, ok := c.Sysctl(key); ok && (o.Via == bootconf.ViaKey || o.Via == bootconf.ViaGlob) {
				want = o.Value
			} else if ok {
				for _, rival := range o.Rivals {
					if bootconf.Match(rival.Key, key) {
						want = rival.Value
					}
				}
			}
			if live[key] != want {
				t.Errorf("config %d: later %s is %s, predicted %s", i, key, live[key], want)
			}
			if o, ok := c.Future("ipv6", name); ok && o.Via == bootconf.ViaGlob && !strings.Contains(fmt.Sprint(settings), "zz9") && !strings.Contains(fmt.Sprint(settings), "[!e]*") && o.Value != live[key] {
				t.Errorf("config %d: every later interface gets %s = %s, zz9 got %s", i, name, o.Value, live[key])
			}
		}
		if t.Failed() {
			for _, dir := range oracleDirs {
				m, _ := filepath.Glob(filepath.Join(root, dir, "*.conf"))
				for _, f := range m {
					b, err := os.ReadFile(f)
					t.Logf("%s %v\n%s", strings.TrimPrefix(f, root), err, b)
				}
			}
			return
		}
	}
	for _, v := range []bootconf.Via{bootconf.ViaKey, bootconf.ViaGlob, bootconf.ViaAll, bootconf.ViaDefault} {
		if via[v] < 10 {
			t.Errorf("only %d keys were decided via %s: this shows little", via[v], v)
		}
	}
}
