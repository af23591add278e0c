package manager

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// FuzzManagers reads any text as every file of every manager.
func FuzzManagers(f *testing.F) {
	for _, s := range []string{
		"[Match]\nName=!a b\n[Network]\nIPv6AcceptRA=yes\nAddress=::1/1\n[IPv6AcceptRA]\nRouterAllowList=::/0 fe80::1%x\n",
		"interface a\nnoipv6rs\ndenyinterfaces [\nssid x\nipv6\n",
		"iface a inet6 static inherits a\n address ::1\n netmask 9999\niface a inherits a\n",
		"[keyfile]\nunmanaged-devices=mac:x;except:y;*\n[ipv6]\nmethod=auto\naddress1=::1/64,::\n",
		"network:\n  ethernets:\n    a: {accept-ra: no, match: {name: [a, b]}, addresses: [\"::1/64\", {\"::2/64\": {lifetime: 0}}], routes: [{to: default, via: \"::\"}]}\n    b:\n",
		"a: &a [*a, *a]\n", "network: {ethernets: {a: null}}", strings.Repeat("[", 500), strings.Repeat("- ", 500), "? ? ? ?\n: :\n",
		"{\"ipv6\": 1}", "<network><name>a</name><ip family='ipv6'/></network>", "<a><b></a>", "DEVICE=a\nIPV6INIT=yes\n", "NETWORK_FILE=/f\nADMIN_STATE=x\n", "\\\n\\\n\x00\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1<<16 {
			return
		}
		file := confd.File{Name: "f", Path: "/f", Content: fact.Value([]byte(s))}
		files := []confd.File{file}
		sources := []source{
			&networkdFiles{networks: []networkFile{{file: file, dropins: files}}, netdevs: files, global: files, links: []linkState{{1, file}}},
			&dhcpcdFiles{conf: file},
			&ifupdownFiles{files: append(files, file), start: []int{1, 10}},
			&nmFiles{profiles: files, ifcfg: files, conf: files},
			&netplanFiles{files: append(files, file)},
		}
		d := &Dump{}
		for i, s := range sources {
			d.instances = append(d.instances, instance{kind: &kinds[i], files: s})
		}
		d.runtimes = &runtimes{docker: file, libvirt: files, libvirtDir: true, kubelet: file, proxy: file}
		var h fact.Host
		d.Decode(&h)
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		if len(b) > 64<<20 {
			t.Errorf("%d bytes out of %d", len(b), len(s))
		}
		for _, m := range h.Managers.Or(nil) {
			for _, mi := range m.Interfaces {
				if mi.Origin.File == "" {
					t.Errorf("%s: an entry without origin: %+v", m.Name, mi)
				}
			}
		}
	})
}

// TestYAMLBombs refuses documents that would cost more than they say.
func TestYAMLBombs(t *testing.T) {
	t.Parallel()
	laughs := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'l'; c++ {
		laughs += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ",") + "]\n"
	}
	for name, s := range map[string]string{
		"aliases": laughs,
		"flow":    "network: " + strings.Repeat("[", 100000),
		"blocks":  strings.Repeat("- ", 100000),
		"depth":   deep(3000),
		"size":    "network: \"" + strings.Repeat("x", maxYAML) + "\"",
	} {
		if _, ok := decodeNetplan([]byte(s)); ok {
			t.Errorf("%s was decoded", name)
		}
	}
	if _, ok := decodeNetplan([]byte("network: {ethernets: {a: {accept-ra: true}}}")); !ok {
		t.Error("a plain document was refused")
	}
}

func deep(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
		if b.Len() > maxYAML/2 {
			break
		}
	}
	return b.String()
}

// TestRuntimes counts cgroups below a root that counts as live.
func TestRuntimesFromCgroups(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, p := range []string{
		"sys/fs/cgroup/system.slice/docker-" + strings.Repeat("a", 64) + ".scope",
		"sys/fs/cgroup/system.slice/cron.service",
		"sys/fs/cgroup/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
		"sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podabc.slice",
		"sys/fs/cgroup/kubepods.slice/kubepods-podxyz.slice",
	} {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tr := openTree(t, dir)
	r := &runtimes{}
	r.cgroups(tr)
	if r.containers != 1 || r.guests != 1 || r.pods != 2 {
		t.Errorf("%d containers, %d guests, %d pods", r.containers, r.guests, r.pods)
	}
}
