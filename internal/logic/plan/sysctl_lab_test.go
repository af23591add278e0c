package plan_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestSysctlOrder boots the settings of a host as the real programs do, in a namespace
// whose sysctl.d is that of the host: systemd-sysctl, then the real ufw; and by hand,
// `sysctl --system`. Others want everything otherwise, before ours and after it.
func TestSysctlOrder(t *testing.T) {
	t.Parallel()
	theirs := map[string]string{
		"/etc/sysctl.d/10-guide.conf":    "net.ipv6.conf.all.accept_ra = 2\nnet.ipv6.conf.default.accept_ra = 2\nnet.ipv6.conf.s0.accept_ra = 2\nnet.ipv6.conf.s0/7.accept_ra = 2\nnet.ipv6.conf.s0.suppress_frag_ndisc = 0\n",
		"/usr/lib/sysctl.d/50-glob.conf": "net.ipv6.conf.*.accept_ra = 2\nnet.ipv6.conf.s*.accept_redirects = 1\n",
		"/run/sysctl.d/99-zy.conf":       "net.ipv6.conf.*.autoconf = 1\nnet.ipv6.conf.default.autoconf = 1\n",
	}
	later := "net.ipv6.conf.s1.max_addresses = 99\n"
	byHand := "net.ipv6.conf.s1.accept_ra_min_hop_limit = 1\n"
	ufw := "net/ipv6/conf/all/accept_source_route=1\nnet/ipv6/conf/default/accept_source_route=1\nnet/ipv6/conf/s1/seg6_enabled=1\n"
	links := []string{"s0", "s0.7", "s1"}
	want := map[string]string{"accept_ra": "0", "autoconf": "0", "accept_redirects": "0", "suppress_frag_ndisc": "1", "max_addresses": "16", "accept_ra_min_hop_limit": "64", "accept_source_route": "0", "seg6_enabled": "0"}
	in := intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"s*": {Addressing: intent.Static}, "s0.7": {Addressing: intent.SLAAC}}}
	for _, c := range []struct {
		name  string
		more  map[string]string
		risks []string
		boot  string // what sets the kernel
		late  string // and then the unit of ours, if the plan has one
	}{
		{name: "systemd-sysctl", boot: "systemd-sysctl"},
		{name: "sysctl --system", boot: "sysctl --system"},
		{name: "a file after ours", more: map[string]string{"/etc/sysctl.d/zz-last.conf": later}, risks: []string{"sysctl-read-later"}, boot: "systemd-sysctl", late: "s1/max_addresses=99"},
		{name: "sysctl.conf", more: map[string]string{"/etc/sysctl.conf": byHand}, risks: []string{"sysctl-by-hand"}, boot: "systemd-sysctl"},
		{name: "ufw", more: map[string]string{"/etc/ufw/ufw.conf": "ENABLED=yes\nLOGLEVEL=off\n", "/etc/ufw/sysctl.conf": ufw, "/etc/default/ufw": "IPV6=yes\nIPT_SYSCTL=/etc/ufw/sysctl.conf\n"}, boot: "systemd-sysctl; ufw", late: "s1/seg6_enabled=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEtc(t, theirs, links...)
			e.write("/usr/lib/systemd/systemd-sysctl", "", 0o755)
			if err := os.RemoveAll(e.dir + "/etc/systemd/system"); err != nil { // no network manager
				t.Fatal(err)
			}
			for p, text := range c.more {
				e.write(p, text, 0o644)
			}
			p := e.planned(in)
			for _, r := range []string{"sysctl-read-later", "sysctl-by-hand"} {
				if slices.Contains(risks(p), r) != slices.Contains(c.risks, r) {
					t.Errorf("%s is said: %t: %v", r, !slices.Contains(c.risks, r), risks(p))
				}
			}
			ns := testlab.NewNS(t, "sys")
			for i, l := range links {
				ns.IP("link", "add", l, "type", "veth", "peer", "name", "p"+string(rune('a'+i)))
			}
			// Only directories that are there are covered; what is ours is copied into them,
			// so that nothing of this machine is read.
			script := "for d in /etc/sysctl.d /run/sysctl.d /usr/local/lib/sysctl.d /usr/lib/sysctl.d; do [ ! -d $d ] || { mount -t tmpfs tmpfs $d; cp " + e.dir + "$d/* $d/ 2>/dev/null || :; }; done\n" +
				"[ -d /run/sysctl.d ] || cp " + e.dir + "/run/sysctl.d/* /etc/sysctl.d/\n" +
				"[ ! -e /etc/sysctl.conf ] || { touch " + e.dir + "/etc/sysctl.conf; mount --bind " + e.dir + "/etc/sysctl.conf /etc/sysctl.conf; }\n"
			for f := range c.more {
				if strings.Contains(f, "ufw") {
					script += "mount --bind " + e.dir + f + " " + f + "\n"
				}
			}
			for step := range strings.SplitSeq(c.boot, "; ") {
				prog, args, _ := strings.Cut(step, " ")
				if prog == "ufw" {
					testlab.RequireTool(t, "ufw")
					script += "/lib/ufw/ufw-init start >/dev/null 2>&1 || :\n"
				} else {
					script += testlab.RequireTool(t, prog) + " " + args + "\n"
				}
			}
			inside := func(script string) {
				t.Helper()
				if out, err := ns.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", script).CombinedOutput(); err != nil {
					t.Fatalf("%v %s", err, out)
				}
			}
			inside(script)
			unit, _ := e.read(plan.LateFile)
			if (c.late == "") != unit.Absent {
				t.Fatalf("our late unit: %+v", unit)
			}
			if c.late != "" {
				key, value, _ := strings.Cut(c.late, "=")
				if got := ns.ReadSysctl("net/ipv6/conf/" + key); got != value {
					t.Fatalf("%s is %s, not theirs: then this shows nothing", key, got)
				}
				for line := range strings.Lines(unit.Text) {
					if start, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart="); ok {
						inside(strings.Replace(start, plan.SysctlFile, e.dir+plan.SysctlFile, 1))
					}
				}
			}
			for _, l := range append(links, "default") {
				for k, v := range want {
					if l == "s0.7" && (k == "accept_ra" || k == "autoconf") {
						v = "1"
					}
					if got := ns.ReadSysctl("net/ipv6/conf/" + l + "/" + k); got != v {
						t.Errorf("%s/%s is %s, want %s", l, k, got, v)
					}
				}
			}
			// One that comes later: the kernel's default, and udev's run of systemd-sysctl.
			ns.IP("link", "add", "s9", "type", "veth", "peer", "name", "p9")
			if got := ns.ReadSysctl("net/ipv6/conf/s9/accept_ra"); got != "0" {
				t.Errorf("a later interface has accept_ra %s", got)
			}
			if !strings.Contains(c.boot, "--system") {
				before, _, _ := strings.Cut(script, testlab.RequireTool(t, "systemd-sysctl"))
				inside(before + testlab.RequireTool(t, "systemd-sysctl") + " --prefix=/net/ipv6/conf/s9 --prefix=/net/ipv6/neigh/s9")
				if got := ns.ReadSysctl("net/ipv6/conf/s9/accept_ra"); got != "0" {
					t.Errorf("after udev, a later interface has accept_ra %s", got)
				}
			}
			if c.late == "" {
				// Without our file the others have their way.
				if err := os.Remove(e.dir + plan.SysctlFile); err != nil {
					t.Fatal(err)
				}
				inside(script)
				for _, k := range []string{"s0/accept_ra=2", "s0.7/accept_ra=2", "s1/accept_redirects=1", "s1/autoconf=1", "s0/suppress_frag_ndisc=0"} {
					k, v, _ := strings.Cut(k, "=")
					if got := ns.ReadSysctl("net/ipv6/conf/" + k); got != v {
						t.Errorf("without ours, %s is %s, not %s: then this shows nothing", k, got, v)
					}
				}
			}
		})
	}
}
