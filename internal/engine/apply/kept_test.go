package apply

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// must plays a role that has to succeed.
func (l *lab) must(t *testing.T, role string) {
	t.Helper()
	if out, err := l.play(role, "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
		t.Fatalf("%s: %v\n%s", role, err, out)
	}
}

// back applies the way back from the last change that was kept.
func (l *lab) back(t *testing.T) {
	t.Helper()
	p, id, err := l.engine().Former("")
	if err != nil {
		t.Fatal(err)
	}
	l.write(p)
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000", "SIXFENCE_TEST_FORMER="+id); err != nil {
		t.Fatalf("apply the way back: %v\n%s", err, out)
	}
}

// TestTakingBackAllInterfaces takes a kept change of conf/all back, which overwrote values
// that differed from interface to interface: each is again as it was, and what somebody
// has set since stays as they set it.
func TestTakingBackAllInterfaces(t *testing.T) {
	t.Parallel()
	const conf = "net/ipv6/conf/"
	for _, key := range []string{"forwarding", "disable_ipv6"} {
		l := newLab(t)
		l.ns.Sysctl(conf+"eth1/"+key, "1")
		l.ns.Sysctl(conf+"p1/"+key, "0")
		values := func() string {
			var out []string
			for _, i := range []string{"eth0", "p0", "eth1", "p1", "lo", "all"} {
				out = append(out, i+"="+l.ns.ReadSysctl(conf+i+"/"+key))
			}
			return strings.Join(out, " ")
		}
		before := values()
		l.plan([]change.Step{{ID: "all", Kind: change.Sysctl, Phase: change.Runtime, Target: conf + "all/" + key, Before: change.Image{Text: "0"}, After: change.Image{Text: "1"}}})
		l.must(t, "apply")
		l.must(t, "confirm")
		if now := values(); now == before || strings.Contains(now, "=0") {
			t.Fatalf("%s: the plan made it %s", key, now)
		}
		take := func(end string) {
			t.Helper()
			l.back(t)
			l.must(t, end)
		}
		kept := values()
		take("rollback") // of the rollback
		if now := values(); now != kept {
			t.Errorf("%s: after a rollback that was taken back itself: %s, was %s", key, now, kept)
		}
		theirs := "0"
		if key == "forwarding" {
			theirs = "2" // the kernel takes any number, and nobody else writes this one
		}
		l.ns.Sysctl(conf+"p0/"+key, theirs)
		take("confirm")
		if want, now := strings.Replace(before, "p0=0", "p0="+theirs, 1), values(); now != want {
			t.Errorf("%s: after the rollback: %s, want %s", key, now, want)
		}
	}
}

// TestTakingBackLater takes a kept change back on a host that has changed since: what
// somebody else set is theirs, an interface is gone, our lines stand in a file that others
// have edited, and a check has been failing for weeks.
func TestTakingBackLater(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var listener net.Listener
	var err error
	l.ns.Do(func() { listener, err = net.Listen("tcp6", "[2001:db8:1::10]:0") })
	if err != nil {
		t.Fatal(err)
	}
	const conf = "# of the admin\nslaac private\n"
	const block = "# sixfence begin: from the intent; these lines are its own, write above them\nnoipv6rs\n# sixfence end\n"
	file := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(l.host.Root+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file("/etc/dhcpcd.conf", conf)
	sysctl := func(target, before, after string) change.Step {
		return change.Step{ID: "sysctl:" + target, Kind: change.Sysctl, Phase: change.Runtime, Target: target, Before: change.Image{Text: before}, After: change.Image{Text: after}}
	}
	none := change.Image{Absent: true}
	// user::rw-, user:1000:r--, group::r--, mask::r--, other::r--
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	for name, value := range map[string][]byte{"user.owner": []byte("admin"), "system.posix_acl_access": acl} {
		if err := unix.Setxattr(l.host.Root+"/etc/dhcpcd.conf", name, value, 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	attributes := func(when string) {
		t.Helper()
		for name, want := range map[string]string{"user.owner": "admin", "system.posix_acl_access": string(acl)} {
			b := make([]byte, 256)
			if n, err := unix.Getxattr(l.host.Root+"/etc/dhcpcd.conf", name, b); err != nil || string(b[:n]) != want {
				t.Errorf("%s %s is %q, %v", when, name, b[:max(n, 0)], err)
			}
		}
	}
	p := l.plan([]change.Step{
		{ID: "table", Kind: change.Table, Phase: change.Runtime, Target: "inet sixfence", Before: none, After: change.Image{Text: ruleset}},
		sysctl("net/ipv6/conf/eth0/accept_redirects", "1", "0"),
		sysctl("net/ipv6/conf/p0/accept_redirects", "1", "0"),
		sysctl("net/ipv6/conf/p0/max_addresses", "16", "8"),
		sysctl("net/ipv6/conf/eth1/max_addresses", "16", "8"),
		{ID: "file:new", Kind: change.File, Phase: change.Persist, Target: "/etc/sysctl.d/90-sixfence.conf", Before: none, After: change.Image{Text: "x = 1\n", Mode: 0o644}},
		{ID: "file:theirs", Kind: change.File, Phase: change.Persist, Target: "/etc/dhcpcd.conf", Before: change.Image{Text: conf, Mode: 0o644}, After: change.Image{Text: conf + block, Mode: 0o644}},
		{ID: "file:edited", Kind: change.File, Phase: change.Persist, Target: "/etc/sysctl.d/91-sixfence.conf", Before: none, After: change.Image{Text: "y = 1\n", Mode: 0o644}},
	})
	p.Checks = []string{"tcp://" + listener.Addr().String()}
	l.write(p)
	l.must(t, "apply")
	l.must(t, "confirm")
	listener.Close()
	attributes("kept:")
	l.ns.Sysctl("net/ipv6/conf/p0/accept_redirects", "1") // as it was before us
	l.ns.Sysctl("net/ipv6/conf/p0/max_addresses", "4")    // as nobody of us had it
	l.ns.IP("link", "delete", "eth1")
	file("/etc/dhcpcd.conf", conf+block+"# later\n")
	file("/etc/sysctl.d/91-sixfence.conf", "y = 2\n")
	l.back(t)
	var s *Status
	l.ns.Do(func() { s, err = l.engine().Status() })
	left := ""
	if s != nil && s.Pending != nil {
		left = strings.Join(s.Pending.Left, "\n")
	}
	for _, want := range []string{"p0/max_addresses: somebody else made it = 4 since", "eth1/max_addresses: what it hung on is gone", "file:edited: somebody else made it"} {
		if !strings.Contains(left, want) {
			t.Errorf("status does not say %q: %q, %v", want, left, err)
		}
	}
	if strings.Count(left, "\n") != 2 {
		t.Errorf("left alone: %s", left)
	}
	l.must(t, "confirm")
	attributes("taken back:")
	for path, want := range map[string]string{"eth0/accept_redirects": "1", "p0/accept_redirects": "1", "p0/max_addresses": "4"} {
		if got := l.ns.ReadSysctl("net/ipv6/conf/" + path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	for name, want := range map[string]string{"/etc/dhcpcd.conf": conf + "# later\n", "/etc/sysctl.d/91-sixfence.conf": "y = 2\n", "/etc/sysctl.d/90-sixfence.conf": ""} {
		if b, _ := os.ReadFile(l.host.Root + name); string(b) != want {
			t.Errorf("%s is %q, want %q", name, b, want)
		}
	}
	l.ns.Do(func() {
		if now, err := l.host.State(change.Table, "inet sixfence"); err != nil || now != mutate.Absent {
			t.Errorf("the table is %s, %v", now, err)
		}
		if s, err = l.engine().Status(); err != nil || len(s.Drift) > 0 || len(s.Alerts) > 0 {
			t.Errorf("status: %+v, %v", s, err)
		}
	})
	file("/etc/dhcpcd.conf", conf+"# later still\n") // is ours no longer
	l.ns.Do(func() {
		if s, err = l.engine().Status(); err != nil || len(s.Drift) > 0 {
			t.Errorf("status: %+v, %v", s, err)
		}
	})
	rs, err := l.engine().History()
	if err != nil || len(rs) != 4 || len(rs[3].Conflicts) != 3 {
		t.Errorf("history: %+v, %v", rs, err)
	}
}

// TestTakingBackTheOlderFirst is refused: the later change has the same object.
func TestTakingBackTheOlderFirst(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	step := func(before, after string) {
		t.Helper()
		l.plan([]change.Step{{ID: "x", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/eth0/max_addresses", Before: change.Image{Text: before}, After: change.Image{Text: after}}})
		l.must(t, "apply")
		l.must(t, "confirm")
	}
	step("16", "8")
	step("8", "4")
	rs, err := l.engine().History()
	if err != nil || len(rs) != 4 {
		t.Fatalf("%+v, %v", rs, err)
	}
	var refused *RefusedError
	if _, _, err := l.engine().Former(rs[1].Transaction); !errors.As(err, &refused) || !strings.Contains(refused.Hint, rs[3].Transaction) {
		t.Errorf("the older one: %v", err)
	}
	for _, want := range []string{"8", "16"} { // the last, then the one before
		l.back(t)
		l.must(t, "confirm")
		if got := l.ns.ReadSysctl("net/ipv6/conf/eth0/max_addresses"); got != want {
			t.Errorf("it is %s, want %s", got, want)
		}
	}
}

// TestAdvertisementsComeBack switches IPv6 off on an interface that lives by Router
// Advertisements, and undoes it: what came by them is there again as such, and the next
// advertisement is understood.
func TestAdvertisementsComeBack(t *testing.T) {
	t.Parallel()
	pair := testlab.NewPair(t, "again", "net/ipv6/conf/default/use_tempaddr=2")
	l := &lab{t: t, ns: pair.Victim, dir: t.TempDir(), boot: "first-boot"}
	if err := os.Chmod(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(l.dir+"/root", 0o755); err != nil {
		t.Fatal(err)
	}
	l.host = &mutate.Host{Root: l.dir + "/root", Layer: &store.Layer{}}
	t.Cleanup(l.end)
	addresses := func() string { return pair.Victim.IP("-6", "-o", "address", "show", "dev", "v0", "scope", "global") }
	// 00450003: up, gateway, default, from an advertisement, expires
	advertisedDefault := func() bool {
		var b []byte
		pair.Victim.Do(func() { b, _ = os.ReadFile("/proc/thread-self/net/ipv6_route") })
		for line := range strings.Lines(string(b)) {
			if w := strings.Fields(line); len(w) == 10 && w[9] == "v0" && w[1] == "00" && w[8] == "00450003" {
				return true
			}
		}
		return false
	}
	first, second := netip.MustParsePrefix("2001:db8:a::/64"), netip.MustParsePrefix("2001:db8:b::/64")
	for _, s := range []change.Step{
		{ID: "off", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/v0/disable_ipv6", Before: change.Image{Text: "0"}, After: change.Image{Text: "1"}},
		{ID: "router", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/v0/forwarding", Before: change.Image{Text: "0"}, After: change.Image{Text: "1"}},
	} {
		pair.Wire.SendRA(testlab.RA{Lifetime: 1800, Options: [][]byte{testlab.PrefixInfo(first, 3600, 1800)}})
		testlab.Eventually(t, patience, "the route and the addresses of the first advertisement", func() bool {
			return advertisedDefault() && strings.Contains(addresses(), "mngtmpaddr") && strings.Contains(addresses(), "temporary")
		})
		temporary := ""
		for line := range strings.Lines(addresses()) {
			if w := strings.Fields(line); strings.Contains(line, "temporary") {
				temporary = w[3]
			}
		}
		l.plan([]change.Step{s})
		l.must(t, "apply")
		if advertisedDefault() {
			t.Fatalf("%s: the route is still there", s.ID)
		}
		l.must(t, "rollback")
		if !advertisedDefault() {
			t.Errorf("%s: after the undo the default route is none of an advertisement: %s", s.ID, pair.Victim.DefaultRoute())
		}
		if a := addresses(); strings.Count(a, "mngtmpaddr") != 1 || strings.Contains(a, "forever") {
			t.Errorf("%s: after the undo there are\n%s", s.ID, a)
		}
		rs, err := l.engine().History()
		if err != nil || len(rs) < 2 {
			t.Fatalf("history %+v, %v", rs, err)
		}
		if last := rs[len(rs)-1]; s.ID == "off" && (len(last.Lost) != 1 || !strings.Contains(last.Lost[0], temporary) || len(last.Conflicts) > 0) {
			t.Errorf("the history says of the temporary address %s: %+v", temporary, last)
		}
		pair.Wire.SendRA(testlab.RA{Lifetime: 1800, Options: [][]byte{testlab.PrefixInfo(first, 3600, 1800), testlab.PrefixInfo(second, 3600, 1800)}})
		testlab.Eventually(t, patience, s.ID+": the addresses of the next advertisement", func() bool { return strings.Contains(addresses(), "2001:db8:b:") })
		testlab.Eventually(t, patience, s.ID+": a temporary address again", func() bool {
			return strings.Contains(addresses(), "2001:db8:a:") && strings.Contains(addresses(), "temporary")
		})
		pair.Wire.SendRA(testlab.RA{Lifetime: 0})
		testlab.Eventually(t, patience, s.ID+": the router taking itself back", func() bool { return pair.Victim.DefaultRoute() == "" })
		pair.Victim.IP("-6", "address", "flush", "dev", "v0", "scope", "global")
	}
}

// TestRoutesBesideEachOther destroys one of two routes to the same place that are not next
// hops of one: the undo makes it again beside the other.
func TestRoutesBesideEachOther(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const dst = "2001:db8:99::/64"
	l.ns.IP("-6", "route", "add", dst, "dev", "eth0", "metric", "500")
	l.ns.IP("-6", "route", "append", dst, "dev", "eth1", "metric", "500")
	l.ns.IP("-6", "route", "add", "2001:db8:98::/64", "metric", "500", "nexthop", "via", "fe80::97", "dev", "eth0", "weight", "3", "nexthop", "via", "fe80::96", "dev", "eth0")
	l.ns.IP("-6", "route", "add", "2001:db8:97::/64", "metric", "500", "nexthop", "via", "fe80::97", "dev", "eth0", "weight", "3", "nexthop", "via", "fe80::98", "dev", "eth1")
	l.ns.IP("nexthop", "add", "id", "7", "via", "fe80::97", "dev", "eth0")
	l.ns.IP("-6", "route", "add", "2001:db8:96::/64", "nhid", "7", "metric", "500")
	text := func() string {
		var out []string
		for _, d := range []string{dst, "2001:db8:98::/64", "2001:db8:97::/64", "2001:db8:96::/64"} {
			lines := strings.Split(strings.TrimSpace(l.ns.IP("-6", "route", "show", d)), "\n")
			slices.Sort(lines)
			out = append(out, lines...)
		}
		return strings.Join(out, "\n")
	}
	before := text()
	l.plan([]change.Step{{ID: "off", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/eth0/disable_ipv6", Before: change.Image{Text: "0"}, After: change.Image{Text: "1"}}})
	l.must(t, "apply")
	if text() == before {
		t.Fatal("nothing was destroyed")
	}
	l.must(t, "rollback")
	if now := text(); now != before {
		t.Errorf("after the undo:\n%s\nbefore:\n%s", now, before)
	}
	if rs, err := l.engine().History(); err != nil || len(rs) != 2 || len(rs[1].Conflicts) > 0 {
		t.Errorf("history %+v, %v", rs, err)
	}
}

// TestSeveralInterfaces switches IPv6 off on one interface after the other. A route with a
// next hop on each comes back whole, one with its source on the other comes back at all, and
// the addresses stand in their order, by which the kernel chooses among sources: when the
// change is undone, and when it was kept and is taken back.
func TestSeveralInterfaces(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.ns.IP("-6", "route", "add", "2001:db8:97::/64", "metric", "500", "nexthop", "via", "fe80::97", "dev", "eth0", "weight", "3", "nexthop", "via", "fe80::98", "dev", "eth1")
	l.ns.IP("-6", "route", "add", "2001:db8:96::/64", "via", "fe80::98", "dev", "eth1", "src", "2001:db8:1::10")
	for _, a := range []string{"31", "30", "32"} {
		l.ns.IP("-6", "address", "add", "2001:db8:1::"+a+"/64", "dev", "eth0", "nodad")
	}
	l.ns.IP("-6", "neighbour", "add", "2001:db8:1::77", "lladdr", "02:00:00:00:00:77", "dev", "eth0", "nud", "noarp")
	text := func() string {
		out := l.ns.IP("-6", "route", "show", "2001:db8:97::/64") + l.ns.IP("-6", "route", "show", "2001:db8:96::/64") +
			"neighbours " + l.ns.IP("-6", "neighbour", "show", "2001:db8:1::77", "nud", "noarp")
		source, _ := l.ns.Command("ip", "-6", "route", "get", "2001:db8:1::5").CombinedOutput() // fails where all is off
		out += string(source)
		for line := range strings.Lines(l.ns.IP("-6", "-o", "address", "show", "dev", "eth0", "scope", "global")) {
			if w := strings.Fields(line); !strings.Contains(line, "2001:db8:1::12") { // its lifetime is over when a kept change is taken back
				out += w[3] + "\n"
			}
		}
		return out
	}
	before := text()
	off := func(i string) change.Step {
		return change.Step{ID: i, Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/" + i + "/disable_ipv6", Before: change.Image{Text: "0"}, After: change.Image{Text: "1"}}
	}
	l.plan([]change.Step{off("eth0"), off("eth1")})
	check := func(when string) {
		t.Helper()
		var now string
		testlab.Eventually(t, patience, when, func() bool { now = text(); return strings.Contains(now, "2001:db8:97::") })
		if now != before {
			t.Errorf("%s:\n%s\nbefore:\n%s", when, now, before)
		}
	}
	l.must(t, "apply")
	if strings.Contains(text(), "2001:db8:97::/64") {
		t.Fatalf("the route is still there:\n%s", text())
	}
	l.must(t, "rollback")
	check("after the undo")
	l.must(t, "apply")
	l.must(t, "confirm")
	l.back(t)
	l.must(t, "confirm")
	check("taken back")
}

// TestInterfacesThatChange renames interfaces while a change waits, lets two change their
// names, and makes a new one, which takes our default: the undo finds them, and gives the new
// one what it would have had. So does a kept change that is taken back.
func TestInterfacesThatChange(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const conf = "net/ipv6/conf/"
	step := func(i, key, before, after string) change.Step {
		return change.Step{ID: i + " " + key, Kind: change.Sysctl, Phase: change.Runtime, Target: conf + i + "/" + key, Before: change.Image{Text: before}, After: change.Image{Text: after}}
	}
	l.ns.Sysctl(conf+"p1/max_addresses", "8") // by itself what the default becomes
	l.plan([]change.Step{
		step("default", "disable_ipv6", "0", "1"), step("default", "max_addresses", "16", "8"), step("eth0", "disable_ipv6", "0", "1"), step("eth1", "max_addresses", "16", "8"),
		{ID: "neighbour", Kind: change.Neighbour, Phase: change.Runtime, Target: "eth1 fe80::55", Before: change.Image{Absent: true}, After: change.Image{Text: "02:00:00:00:00:55"}},
	})
	values := func(paths ...string) string {
		var out []string
		for _, p := range paths {
			out = append(out, p+"="+l.ns.ReadSysctl(conf+p))
		}
		return strings.Join(out, " ")
	}
	l.must(t, "apply")
	rename := func(from, to string) {
		t.Helper()
		l.ns.IP("link", "set", from, "down")
		l.ns.IP("link", "set", from, "name", to)
		l.ns.IP("link", "set", to, "up")
	}
	rename("eth0", "x")
	rename("eth1", "eth0")
	rename("x", "wan.7")
	l.ns.IP("link", "add", "new0", "type", "veth", "peer", "name", "new1")
	l.ns.IP("link", "set", "new0", "up")
	l.ns.Sysctl(conf+"new1/max_addresses", "5") // somebody's own
	if got := values("new0/disable_ipv6", "wan.7/disable_ipv6"); got != "new0/disable_ipv6=1 wan.7/disable_ipv6=1" {
		t.Fatal(got)
	}
	l.must(t, "rollback")
	check := func(when string, want string, paths ...string) {
		t.Helper()
		if got := values(paths...); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	check("after the undo", "default/disable_ipv6=0 new0/disable_ipv6=0 new1/disable_ipv6=0 wan.7/disable_ipv6=0 eth0/max_addresses=16 new0/max_addresses=16 new1/max_addresses=5 p1/max_addresses=8",
		"default/disable_ipv6", "new0/disable_ipv6", "new1/disable_ipv6", "wan.7/disable_ipv6", "eth0/max_addresses", "new0/max_addresses", "new1/max_addresses", "p1/max_addresses")
	if a := l.ns.IP("-6", "address", "show", "dev", "wan.7"); !strings.Contains(a, "2001:db8:1::10/64") || !strings.Contains(a, "2001:db8:1::12/64") {
		t.Errorf("the addresses of the renamed interface: %s", a)
	}
	if n := l.ns.IP("-6", "neighbour", "show", "nud", "permanent"); strings.Contains(n, "fe80::55") || !strings.Contains(n, "fe80::99 dev wan.7") {
		t.Errorf("permanent neighbours: %s", n)
	}
	if rs, err := l.engine().History(); err != nil || len(rs) != 2 || len(rs[1].Conflicts) > 0 {
		t.Errorf("history %+v, %v", rs, err)
	}

	l.plan([]change.Step{step("default", "disable_ipv6", "0", "1"), step("default", "max_addresses", "16", "8"), step("wan.7", "disable_ipv6", "0", "1")})
	l.must(t, "apply")
	l.must(t, "confirm")
	l.ns.IP("link", "add", "late0", "type", "veth", "peer", "name", "late1")
	l.ns.Sysctl(conf+"late1/max_addresses", "5")
	l.back(t)
	l.must(t, "confirm")
	check("taken back", "default/disable_ipv6=0 late0/disable_ipv6=0 late1/disable_ipv6=0 wan.7/disable_ipv6=0 late0/max_addresses=16 late1/max_addresses=5 p1/max_addresses=8",
		"default/disable_ipv6", "late0/disable_ipv6", "late1/disable_ipv6", "wan.7/disable_ipv6", "late0/max_addresses", "late1/max_addresses", "p1/max_addresses")
}

// TestConflictsOfEveryKind lets somebody write to every kind of object while the change
// waits: what they wrote is kept, and named; of our own table as a text.
func TestConflictsOfEveryKind(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.ns.IP("-6", "route", "add", "2001:db8:95::/64", "via", "fe80::99", "dev", "eth0", "metric", "500")
	l.plan(l.all(false))
	l.must(t, "apply")
	l.ns.Sysctl("net/ipv6/conf/eth1/max_addresses", "99")
	l.ns.Sysctl("net/ipv6/conf/p1/forwarding", "2") // which conf/all has written besides
	l.nft("add rule inet sixfence guard tcp dport 4444 drop")
	l.ns.IP("-6", "neighbour", "replace", "fe80::98", "lladdr", "02:00:00:00:00:55", "dev", "eth1", "nud", "permanent")   // ours
	l.ns.IP("-6", "route", "add", "2001:db8:78::/48", "via", "fe80::98", "dev", "eth1", "table", "100", "metric", "1024") // a destroyed route led there
	l.ns.IP("-6", "route", "add", "2001:db8:95::/64", "via", "fe80::98", "dev", "eth1", "metric", "500")                  // the same,
	l.ns.IP("-6", "route", "del", "2001:db8:95::/64", "via", "fe80::98", "dev", "eth1", "metric", "500")                  // and withdrawn
	l.ns.IP("-6", "route", "del", "blackhole", "2001:db8:dead::/48")                                                      // ours: as before, no conflict
	l.ns.IP("-6", "address", "del", "2001:db8:2::53/64", "dev", "eth1")                                                   // the same
	testlab.Eventually(t, patience, "the process that waits to hear of the route", func() bool {
		b, _ := os.ReadFile(l.state() + "/pending/progress")
		return strings.Contains(string(b), "touched")
	})
	l.must(t, "rollback")
	rs, err := l.engine().History()
	if err != nil || len(rs) != 2 {
		t.Fatalf("history %+v, %v", rs, err)
	}
	said := strings.Join(rs[1].Conflicts, "\n")
	for _, w := range []string{"eth1/max_addresses", "p1/forwarding", "table: ", "neighbour: ", "route 2001:db8:78::/48", "route 2001:db8:95::/64"} {
		if !strings.Contains(said, w) {
			t.Errorf("no word of %s in\n%s", w, said)
		}
	}
	if len(rs[1].Conflicts) != 6 {
		t.Errorf("conflicts:\n%s", said)
	}
	_, file, _ := strings.Cut(said, "their text is in ")
	file, _, _ = strings.Cut(file, "\n")
	edited := l.ns.Run("cat", file)
	for what, has := range map[string]bool{
		"the sysctl":                 l.ns.ReadSysctl("net/ipv6/conf/eth1/max_addresses") == "99",
		"the sysctl written besides": l.ns.ReadSysctl("net/ipv6/conf/p1/forwarding") == "2",
		"the neighbour on eth1":      strings.Contains(l.ns.IP("-6", "neighbour", "show", "dev", "eth1"), "02:00:00:00:00:55"),
		"their route":                strings.Contains(l.ns.IP("-6", "route", "show", "table", "100"), "dev eth1") && !strings.Contains(l.ns.IP("-6", "route", "show", "table", "100"), "dev eth0"),
		"the withdrawn route":        l.ns.IP("-6", "route", "show", "2001:db8:95::/64") == "",
		"our route":                  !strings.Contains(l.ns.IP("-6", "route", "show", "2001:db8:dead::/48"), "blackhole"),
		"our address":                !strings.Contains(l.ns.IP("-6", "address", "show", "dev", "eth1"), "2001:db8:2::53"),
		"our table, which they must not be locked out by": !strings.Contains(l.ns.Run("nft", "list", "ruleset"), "4444"),
		"their rule, as a text":                           strings.Contains(edited, "4444"),
	} {
		if !has {
			t.Errorf("not as they left it: %s", what)
		}
	}
}

// TestConflictOfAFile gives up a promotion after somebody wrote to a promoted file.
func TestConflictOfAFile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false))
	e := l.engine()
	e.Arm = noArm{}
	path := l.host.Root + "/etc/sixfence/nftables.nft"
	e.Boundary = func(name string) error {
		if name != "done" {
			return nil
		}
		if err := os.WriteFile(path, []byte("# theirs\n"), 0o600); err != nil {
			t.Error(err)
		}
		return unix.EPERM
	}
	before := l.projection(p)
	l.ns.Do(func() {
		if _, err := e.Apply(labContext, p, Options{Timeout: time.Hour}); err != nil {
			t.Error(err)
			return
		}
		_, err := e.Confirm(labContext, ConfirmOptions{})
		var back *RolledBackError
		if !errors.As(err, &back) || len(back.Outcome.Conflicts) != 1 || !strings.Contains(back.Outcome.Conflicts[0], "nftables.nft") {
			t.Errorf("confirm: %v, %+v", err, back)
		}
	})
	if b, err := os.ReadFile(path); err != nil || string(b) != "# theirs\n" {
		t.Errorf("theirs is %q, %v", b, err)
	}
	want := slices.DeleteFunc(before, func(s string) bool {
		return strings.Contains(s, "nftables.nft") || strings.HasPrefix(s, "file:changed")
	})
	testlab.Eventually(t, patience, "all else as before", func() bool {
		got := slices.DeleteFunc(l.projection(p), func(s string) bool {
			return strings.Contains(s, "nftables.nft") || strings.HasPrefix(s, "file:changed")
		})
		return diff(want, got) == ""
	})
}
