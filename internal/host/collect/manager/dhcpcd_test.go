package manager

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// settings finds what a manager's files say about an interface, as the order of
// ManagedInterfaces means it: the first entry that covers the name.
func settings(m *fact.Manager, name, kind string) (fact.ManagedInterface, bool) {
	for _, mi := range m.Interfaces {
		if mi.Index != 0 {
			continue
		}
		names := len(mi.Names) == 0
		for _, g := range mi.Names {
			names = names || glob(g, name)
		}
		for _, c := range mi.Match {
			if kinds, ok := strings.CutPrefix(c, "Kind="); ok {
				hit := false
				for _, k := range strings.Fields(kinds) {
					hit = hit || k == kind
				}
				names = names && hit
			}
		}
		if names {
			return mi, true
		}
	}
	return fact.ManagedInterface{}, false
}

// TestDHCPCDAsItIs runs the real dhcpcd over several interfaces and compares
// which of them takes router advertisements.
func TestDHCPCDAsItIs(t *testing.T) {
	t.Parallel()
	for name, conf := range map[string]string{
		"blocks": "nodhcp6\ninterface d1\nnoipv6rs\ninterface d2\nnoipv6\ninterface d3\n  static ip6_address=2001:db8:aa::1/64\ninterface d4\nipv4only\ninterface d5\nipv4only\nipv6only\ninterface d6\nipv6ra_noautoconf\nstatic ip6_address=2001:db8:ab::1/64\ninterface d1\n# again\nslaac private\n",
		"global": "noipv6rs\ninterface d1\nipv6rs\ninterface d2\nipv6\n",
		"allow":  "allowinterfaces d1 d2, d3\ndenyinterfaces d2\ninterface d3\nnoipv6rs\ninterface d4\nipv6rs\n",
		"deny":   "denyinterfaces d[12]\n",
		"none":   "# nothing\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ifaces := []string{"d1", "d2", "d3", "d4", "d5", "d6"}
			s := newStar(t, "dhc", ifaces)
			s.victim.IP("link", "add", "br9", "type", "bridge")
			s.victim.IP("link", "set", "br9", "up")
			daemon := s.victim.DHCPCD("", conf)
			testlab.Eventually(t, 60*time.Second, "dhcpcd to separate its privileges", func() bool {
				return strings.Contains(daemon.Log(), "spawned controller proxy")
			})
			m := decodeProcess(t, s.victim, "dhcpcd")
			want := map[string]bool{}
			for _, name := range ifaces {
				mi, ok := settings(&m, name, "veth")
				if !ok && !strings.Contains(conf, "allowinterfaces") {
					t.Fatalf("%s: no settings", name)
				}
				want[name] = ok && mi.AcceptRA.Or(false) && mi.InUserspace
			}
			if mi, _ := settings(&m, "br9", "bridge"); mi.AcceptRA.Or(true) && !strings.Contains(conf, "allow") {
				t.Error("dhcpcd is said to take RAs on a bridge of its own accord")
			}
			s.compare(t, want)
			if strings.Contains(daemon.Log(), "br9: sending Router Solicitation") || strings.Contains(daemon.Log(), "br9: soliciting") {
				t.Error("dhcpcd solicits on the bridge: the prediction for bridges is wrong")
			}
			if len(m.Gaps) > 0 {
				t.Errorf("gaps: %v", m.Gaps)
			}
		})
	}
}

// TestIfupdownAsItIs compares the sysctls with those that the real ifup says it
// would write, and then writes.
func TestIfupdownAsItIs(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	bin := testlab.RequireTool(t, "ifup")
	conf := `# sample
auto lo
iface lo inet loopback

auto i0
iface i0 inet6 auto
allow-hotplug i1
iface i1 inet6 static
	address 2001:db8:1::1
	netmask 64
	gateway 2001:db8:1::ff
iface i2 inet6 static
	address 2001:db8:2::1/64
	accept_ra 0
	autoconf 1
	privext 2
	dad-attempts 0
iface i4 inet6 manual
	accept_ra 0
iface i5 inet6 auto
	accept_ra 0
iface i6 inet6 auto
	accept_ra 1
	privext 1
iface i7 inet6 static
	address 2001:db8:7::1/64
	accept_ra 2
iface i8 inet dhcp
iface base inet6 static
	accept_ra 2
	autoconf 1
iface i9 inet6 static inherits base
	address 2001:db8:9::1/64
iface i10 inet6 static \
   inherits base
	address 2001:db8:a::1/64
	accept_ra 0
source sub/*.conf
source-directory dir.d
`
	files := map[string]string{
		"etc/network/interfaces":                        conf,
		"etc/network/sub/a.conf":                        "iface i11 inet6 auto\n  accept_ra 0\n",
		"etc/network/sub/ignored":                       "iface i12 inet6 auto\n",
		"etc/network/dir.d/plain_name":                  "iface i13 inet6 static\naddress 2001:db8:d::1/64\n",
		"etc/network/dir.d/with.dot":                    "iface i14 inet6 auto\n",
		"etc/systemd/system/x.wants/networking.service": "",
	}
	tr := writeTree(t, files)
	var h fact.Host
	Read(tr, []Process{}, fact.NamespaceID{}).Decode(&h)
	var m fact.Manager
	for _, x := range h.Managers.Or(nil) {
		if x.Name == "ifupdown" {
			m = x
		}
	}
	if !m.Enabled.Or(false) || m.Running.Or(true) {
		t.Errorf("enabled %v, running %v", m.Enabled, m.Running)
	}
	if len(m.Gaps) > 0 {
		t.Errorf("gaps: %v", m.Gaps)
	}
	dir := t.TempDir()
	for name, text := range files {
		if rest, ok := strings.CutPrefix(name, "etc/network/"); ok {
			mustWrite(t, dir+"/"+rest, text)
		}
	}
	ns := testlab.NewNS(t, "ifup")
	seen := 0
	for _, iface := range []string{"i0", "i1", "i2", "i4", "i5", "i6", "i7", "i8", "i9", "i10", "i11", "i12", "i13", "i14"} {
		out, err := ns.Command(bin, "-n", "-v", "--force", "-i", dir+"/interfaces", iface).CombinedOutput()
		want := map[string]string{}
		for _, l := range strings.Split(string(out), "\n") {
			if _, set, ok := strings.Cut(l, "sysctl -q -e -w net.ipv6.conf."+iface+"."); ok {
				k, v, _ := strings.Cut(strings.TrimSpace(set), "=")
				want[k] = v
			}
		}
		mi, ok := settings(&m, iface, "")
		if unknown := err != nil || strings.Contains(string(out), "Unknown interface"); unknown {
			if ok {
				t.Errorf("%s: ifup does not know it (%s), and we do: %+v", iface, out, mi)
			}
			continue
		}
		got := mi.Sysctls
		if len(want) != len(got) {
			t.Errorf("%s: ifup writes %v, predicted %v\n%s", iface, want, got, out)
		}
		for k, v := range want {
			seen++
			if got[k] != v {
				t.Errorf("%s: ifup writes %s=%s, predicted %q", iface, k, v, got[k])
			}
		}
		if accept, ok := mi.AcceptRA.Get(); (want["accept_ra"] != "") != ok || ok && accept != (want["accept_ra"] != "0") {
			t.Errorf("%s: AcceptRA %v %v, ifup writes accept_ra=%q", iface, accept, ok, want["accept_ra"])
		}
		if mi.InUserspace {
			t.Errorf("%s: ifupdown takes no RAs itself", iface)
		}
	}
	if seen < 15 {
		t.Errorf("only %d sysctls compared: this shows little", seen)
	}
	if mi, _ := settings(&m, "i1", ""); len(mi.Addresses) != 1 || mi.Addresses[0].String() != "2001:db8:1::1/64" || len(mi.Gateways) != 1 {
		t.Errorf("i1: %+v", mi)
	}
}

func mustWrite(t testing.TB, p, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
