package plan_test

import (
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
)

// etc is the file system of a host whose managers are planned for.
type etc struct {
	t     testing.TB
	dir   string
	links []string
}

func newEtc(t testing.TB, files map[string]string, links ...string) *etc {
	t.Helper()
	e := &etc{t: t, dir: t.TempDir(), links: links}
	for _, unit := range []string{"systemd-networkd", "NetworkManager", "dhcpcd", "networking"} {
		e.write("/etc/systemd/system/multi-user.target.wants/"+unit+".service", "", 0o644)
	}
	for p, text := range files {
		e.write(p, text, 0o600)
	}
	return e
}

func (e *etc) write(p, text string, mode fs.FileMode) {
	e.t.Helper()
	p = filepath.Join(e.dir, p)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		e.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		e.t.Fatal(err)
	}
}

func (e *etc) read(p string) (change.Image, error) {
	b, err := os.ReadFile(filepath.Join(e.dir, p))
	if os.IsNotExist(err) {
		return change.Image{Absent: true}, nil
	}
	st, err2 := os.Stat(filepath.Join(e.dir, p))
	if err != nil || err2 != nil {
		return change.Image{}, fmt.Errorf("read %s: %w", p, err)
	}
	return change.Image{Text: string(b), Mode: uint32(st.Mode().Perm())}, nil
}

// all are the files, but for those that only say what is enabled.
func (e *etc) all() map[string]string {
	out := map[string]string{}
	_ = filepath.WalkDir(e.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.Contains(p, ".wants/") {
			b, _ := os.ReadFile(p)
			out[strings.TrimPrefix(p, e.dir)] = string(b)
		}
		return nil
	})
	return out
}

// below are the files below a directory, named from there.
func (e *etc) below(dir string) map[string]string {
	out := map[string]string{}
	for p, text := range e.all() {
		if rest, ok := strings.CutPrefix(p, dir); ok {
			out[rest] = text
		}
	}
	return out
}

func (e *etc) snapshot() *fact.Snapshot {
	e.t.Helper()
	c, err := collect.Run(collect.Options{Root: e.dir})
	if err != nil {
		e.t.Fatal(err)
	}
	ns := fact.Namespace{Name: "init", IsInit: true, Sysctls: fact.Value(fact.Sysctls{Values: map[string]string{}})}
	var links []fact.Link
	for i, n := range e.links {
		links = append(links, fact.Link{Index: i + 2, Name: n, Type: 1, Kind: "veth", MAC: fmt.Sprintf("52:54:00:00:01:%02x", i)})
	}
	ns.Links = fact.Value(links)
	s := c.Snapshot()
	s.Namespaces = []fact.Namespace{ns}
	return s
}

// plan writes what a plan wants for managers, and returns the plan.
func (e *etc) plan(in intent.Intent) change.Plan {
	e.t.Helper()
	in.Firewall.Manage = intent.ManageNone
	p := plan.New(in, e.snapshot(), plan.Options{Read: e.read})
	for _, st := range p.Steps {
		if st.Kind != change.File {
			continue
		}
		if now, _ := e.read(st.Target); now != st.Before {
			e.t.Errorf("%s is %+v before, not %+v", st.Target, now, st.Before)
		}
		if st.After.Absent {
			if err := os.Remove(filepath.Join(e.dir, st.Target)); err != nil {
				e.t.Error(err)
			}
			continue
		}
		e.write(st.Target, st.After.Text, fs.FileMode(st.After.Mode))
		_ = os.Chmod(filepath.Join(e.dir, st.Target), fs.FileMode(st.After.Mode))
	}
	return p
}

// planned is plan, without refusals; a second one finds nothing to do.
func (e *etc) planned(in intent.Intent) change.Plan {
	e.t.Helper()
	p := e.plan(in)
	if len(p.Refusals) > 0 {
		e.t.Fatalf("refused: %+v", p.Refusals)
	}
	for _, st := range e.plan(in).Steps {
		if st.Kind == change.File || st.Kind == change.Action {
			e.t.Errorf("after it, there is still to do: %s", st.ID)
		}
	}
	return p
}

func interfaces(m map[string]intent.Interface) intent.Intent {
	return intent.Intent{Role: intent.RoleServer, Interfaces: m}
}

// rogues is a host with several links, at the other end of each of which somebody
// advertises a router. The kernel believes none.
type rogues struct {
	victim *testlab.NS
	wires  map[string]*testlab.Wire
}

func newRogues(t *testing.T, hint string, links ...string) *rogues {
	t.Helper()
	r := &rogues{victim: testlab.NewNS(t, hint), wires: map[string]*testlab.Wire{}}
	other := testlab.NewNS(t, hint+"r")
	for _, k := range []string{"default/accept_ra=0", "default/accept_dad=0", "all/accept_dad=0", "default/router_solicitations=0"} {
		k, v, _ := strings.Cut(k, "=")
		r.victim.Sysctl("net/ipv6/conf/"+k, v)
		other.Sysctl("net/ipv6/conf/"+k, v)
	}
	for i, l := range links {
		testlab.Link(r.victim, l, other, "r"+l)
		r.wires[l] = other.Wire("r" + l)
		r.wires[l].Addr = netip.AddrFrom16([16]byte{0xfe, 0x80, 15: byte(i + 1)})
	}
	return r
}

// taken are the links whose advertisements gave an address or a default route.
func (r *rogues) taken(links ...string) (out []string) {
	for _, l := range links {
		if a := r.victim.IP("-6", "addr", "show", "dev", l, "scope", "global", "-tentative") + r.victim.IP("-6", "route", "show", "dev", l, "default"); strings.Contains(a, "inet6 2001:db8:") || strings.Contains(a, "default via") {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out
}

// advertise sends until the ones who believe have taken it, and then some more: the
// others have had as many chances. It returns who has taken it.
func (r *rogues) advertise(t *testing.T, believers ...string) []string {
	t.Helper()
	all := slices.Sorted(maps.Keys(r.wires))
	slices.Sort(believers)
	send := func() {
		for i, l := range all {
			r.wires[l].SendRA(testlab.RA{Lifetime: 1800, Options: [][]byte{testlab.PrefixInfo(netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/64", 0x100+i)), 3600, 1800)}})
		}
		time.Sleep(100 * time.Millisecond)
	}
	testlab.Eventually(t, 60*time.Second, "advertisements to be taken by "+strings.Join(believers, ", "), func() bool {
		send()
		return slices.Equal(r.taken(believers...), believers)
	})
	for range 10 {
		send()
	}
	return r.taken(all...)
}

func same(t *testing.T, what string, got, want []string, said ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v take rogue advertisements, want %v\n%s", what, got, want, said)
	}
}

// TestNetworkdIsTold: the real systemd-networkd with the drop-ins of a plan takes
// advertisements where the intent wants them, from the declared router, and nowhere
// else; without them it takes all.
func TestNetworkdIsTold(t *testing.T) {
	t.Parallel()
	admin := map[string]string{}
	for _, l := range []string{"n0", "n1", "n2", "n3", "n4"} {
		admin["/etc/systemd/network/10-"+l+".network"] = "[Match]\nName=" + l + "\n[Network]\nIPv6AcceptRA=yes\nAddress=192.0.2.9/32\n"
	}
	// Others say other things, later than one may think; lists add up.
	admin["/etc/systemd/network/10-n0.network.d/99-x.conf"] = "[Network]\nIPv6AcceptRA=yes\n"
	admin["/etc/systemd/network/10-n2.network.d/99-x.conf"] = "[IPv6AcceptRA]\nRouterAllowList=fe80::3\n"
	admin["/etc/systemd/network/10-n3.network"] += "Address=2001:db8:3::9/64\nLinkLocalAddressing=yes\n"
	admin["/etc/systemd/network/99-rest.network"] = "[Match]\nName=*\n[Network]\nIPv6AcceptRA=yes\n"
	links := []string{"n0", "n1", "n2", "n3", "n4"}
	e := newEtc(t, admin, links...)
	e.planned(interfaces(map[string]intent.Interface{
		"n0": {Addressing: intent.Static},
		"n1": {Addressing: intent.SLAAC, Routers: []intent.Router{{Address: addr("fe80::2")}}},
		"n2": {Addressing: intent.SLAAC, Routers: []intent.Router{{Address: addr("fe80::99")}}},
		"n3": {Addressing: intent.NoIPv6},
		"n4": {Addressing: intent.SLAAC, Routers: []intent.Router{{Address: addr("fe80::5"), Prefixes: prefixes("2001:db8:999::/64")}}},
	}))
	r := newRogues(t, "nwt", links...)
	r.victim.Networkd(e.below("/etc/systemd/network/"))
	got := r.advertise(t, "n1")
	// n4: the default route is the declared router's; the prefix is not.
	if a := r.victim.IP("-6", "addr", "show", "dev", "n4", "scope", "global"); strings.Contains(a, "2001:db8:") {
		t.Errorf("a prefix that nobody declared: %s", a)
	}
	if a := r.victim.IP("-6", "addr", "show", "dev", "n3"); strings.Contains(a, "fe80:") {
		t.Errorf("n3 shall have no IPv6: %s", a)
	}
	got = slices.DeleteFunc(got, func(l string) bool { return l == "n4" || l == "n3" }) // n3 has a static address
	same(t, "with the drop-ins", got, []string{"n1"})
	if out := r.victim.IP("-6", "route", "show", "dev", "n3", "default"); out != "" {
		t.Errorf("n3 has a default route: %s", out)
	}

	bare := newRogues(t, "nwb", links...)
	files := newEtc(t, admin, links...).below("/etc/systemd/network/")
	delete(files, "10-n2.network.d/99-x.conf")
	bare.victim.Networkd(files)
	same(t, "without", bare.advertise(t, links...), links)

	// Another intent, and none: what was written goes.
	e.planned(interfaces(map[string]intent.Interface{"n0": {Addressing: intent.SLAAC}}))
	e.planned(interfaces(nil))
	if got := e.below("/etc/systemd/network/"); !maps.Equal(got, newEtc(t, admin).below("/etc/systemd/network/")) {
		t.Errorf("something is left: %v", slices.Sorted(maps.Keys(got)))
	}
}

const nmLan = `[connection]
id=%[1]s
uuid=11111111-2222-3333-4444-0000000000%[2]s
type=ethernet
interface-name=%[1]s
# the admin's own remark

[ipv4]
method=disabled

[ipv6]
%[3]s
`

// TestNetworkManagerIsTold: likewise for the real NetworkManager, in all three forms.
func TestNetworkManagerIsTold(t *testing.T) {
	t.Parallel()
	dir := "/etc/NetworkManager/system-connections/"
	admin := map[string]string{
		dir + "auto.nmconnection":                   fmt.Sprintf(nmLan, "m0", "01", "addr-gen-mode=eui64\nmethod=auto"),
		dir + "auto with address":                   fmt.Sprintf(nmLan, "m1", "02", "method=auto\naddress1=fd00:9::9/64"),
		dir + "believes.nmconnection":               fmt.Sprintf(nmLan, "m2", "03", "method=auto\nip6-privacy=2"),
		dir + "off.nmconnection":                    strings.TrimSuffix(fmt.Sprintf(nmLan, "m3", "04", "method=auto"), "\n"),
		dir + "by default.nmconnection":             fmt.Sprintf(nmLan, "m4", "05", "method=auto"),
		"/etc/NetworkManager/conf.d/99-theirs.conf": "[connection-theirs]\nmatch-device=interface-name:m4\nipv6.ip6-privacy=2\n",
	}
	links := []string{"m0", "m1", "m2", "m3", "m4", "m5"} // m5 has no profile
	e := newEtc(t, admin, links...)
	p := e.planned(interfaces(map[string]intent.Interface{
		"m0": {Addressing: intent.Static}, "m1": {Addressing: intent.Static}, "m2": {Addressing: intent.SLAAC}, "m3": {Addressing: intent.NoIPv6}, "m4": {Addressing: intent.SLAAC}, "m5": {Addressing: intent.Static},
	}))
	for _, want := range []string{"foreign-file-edited", "managers-later"} {
		if !slices.Contains(risks(p), want) {
			t.Errorf("nobody says %s: %v", want, risks(p))
		}
	}
	r := newRogues(t, "nmt", links...)
	r.victim.NetworkManager(e.below("/etc/NetworkManager/"), "m0", "m1", "m5")
	same(t, "with our files", r.advertise(t, "m2", "m4"), []string{"m2", "m4"}, r.victim.IP("-6", "addr")+r.victim.IP("-6", "route"))
	for _, l := range []string{"m2", "m4"} {
		if a := r.victim.IP("-6", "addr", "show", "dev", l, "temporary"); a != "" {
			t.Errorf("%s has a temporary address: %s", l, a)
		}
	}
	if a := r.victim.IP("-6", "addr", "show", "dev", "m1"); !strings.Contains(a, "fd00:9::9/64") {
		t.Errorf("m1 has lost its address: %s", a)
	}
	if v := r.victim.ReadSysctl("net/ipv6/conf/m3/disable_ipv6"); v != "1" {
		t.Errorf("m3 has IPv6")
	}

	bare := newRogues(t, "nmb", links...)
	bare.victim.NetworkManager(newEtc(t, admin, links...).below("/etc/NetworkManager/"))
	same(t, "without", bare.advertise(t, links...), links)
	for _, l := range []string{"m2", "m4"} {
		if a := bare.victim.IP("-6", "addr", "show", "dev", l, "temporary"); a == "" {
			t.Errorf("%s has no temporary address: then the other shows nothing", l)
		}
	}

	// Somebody writes into a profile meanwhile; then the intent asks for nothing any more.
	file := dir + "auto.nmconnection"
	now, _ := e.read(file)
	e.write(file, strings.Replace(now.Text, "id=m0", "id=renamed", 1), 0o600)
	e.planned(interfaces(nil))
	want := newEtc(t, admin).below("/etc/NetworkManager/")
	want["system-connections/auto.nmconnection"] = strings.Replace(want["system-connections/auto.nmconnection"], "id=m0", "id=renamed", 1)
	for p, text := range e.below("/etc/NetworkManager/") {
		if want[p] != text {
			t.Errorf("%s is left as\n%s", p, text)
		}
		delete(want, p)
	}
	if len(want) > 0 {
		t.Errorf("gone: %v", want)
	}
}

// TestDHCPCDIsTold: likewise for the real dhcpcd, whose only file is others'.
func TestDHCPCDIsTold(t *testing.T) {
	t.Parallel()
	const theirs = "# theirs\nhostname\nslaac hwaddr\ninterface d0\nipv6rs"
	e := newEtc(t, map[string]string{plan.DHCPCDFile: theirs}, "d0", "d1", "d2")
	e.planned(interfaces(map[string]intent.Interface{"d0": {Addressing: intent.Static}, "d1": {Addressing: intent.SLAAC}, "d2": {Addressing: intent.NoIPv6}}))
	conf, _ := e.read(plan.DHCPCDFile)
	r := newRogues(t, "dct", "d0", "d1", "d2")
	for _, l := range []string{"d0", "d2", "d1"} {
		r.victim.DHCPCD(l, conf.Text)
	}
	same(t, "with our lines", r.advertise(t, "d1"), []string{"d1"})

	bare := newRogues(t, "dcb", "d0", "d1", "d2")
	for _, l := range []string{"d0", "d1", "d2"} {
		bare.victim.DHCPCD(l, theirs)
	}
	same(t, "without", bare.advertise(t, "d0", "d1", "d2"), []string{"d0", "d1", "d2"})

	e.planned(interfaces(nil))
	if now, _ := e.read(plan.DHCPCDFile); now.Text != theirs {
		t.Errorf("not as it was: %q", now.Text)
	}
}

// TestNetplanIsTold: the real netplan merges our file after those of others, and what it
// writes for both of its renderers says what the intent wants.
func TestNetplanIsTold(t *testing.T) {
	t.Parallel()
	netplan := testlab.RequireTool(t, "netplan")
	const theirs = `network:
  version: 2
  renderer: %s
  ethernets:
    p0: {dhcp4: true, dhcp6: true}
    id1:
      match: {macaddress: "52:54:00:00:01:01"}
      set-name: p1
      addresses: ["2001:db8::1/64"]
      ipv6-privacy: true
      link-local: [ipv4, ipv6]
    p2: {dhcp4: true}
    p3: {}
  bonds:
    bond-x: {interfaces: [p3], dhcp6: true, accept-ra: true}
  vlans:
    bond-x.7: {id: 7, link: bond-x, addresses: ["2001:db8:7::1/64"]}
`
	links := []string{"p0", "p1", "p2", "p3", "bond-x", "bond-x.7"}
	in := interfaces(map[string]intent.Interface{"p0": {Addressing: intent.Static}, "p1": {Addressing: intent.NoIPv6}, "p2": {Addressing: intent.SLAAC}, "bond-x": {Addressing: intent.Static}, "bond-x.7": {Addressing: intent.DHCPv6}})
	for _, renderer := range []string{"networkd", "NetworkManager"} {
		e := newEtc(t, map[string]string{"/etc/netplan/99-theirs.yaml": fmt.Sprintf(theirs, renderer)}, links...)
		generate := func() *fact.Snapshot {
			t.Helper()
			_ = os.RemoveAll(e.dir + "/run")
			if out, err := exec.Command(netplan, "generate", "--root-dir", e.dir).CombinedOutput(); err != nil || strings.Contains(string(out), "rror") || strings.Contains(string(out), "ermission") {
				t.Fatalf("netplan with %s: %v %s\n%v", renderer, err, out, e.all()[plan.NetplanFile])
			}
			return e.snapshot()
		}
		// accepts tells who takes advertisements, by what the renderer is told.
		accepts := func(s *fact.Snapshot) (out []string) {
			ls, _ := s.Namespaces[0].Links.Get()
			ms, _ := s.Host.Managers.Get()
			for _, m := range ms {
				if m.Name != map[string]string{"networkd": "systemd-networkd", "NetworkManager": "NetworkManager"}[renderer] {
					continue
				}
				for _, l := range ls {
					if mi, _ := m.For(&l); mi != nil && mi.AcceptRA.Or(false) {
						out = append(out, l.Name)
					}
				}
			}
			slices.Sort(out)
			return out
		}
		all := []string{"bond-x", "bond-x.7", "p0", "p1", "p2"}
		want := []string{"bond-x.7", "p2"}
		if renderer == "NetworkManager" {
			all, want = []string{"bond-x", "p0"}, nil // p2 is the kernel's there
		}
		same(t, renderer+" without", accepts(generate()), all)
		p := e.planned(in)
		if !slices.Contains(ids(p), "action:netplan-generate") {
			t.Error("netplan is not asked to read it")
		}
		same(t, renderer+" with our file", accepts(generate()), want)
		text := ""
		for name, x := range e.below("/run/") {
			if strings.Contains(name, "id1") && !strings.Contains(name, "udev") {
				text += x
			}
		}
		if renderer == "networkd" && (!strings.Contains(text, "LinkLocalAddressing=ipv4") || strings.Contains(text, "IPv6PrivacyExtensions=yes")) {
			t.Errorf("p1: %s", text)
		}
		e.planned(interfaces(nil))
		if got := e.below("/etc/netplan/"); len(got) != 1 {
			t.Errorf("something is left: %v", slices.Sorted(maps.Keys(got)))
		}
	}
}

// TestIfupdownIsTold: after the real ifup, the kernel has our values again.
func TestIfupdownIsTold(t *testing.T) {
	t.Parallel()
	ifup := testlab.RequireTool(t, "ifup")
	const theirs = "iface u0 inet6 auto\niface u0.5 inet6 static\n\taddress 2001:db8:5::1/64\n\tgateway 2001:db8:5::2\n\taccept_ra 2\n"
	e := newEtc(t, map[string]string{"/etc/network/interfaces": theirs}, "u0", "u0.5")
	p := e.planned(interfaces(map[string]intent.Interface{"u0": {Addressing: intent.Static}, "u0.5": {Addressing: intent.Static}}))
	if !slices.ContainsFunc(p.Risks, func(r change.Risk) bool {
		return r.ID == "manager-takes-ra" && strings.Contains(r.Detail, "/etc/network/interfaces:1") && strings.Contains(r.Remedy, "accept_ra 0")
	}) {
		t.Errorf("nobody says that ifup lets the kernel believe for a moment: %+v", p.Risks)
	}
	for _, with := range []bool{true, false} {
		ns := testlab.NewNS(t, "ifu")
		ns.Sysctl("net/ipv6/conf/default/accept_ra", "0")
		ns.Sysctl("net/ipv6/conf/default/accept_dad", "0")
		for _, l := range []string{"u0", "u0.5"} {
			ns.IP("link", "add", l, "type", "veth", "peer", "name", "x"+l)
			ns.IP("link", "set", "x"+l, "up")
		}
		dir := e.dir + "/none"
		if with {
			dir = e.dir + "/etc/network/if-up.d"
		}
		script := "mount -t tmpfs tmpfs /etc/network; mkdir -p /etc/network/if-up.d /etc/network/if-pre-up.d /run/network; mount -t tmpfs tmpfs /run/network\n" +
			"cp " + dir + "/* /etc/network/if-up.d/ 2>/dev/null || :\n" + ifup + " --interfaces=" + e.dir + "/etc/network/interfaces u0 u0.5"
		if out, err := ns.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("ifup: %v %s", err, out)
		}
		for _, l := range []string{"u0", "u0.5"} {
			if got := ns.ReadSysctl("net/ipv6/conf/" + l + "/accept_ra"); (got == "0") != with {
				t.Errorf("our script: %t: %s has accept_ra %s", with, l, got)
			}
		}
	}
}
