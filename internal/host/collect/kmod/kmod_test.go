package kmod_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/kmod"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// files writes a directory tree and opens it.
func files(t testing.TB, content map[string]string) *tree.Tree {
	t.Helper()
	dir := t.TempDir()
	for name, s := range content {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

func release(t testing.TB) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(u.Release[:])
}

// live reads a made-up host as if it were this one.
func live(t testing.TB, content map[string]string) (*kmod.Dump, *fact.Host) {
	t.Helper()
	if _, ok := content["proc/sys/kernel/ostype"]; !ok {
		content["proc/sys/kernel/ostype"] = "Linux\n"
	}
	d := kmod.Read(kmod.AsLive(files(t, content)))
	var h fact.Host
	d.Decode(&h)
	return d, &h
}

const modulesDep = `kernel/net/ipv4/tunnel4.ko.xz:
kernel/net/ipv4/ip_tunnel.ko.xz:
kernel/net/ipv6/sit.ko.xz: kernel/net/ipv4/ip_tunnel.ko.xz kernel/net/ipv4/tunnel4.ko.xz
kernel/net/ipv6/tunnel6.ko.zst:
kernel/net/ipv6/ip6_tunnel.ko.zst: kernel/net/ipv6/tunnel6.ko.zst
kernel/net/ipv6/ip6_gre.ko: kernel/net/ipv6/ip6_tunnel.ko.zst
kernel/drivers/net/wireguard/wireguard.ko.gz: kernel/lib/crypto/libchacha.ko.gz
kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.xz
`

const modulesAlias = `# Aliases extracted from modules themselves.
alias netdev-sit0 sit
alias rtnl-link-sit sit
alias rtnl-link-wireguard wireguard
alias pci:v00008086d* e1000
alias fs-xfs xfs
`

// debian is a distribution kernel with modules.
func debian(t testing.TB) map[string]string {
	dir := "lib/modules/" + release(t) + "/"
	return map[string]string{
		"proc/sys/kernel/modules_disabled":           "0\n",
		"proc/modules":                               "nf_tables 303104 0 - Live 0x0\nnfnetlink 20480 1 nf_tables, Live 0x0\nsctp 1 0 - Unloading 0x0\nsnd-pcm 1 0 - Live 0x0\n",
		dir + "modules.builtin":                      "kernel/net/ipv6/ipv6.ko\nkernel/net/ipv6/mip6.ko\nkernel/net/ipv4/inet_diag.ko\n",
		dir + "modules.dep":                          modulesDep,
		dir + "modules.alias":                        modulesAlias,
		"proc/cmdline":                               "BOOT_IMAGE=/vmlinuz quiet\n",
		"sys/module/ipv6/parameters/disable":         "0\n",
		"sys/module/ipv6/parameters/disable_ipv6":    "0\n",
		"sys/module/ipv6/parameters/autoconf":        "1\n",
		"sys/module/nf_tables/initstate":             "live\n",
		"sys/module/vxlan/parameters/log_ecn_error":  "Y\n",
		"proc/sys/user/max_user_namespaces":          "63412\n",
		"proc/sys/kernel/unprivileged_userns_clone":  "1\n",
		"etc/os-release":                             "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID='12'\n# no\nID_LIKE=\"a b\"\n",
		"boot/config-" + release(t):                  "CONFIG_NF_TABLES=m\nCONFIG_VXLAN=m\nCONFIG_IPV6=y\n",
		"dev/net/tun":                                "",
		"sys/module/sit_is_not_here/parameters/none": "",
	}
}

func value[T any](t *testing.T, what string, k fact.Known[T]) T {
	t.Helper()
	v, ok := k.Get()
	if !ok {
		b, _ := json.Marshal(k)
		t.Errorf("%s: %s", what, b)
	}
	return v
}

func TestModules(t *testing.T) {
	d, h := live(t, debian(t))
	if !value(t, "supported", h.Modules.Supported) || value(t, "disabled", h.Boot.ModulesDisabled) {
		t.Error("modules are supported and not disabled")
	}
	if got := value(t, "loaded", h.Modules.Loaded); !slices.Equal(got, []string{"nf_tables", "nfnetlink", "snd_pcm"}) {
		t.Errorf("loaded %v", got)
	}
	if got := value(t, "builtin", h.Modules.Builtin); !slices.Equal(got, []string{"inet_diag", "ipv6", "mip6", "vxlan"}) {
		t.Errorf("built in %v", got)
	}
	l := value(t, "loadable", h.Modules.Loadable)
	if l["sit"] != "kernel/net/ipv6/sit.ko.xz" || l["ip6_gre"] != "kernel/net/ipv6/ip6_gre.ko" || l["wireguard"] == "" || l["tunnel6"] == "" || l["xfs"] != "" {
		t.Errorf("loadable %v", l)
	}
	dep := value(t, "depends", h.Modules.Depends)
	if !slices.Equal(dep["ip6_gre"], []string{"ip6_tunnel", "tunnel6"}) || !slices.Equal(dep["sit"], []string{"ip_tunnel", "tunnel4"}) || dep["tunnel6"] != nil {
		t.Errorf("depends %v", dep)
	}
	al := value(t, "aliases", h.Modules.Aliases)
	if !slices.Equal(al["sit"], []string{"netdev-sit0", "rtnl-link-sit"}) || len(al) != 2 {
		t.Errorf("aliases %v", al)
	}
	if h.Modules.Release != release(t) {
		t.Errorf("release %q", h.Modules.Release)
	}
	for name, want := range map[string]bool{
		"nf_tables": true, "nfnetlink": true, "snd-pcm": true, "ipv6": true, "inet_diag": true, "vxlan": true, "bpf": true,
		"sctp": false, "sit": false, "raw_diag": false, "packet_diag": false, "ebtable_filter": false,
	} {
		if d.Present(name) != want {
			t.Errorf("Present(%s) = %v", name, !want)
		}
		if g := d.Doubt(name); g != nil {
			t.Errorf("Doubt(%s): %v", name, g)
		}
	}
	ipv6 := value(t, "ipv6 parameters", h.Boot.IPv6Module)
	if ipv6["autoconf"] != "1" || ipv6["disable"] != "0" || len(ipv6) != 3 {
		t.Errorf("ipv6 parameters %v", ipv6)
	}
	if o := value(t, "os", h.OS); o.ID != "debian" || o.VersionID != "12" || o.Name != "Debian GNU/Linux 12 (bookworm)" || !slices.Equal(o.IDLike, []string{"a", "b"}) {
		t.Errorf("os %+v", o)
	}
	if !value(t, "userns", h.UserNS.Unprivileged) || value(t, "max", h.UserNS.Max) != 63412 || h.UserNS.AppArmor.State() != fact.StateAbsent || value(t, "tun", h.UserNS.TunMode) != 0o644 {
		t.Errorf("user namespaces %+v", h.UserNS)
	}
}

func TestPresentOfADiagModule(t *testing.T) {
	c := debian(t)
	c["proc/modules"] = "af_packet_diag 1 0 - Live 0x0\n"
	d, _ := live(t, c)
	if !d.Present("packet_diag") {
		t.Error("packet_diag is called af_packet_diag in /proc/modules")
	}
}

// TestDoubt: "not listed" is proof only when the lists could be read.
func TestDoubt(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(map[string]string)
		reason fact.Reason // "" : no doubt
	}{
		"all there":        {func(map[string]string) {}, ""},
		"config stands in": {func(c map[string]string) { delete(c, "lib/modules/"+release(t)+"/modules.builtin") }, ""},
		"no /proc/modules": {func(c map[string]string) { delete(c, "proc/modules") }, fact.NotCollected},
		"as in a container": {func(c map[string]string) {
			delete(c, "lib/modules/"+release(t)+"/modules.builtin")
			delete(c, "boot/config-"+release(t))
		}, fact.NotCollected},
	} {
		c := debian(t)
		tc.change(c)
		d, h := live(t, c)
		if d.Present("ip_set") {
			t.Errorf("%s: ip_set is present", name)
		}
		g := d.Doubt("ip_set")
		if (g != nil) != (tc.reason != "") || g != nil && g.Reason != tc.reason {
			t.Errorf("%s: doubt %v, want %q", name, g, tc.reason)
		}
		if name == "no /proc/modules" {
			if _, gap := h.Modules.Loaded.Gap(); !gap && h.Modules.Loaded.State() != fact.StateAbsent {
				t.Errorf("%s: loaded %+v", name, h.Modules.Loaded)
			}
			if !value(t, name, h.Modules.Supported) {
				t.Errorf("%s: kernel.modules_disabled is there, so modules are supported", name)
			}
		}
	}
}

// TestMonolithic: without /proc/modules and kernel.modules_disabled there are no modules.
func TestMonolithic(t *testing.T) {
	d, h := live(t, map[string]string{
		"sys/module/ipv6/parameters/disable": "0\n",
		"sys/module/vxlan/parameters/x":      "1\n",
		"boot/config-" + release(t):          "CONFIG_IPV6=y\nCONFIG_TUN=y\n# CONFIG_IPV6_SIT is not set\n",
	})
	if value(t, "supported", h.Modules.Supported) {
		t.Error("modules are not supported")
	}
	if h.Modules.Loadable.State() != fact.StateAbsent || h.Modules.Loaded.State() != fact.StateAbsent || h.Boot.ModulesDisabled.State() != fact.StateUnsupported {
		t.Errorf("%+v %+v", h.Modules, h.Boot)
	}
	if got := value(t, "builtin", h.Modules.Builtin); !slices.Equal(got, []string{"ipv6", "tun", "vxlan"}) {
		t.Errorf("built in %v", got)
	}
	if !d.Present("nf_tables") || !d.Present("raw_diag") || d.Doubt("nf_tables") != nil {
		t.Error("nothing can be loaded, so everything may be asked")
	}
	if d.Present("ebtable_filter") {
		t.Error("the configuration says that there are no ebtables tables")
	}
	d, h = live(t, map[string]string{})
	if !d.Present("ebtable_filter") {
		t.Error("without a configuration ebtables may be there")
	}
	if _, gap := h.Modules.Builtin.Gap(); !gap {
		t.Errorf("built in: %+v", h.Modules.Builtin)
	}
}

func TestNoProcIsUnknown(t *testing.T) {
	d := kmod.Read(kmod.AsLive(files(t, map[string]string{"etc/hostname": "x"})))
	var h fact.Host
	d.Decode(&h)
	for what, gap := range map[string]bool{
		"supported": isGap(h.Modules.Supported), "builtin": isGap(h.Modules.Builtin), "loadable": isGap(h.Modules.Loadable),
		"ipv6 module": isGap(h.Boot.IPv6Module), "parameters": isGap(h.Boot.Parameters), "disabled": isGap(h.Boot.ModulesDisabled),
		"loaded": isGap(h.Modules.Loaded), "max userns": isGap(h.UserNS.Max), "unprivileged userns": isGap(h.UserNS.Unprivileged),
	} {
		if !gap {
			t.Errorf("%s is known although there is no /proc", what)
		}
	}
	if d.Present("nf_tables") || d.Doubt("nf_tables") == nil {
		t.Error("nf_tables is neither present nor surely absent")
	}
}

func isGap[T any](k fact.Known[T]) bool { _, gap := k.Gap(); return gap }

// TestBootParametersKeepNoSecret plants secrets where installers and cloud agents do.
func TestBootParametersKeepNoSecret(t *testing.T) {
	c := debian(t)
	c["proc/cmdline"] = `BOOT_IMAGE=/boot/vmlinuz root=UUID=S3CRET ipv6.disable_ipv6=1 ipv6.disable=0 ipv6.disable=1 token=S3CRET ` +
		`rootpw="S3CRET ipv6.autoconf=S3CRET" module-blacklist=sit,tun modprobe.blacklist=a modprobe.blacklist=b "net.ifnames=0" nomodule ` +
		`sysctl.net.ipv6.conf.all.disable_ipv6=1 sysctl.kernel.core_pattern=S3CRET ip=S3CRET initcall_blacklist=x -- ipv6.disable=0 S3CRET` + "\n"
	_, h := live(t, c)
	got := value(t, "parameters", h.Boot.Parameters)
	want := map[string]string{
		"ipv6.disable_ipv6": "1", "ipv6.disable": "1", "module_blacklist": "sit,tun", "modprobe.blacklist": "a,b", "net.ifnames": "0",
		"nomodule": "", "sysctl.net.ipv6.conf.all.disable_ipv6": "1", "initcall_blacklist": "x",
	}
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s = %q, want %q", k, g, v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("parameters %v", got)
	}
	if b, _ := json.Marshal(h); strings.Contains(string(b), "S3CRET") {
		t.Errorf("a secret was kept: %s", b)
	}
}

// TestTree reads an image: the newest kernel that has its indexes, and nothing live.
func TestTree(t *testing.T) {
	c := map[string]string{
		"lib/modules/6.1.0-9-amd64/modules.dep":      "kernel/net/ipv6/old.ko:\n",
		"lib/modules/6.1.0-10-amd64/modules.dep":     modulesDep,
		"lib/modules/6.1.0-10-amd64/modules.builtin": "kernel/net/ipv6/ipv6.ko\n",
		"lib/modules/6.12.9/kernel/x":                "no modules.dep",
		"usr/lib/os-release":                         "ID=fedora\n",
		"proc/modules":                               "sit 1 0 - Live 0\n",
		"proc/cmdline":                               "ipv6.disable=1\n",
		"sys/module/ipv6/parameters/disable":         "1\n",
	}
	d := kmod.Read(files(t, c))
	var h fact.Host
	d.Decode(&h)
	if h.Modules.Release != "6.1.0-10-amd64" {
		t.Errorf("release %q", h.Modules.Release)
	}
	if l := value(t, "loadable", h.Modules.Loadable); l["sit"] == "" {
		t.Errorf("loadable %v", l)
	}
	if o := value(t, "os", h.OS); o.ID != "fedora" {
		t.Errorf("os %+v", o)
	}
	for what, gap := range map[string]bool{
		"supported": isGap(h.Modules.Supported), "loaded": isGap(h.Modules.Loaded), "parameters": isGap(h.Boot.Parameters),
		"ipv6 module": isGap(h.Boot.IPv6Module), "disabled": isGap(h.Boot.ModulesDisabled), "userns": isGap(h.UserNS.Max), "aliases": isGap(h.Modules.Aliases),
	} {
		if !gap {
			t.Errorf("%s is known of a directory tree", what)
		}
	}
	h = fact.Host{}
	kmod.Read(files(t, map[string]string{"etc/x": ""})).Decode(&h)
	if !isGap(h.Modules.Loadable) || h.OS.State() != fact.StateAbsent {
		t.Errorf("an empty tree: %+v %+v", h.Modules, h.OS)
	}
}

// TestThisHost compares with the kernel that runs the test.
func TestThisHost(t *testing.T) {
	tr, err := tree.Host()
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	d := kmod.Read(tr)
	var h fact.Host
	d.Decode(&h)
	_, err = os.Stat("/proc/modules")
	if value(t, "supported", h.Modules.Supported) != (err == nil) {
		t.Errorf("supported %+v, /proc/modules: %v", h.Modules.Supported, err)
	}
	if !d.Present("ipv6") {
		t.Error("ipv6 is not there")
	}
	if _, err := os.Stat("/proc/thread-self/net/ip6_tables_names"); err == nil && !d.Present("ip6_tables") {
		t.Error("ip6_tables is there and was not seen")
	}
	value(t, "os", h.OS)
	value(t, "boot parameters", h.Boot.Parameters)
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(modulesDep), []byte(modulesAlias), []byte(`ipv6.disable=1 "a b" --`), []byte("ID=x\nNAME=\"a\\\"b\"\n"))
	f.Add([]byte("a.ko: b.ko\nb.ko: a.ko\n"), []byte("alias"), []byte(`"`), []byte("="))
	f.Fuzz(func(t *testing.T, dep, alias, cmdline, osRelease []byte) {
		d := kmod.Raw(dep, alias, cmdline, osRelease)
		var h fact.Host
		d.Decode(&h)
		params, _ := h.Boot.Parameters.Get()
		for k := range params {
			if !kmod.BootWanted(k) {
				t.Errorf("kept %q", k)
			}
		}
		deps, _ := h.Modules.Depends.Get()
		for m, n := range deps {
			if slices.Contains(n, m) {
				t.Errorf("%s needs itself", m)
			}
		}
		if _, err := json.Marshal(h); err != nil {
			t.Error(err)
		}
	})
}
