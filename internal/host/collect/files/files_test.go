package files

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// decode writes files ("-> X" is a link) and reads them.
func decode(t testing.TB, files map[string]string) fact.Files {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(target, p); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	var h fact.Host
	Read(tr).Decode(&h)
	return h.Files
}

const systemd = "usr/lib/systemd/systemd-sysctl"

// TestWhoApplies tells settings that boot applies from those that it does not.
func TestWhoApplies(t *testing.T) {
	t.Parallel()
	line := "net.ipv6.conf.all.accept_ra = 0\n"
	ufw := map[string]string{"etc/default/ufw": "IPT_SYSCTL=\"/etc/ufw/sysctl.conf\" # x\n", "etc/ufw/sysctl.conf": line}
	with := func(m map[string]string, kv ...string) map[string]string {
		out := map[string]string{}
		for k, v := range m {
			out[k] = v
		}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i]] = kv[i+1]
		}
		return out
	}
	for name, c := range map[string]struct {
		files map[string]string
		by    []string
		gaps  int
	}{
		"nothing":           {nil, nil, 0},
		"systemd":           {map[string]string{systemd: "", "etc/sysctl.d/a.conf": line}, []string{"systemd-sysctl"}, 0},
		"masked service":    {map[string]string{systemd: "", "etc/sysctl.d/a.conf": line, "etc/systemd/system/systemd-sysctl.service": "-> /dev/null"}, []string{"nobody"}, 0},
		"linked":            {map[string]string{systemd: "", "etc/sysctl.conf": line, "etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf"}, []string{"systemd-sysctl"}, 0},
		"linked otherwise":  {map[string]string{systemd: "", "etc/sysctl.conf": line, "etc/sysctl.d/z.conf": "-> /etc/sysctl.conf"}, []string{"systemd-sysctl"}, 0},
		"not linked":        {map[string]string{systemd: "", "etc/sysctl.conf": line}, []string{"nobody"}, 0},
		"sysvinit":          {map[string]string{"etc/init.d/procps": "", "etc/sysctl.d/a.conf": line, "etc/sysctl.conf": line}, []string{"procps", "procps"}, 0},
		"a container image": {map[string]string{"etc/sysctl.d/a.conf": line}, []string{"nobody"}, 0},
		"ufw on":            {with(ufw, "etc/ufw/ufw.conf", "ENABLED=yes\n"), []string{"ufw"}, 0},
		"ufw off":           {with(ufw, "etc/ufw/ufw.conf", "ENABLED=no\n"), nil, 0},
		"ufw without conf":  {ufw, nil, 0},
		"a broken line":     {map[string]string{systemd: "", "etc/sysctl.d/a.conf": "what\n" + line + "-\n"}, []string{"systemd-sysctl"}, 1},
		"not a file":        {map[string]string{systemd: "", "etc/sysctl.d/a.conf": "-> /dev/zero", "dev/zero/x": "", "run/sysctl.d/b.conf": line}, []string{"systemd-sysctl"}, 0},
		"masked file":       {map[string]string{systemd: "", "etc/sysctl.d/a.conf": "-> /dev/null", "usr/lib/sysctl.d/a.conf": line}, nil, 0},
		"other keys":        {map[string]string{systemd: "", "etc/sysctl.d/a.conf": "vm.swappiness = 1\nkernel.modules_disabled=1\nuser.max_user_namespaces=0\nfs.x=1\nkernel.x=1\n"}, []string{"systemd-sysctl", "systemd-sysctl"}, 0},
	} {
		f := decode(t, c.files)
		var by []string
		for _, s := range f.Sysctl.Or(nil) {
			by = append(by, s.By)
		}
		if !slices.Equal(by, c.by) || len(f.SysctlGaps) != c.gaps {
			t.Errorf("%s: applied by %q, want %q; gaps %v, want %d", name, by, c.by, f.SysctlGaps, c.gaps)
		}
	}
}

func TestNormalKey(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"net.ipv6.conf.eth0.accept_ra":     "net/ipv6/conf/eth0/accept_ra",
		"net.ipv6.conf.eth0/100.accept_ra": "net/ipv6/conf/eth0.100/accept_ra",
		"net/ipv6/conf/eth0.100/accept_ra": "net/ipv6/conf/eth0.100/accept_ra",
		"/net/ipv6/conf//all/./accept_ra/": "net/ipv6/conf/all/accept_ra",
		"net.ipv6.conf.*.accept_ra":        "net/ipv6/conf/*/accept_ra",
		"x":                                "x", "": "",
	} {
		if got := NormalKey(in); got != want {
			t.Errorf("NormalKey(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	f := decode(t, map[string]string{
		"usr/lib/systemd/system/ufw.service":                              "x",
		"etc/systemd/system/multi-user.target.wants/ufw.service":          "-> /usr/lib/systemd/system/ufw.service",
		"usr/lib/systemd/system/wg-quick@.service":                        "x",
		"etc/systemd/system/multi-user.target.wants/wg-quick@wg0.service": "-> /usr/lib/systemd/system/wg-quick@.service",
		"usr/lib/systemd/system/firewalld.service":                        "x",
		"etc/systemd/system/firewalld.service":                            "-> /dev/null",
		"etc/systemd/system/multi-user.target.wants/firewalld.service":    "-> /usr/lib/systemd/system/firewalld.service",
		"usr/lib/systemd/system/nftables.service":                         "",
		"usr/lib/systemd/system/cron.service":                             "x",
		"usr/lib/systemd/system/a.socket":                                 "[Socket]\nListenStream=/run/a\n",
		"usr/lib/systemd/system/b.socket":                                 "[Socket]\nListenDatagram=[fd00::1]:53\nListenStream=80\n[Install]\nListenStream=81\n",
		"run/systemd/system/b.socket.d/z.conf":                            "[Socket]\nBindIPv6Only=both\n",
		"etc/systemd/system/sockets.target.wants/b.socket":                "-> /usr/lib/systemd/system/b.socket",
		"etc/systemd/system/c.socket":                                     "[Socket]\nListenStream=\\\n  [::]:443\n",
		"usr/lib/systemd/system/c.socket":                                 "[Socket]\nListenStream=444\n",
		"usr/lib/systemd/system/radvd.service":                            "x",
		"etc/systemd/system/ra.service":                                   "-> /usr/lib/systemd/system/radvd.service",
	})
	got := map[string]fact.Unit{}
	for _, u := range f.Units.Or(nil) {
		got[u.Name] = u
	}
	for name, ok := range map[string]bool{
		"ufw.service":          got["ufw.service"].Enabled,
		"wg-quick@wg0.service": got["wg-quick@wg0.service"].Enabled,
		"firewalld.service":    got["firewalld.service"].Masked && !got["firewalld.service"].Enabled,
		"nftables.service":     got["nftables.service"].Masked,
		"b.socket":             got["b.socket"].Enabled && slices.Equal(got["b.socket"].Listen, []string{"Datagram [fd00::1]:53", "Stream 80"}) && got["b.socket"].BindIPv6Only == "both",
		"c.socket":             !got["c.socket"].Enabled && slices.Equal(got["c.socket"].Listen, []string{"Stream [::]:443"}),
		"radvd.service":        got["radvd.service"].Enabled,
	} {
		if !ok {
			t.Errorf("%s: %+v", name, got[name])
		}
	}
	for _, name := range []string{"a.socket", "cron.service", "ra.service"} {
		if u, ok := got[name]; ok {
			t.Errorf("%s is listed: %+v", name, u)
		}
	}
}

func TestNameServices(t *testing.T) {
	t.Parallel()
	f := decode(t, map[string]string{
		"etc/hostname":                         "web1\n",
		"etc/hosts":                            "127.0.0.1 localhost other\n::1 LocalHost6 # c\n10.0.0.1 web1.example.org web1\n10.0.0.2 db1\nnonsense localhost\n",
		"etc/gai.conf":                         "# label x\nprecedence ::ffff:0:0/96 100\n",
		"etc/nsswitch.conf":                    "hosts: files mdns4_minimal [NOTFOUND=return] dns\n",
		"etc/resolv.conf":                      "-> ../run/systemd/resolve/stub-resolv.conf",
		"run/systemd/resolve/stub-resolv.conf": "nameserver 127.0.0.53\nnameserver bad\n",
		"run/systemd/netif/links/7":            "DNS=fe80::1%eth0 2001:db8::53#name [2001:db8::54]:5353 x\n",
	})
	var hosts []string
	for _, e := range f.Hosts.Or(nil) {
		hosts = append(hosts, e.Address+" "+strings.Join(e.Names, ","))
	}
	if want := []string{"127.0.0.1 localhost", "::1 localhost6", "10.0.0.1 web1.example.org,web1"}; !slices.Equal(hosts, want) {
		t.Errorf("hosts %q, want %q", hosts, want)
	}
	if len(f.Gaps) != 1 || f.Gaps[0].What != "/etc/hosts:5" {
		t.Errorf("gaps %v", f.Gaps)
	}
	if !f.GaiConf.Or(false) || !slices.Equal(f.NSSHosts.Or(nil), []string{"files", "mdns4_minimal", "[NOTFOUND=return]", "dns"}) {
		t.Errorf("%v %v", f.GaiConf, f.NSSHosts)
	}
	r := f.Resolver.Or(fact.Resolver{})
	if !slices.Equal(r.Nameservers, []string{"127.0.0.53"}) || len(r.Links) != 1 || !slices.Equal(r.Links[0].Servers, []string{"fe80::1%eth0", "2001:db8::53", "2001:db8::54"}) {
		t.Errorf("%+v", r)
	}
}

// FuzzFiles reads any text as every file of this package.
func FuzzFiles(f *testing.F) {
	for _, s := range []string{
		"-net.ipv6.conf.*.x\nnet/ipv6/{a,b}/x=1\r\nnet.ipv6.conf.a/b.stable_secret = ::1\n", "net.[ = 1\n-=\n=\n", "\x00\r\n;#\n",
		"install a /bin/false\nblacklist b\nalias * off\nsoftdep a pre: b\n\\\n", "[Socket]\nListenStream=[::]:1\nListenStream=\n", "nameserver ::1%\n", "::1 localhost\n", "hosts: [\n",
		"IPT_SYSCTL='/x\nENABLED=yes\n", "DNS=[::1]:53%x\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1<<16 {
			return
		}
		file := confd.File{Name: "f.socket", Path: "/f", Content: fact.Value([]byte(s + "\nS3CRET=S3CRET\nS3CRET S3CRET\n"))}
		files := []confd.File{file}
		d := &Dump{
			sysctl: files, sysctlBy: bySystemd, sysctlConf: file, ufwDefault: file, ufwConf: file, ufwSysctl: file, modprobe: files, modulesLoad: nil,
			hosts: file, hostname: confd.File{}, resolvConf: file, resolvLinks: []linkFile{{1, file}, {0, file}}, nsswitch: file, gai: file,
			units: &unitDump{any: true, enabled: map[string]bool{}, units: []unitFile{{file: file, dropins: files}}},
		}
		var h fact.Host
		d.Decode(&h)
		b, err := json.Marshal(h.Files)
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		if !strings.Contains(strings.ToUpper(s), "S3CRET") && !strings.HasSuffix(s, `\`) && strings.Contains(string(b), "S3CRET") {
			t.Errorf("a line that is none of ours came through: %.300s", b)
		}
		for _, x := range h.Files.Sysctl.Or(nil) {
			if NormalKey("/"+x.Key) != x.Key && !strings.HasPrefix(x.Key, ".") {
				t.Errorf("key %q is not normal", x.Key)
			}
		}
	})
}
