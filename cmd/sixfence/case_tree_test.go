package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// tree writes a root directory and audits it with --root.
func tree(t testing.TB, files map[string]string) view {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return view{run(t, exec.Command(binary, auditArgs([]string{"--root", dir})...)), "--root", ""}
}

const debianModules = "/lib/modules/6.1.0-18-amd64/"

// moduleTree is the part of a Debian image that decides about modules.
func moduleTree(modprobe, builtin string) map[string]string {
	return map[string]string{
		"/etc/os-release":                 "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"/etc/modprobe.d/tunnels.conf":    modprobe,
		debianModules + "modules.builtin": builtin,
		debianModules + "modules.dep": "kernel/net/ipv6/sit.ko: kernel/net/ipv6/tunnel4.ko kernel/net/ipv4/ip_tunnel.ko\n" +
			"kernel/net/ipv6/ip6_tunnel.ko: kernel/net/ipv6/tunnel6.ko\nkernel/net/ipv6/tunnel6.ko:\nkernel/net/ipv6/ip6_gre.ko: kernel/net/ipv6/ip6_tunnel.ko\n",
		debianModules + "modules.alias": "alias rtnl-link-sit sit\nalias rtnl-link-ip6tnl ip6_tunnel\n",
	}
}

// failing lists the subjects of a control's failures that mention a word.
func (v view) failing(control, word string) []finding.Finding {
	var out []finding.Finding
	for _, f := range v.Findings {
		if f.Control == control && f.Effective == finding.Fail && strings.Contains(fmt.Sprint(f.Subject, f.Message, f.Evidence), word) {
			out = append(out, f)
		}
	}
	return out
}

// `install tunnel6 /bin/true` is the line that guides hand out against ISATAP.
// ISATAP is in sit; tunnel6 carries IPsec; and true says "loaded" for what is not.
func TestInstallTunnel6BinTrue(t *testing.T) {
	t.Parallel()
	bad := tree(t, moduleTree("install tunnel6 /bin/true\ninstall sit /bin/true\n", ""))
	if len(bad.failing("TUN-04", "tunnel6")) == 0 {
		t.Errorf("TUN-04 does not blame install tunnel6 /bin/true: %+v", bad.find("TUN-04", finding.Subject{File: ""}))
	}
	good := tree(t, moduleTree("install sit /bin/false\nblacklist sit\n", ""))
	if f := good.failing("TUN-04", "tunnel"); len(f) != 0 {
		t.Errorf("TUN-04 blames a correct block: %+v", f)
	}

	// modprobe itself, on the same tree: it reports success for a module that is not there.
	dir := t.TempDir()
	conf := filepath.Join(dir, "x.conf")
	for program, want := range map[string]bool{"/bin/true": true, "/bin/false": false} {
		if err := os.WriteFile(conf, []byte("install tunnel6 "+program+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(testlab.RequireTool(t, "modprobe"), "-C", dir, "tunnel6")
		if ok := c.Run() == nil; ok != want {
			t.Errorf("modprobe with install tunnel6 %s succeeded: %v, want %v", program, ok, want)
		}
	}
}

// What is built into the kernel cannot be blocked by modprobe.d at all.
func TestBuiltInModuleCannotBeBlocked(t *testing.T) {
	t.Parallel()
	block := "install sit /bin/false\nblacklist sit\n"
	builtin := tree(t, moduleTree(block, "kernel/net/ipv6/sit.ko\n"))
	if len(builtin.failing("TUN-05", "sit")) == 0 {
		t.Errorf("TUN-05 does not say that sit is built in and cannot be blocked")
	}
	loadable := tree(t, moduleTree(block, ""))
	if f := loadable.failing("TUN-05", "sit"); len(f) != 0 {
		t.Errorf("TUN-05 blames a loadable, blocked module: %+v", f)
	}
}

// sysctl.d separates path elements by dots, and so do VLAN interface names.
func TestDottedInterfaceNames(t *testing.T) {
	t.Parallel()
	files := map[string]string{"/etc/os-release": "ID=debian\n", "/usr/lib/systemd/systemd-sysctl": "", "/etc/sysctl.d/10-vlan.conf": "net.ipv6.conf.eth0.100.accept_ra = 0\n"}
	if bad := tree(t, files); len(bad.failing("INV-10", "eth0.100")) == 0 {
		t.Errorf("INV-10 does not blame conf.eth0.100: %+v", bad.find("INV-10", finding.Subject{}))
	}
	files["/etc/sysctl.d/10-vlan.conf"] = "net/ipv6/conf/eth0.100/accept_ra = 0\n"
	if good := tree(t, files); len(good.failing("INV-10", "eth0.100")) != 0 {
		t.Errorf("INV-10 blames the form that works: %+v", good.failing("INV-10", "eth0.100"))
	}

	// The kernel and sysctl(8), on an interface with such a name (this kernel may
	// lack VLANs; the name is what counts).
	p := testlab.NewPair(t, "vlan")
	p.Victim.IP("link", "add", "v0.100", "type", "veth", "peer", "name", "v1")
	p.Victim.IP("link", "set", "v0.100", "up")
	sysctl := testlab.RequireTool(t, "sysctl")
	if out, err := p.Victim.Command(sysctl, "-w", "net.ipv6.conf.v0.100.accept_ra=0").CombinedOutput(); err == nil {
		t.Errorf("sysctl took the dotted form: %s", out)
	}
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-01", on("v0.100"), finding.Fail)
	}
	p.Victim.Run(sysctl, "-w", "net/ipv6/conf/v0.100/accept_ra=0")
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-01", on("v0.100"), finding.Pass)
	}
}

// A directory tree has no kernel: what needs one is unknown with one shared gap and
// does not by itself cause exit 3.
func TestRootNeedsNoKernel(t *testing.T) {
	t.Parallel()
	v := tree(t, moduleTree("", ""))
	shared := 0
	for _, g := range v.Gaps {
		if g.Shared {
			shared++
		}
	}
	if shared != 1 {
		t.Errorf("%d shared gaps, want one", shared)
	}
	for _, f := range v.Findings {
		if f.Control == "SYSCTL-RA-01" && f.Effective != finding.Unknown {
			t.Errorf("SYSCTL-RA-01 is %s without a kernel", f.Effective)
		}
	}
}
