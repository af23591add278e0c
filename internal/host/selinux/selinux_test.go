package selinux

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/testlab"
)

// TestAsMatchpathcon compares with libselinux itself, on lines of the reference policy:
// testdata/file_contexts is the part of Debian's that is about network and boot.
func TestAsMatchpathcon(t *testing.T) {
	t.Parallel()
	tool := testlab.RequireTool(t, "matchpathcon")
	const file = "testdata/file_contexts"
	p, err := ReadFiles(file)
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{
		"/etc/sixfence/firewall.nft", "/etc/sixfence", "/etc/modprobe.d/00-sixfence.conf", "/etc/systemd/system/sixfence-firewall.service", "/etc/systemd/system/cockpit.x", "/etc/sysctl.d/99-zz-sixfence.conf",
		"/etc/systemd/network/10-eth0.network.d", "/etc/systemd/network/10-eth0.network.d/zz-sixfence.conf", "/etc/network/if-up.d/zz-sixfence", "/etc/network/if-up.d", "/etc/NetworkManager/conf.d/zz-sixfence.conf",
		"/etc/NetworkManager/system-connections/x.nmconnection", "/etc/NetworkManager/NetworkManager.conf", "/etc/NetworkManager/dispatcher.d/x", "/etc/netplan/zz-sixfence.yaml", "/etc/dhcpcd.conf", "/etc", "/", "/etc/shadow", "/etc/mtab", "/etc/mtab~1",
		"/usr/bin/sixfence", "/usr/sbin/nft", "/bin/nft", "/lib/systemd/system/x.service", "/var/lib/sixfence/undo/sixfence", "/home/x", "/run/NetworkManager/x", "/etc/init.d/x", "/lib64/x", "/libx/y", "/etc/hosts", "/etc/a.l2tp/x", "/etc/line\nbreak",
	}
	seen := map[string]bool{}
	for _, path := range paths {
		for _, k := range []struct {
			mode string
			kind uint32
		}{{"file", unix.S_IFREG}, {"dir", unix.S_IFDIR}} {
			out, err := exec.Command(tool, "-n", "-f", file, "-m", k.mode, path).CombinedOutput()
			want := strings.TrimSpace(string(out))
			if err != nil {
				t.Fatalf("matchpathcon %s: %v %s", path, err, out)
			}
			if want == "<<none>>" {
				want = ""
			}
			seen[want] = true
			if got := p.Label(path, k.kind); got != want {
				t.Errorf("%s (%s): %q, want %q", path, k.mode, got, want)
			}
		}
	}
	if len(seen) < 12 {
		t.Errorf("only %d labels: this shows little", len(seen))
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if p, err := Read(root); p != nil || err != nil || p.Label("/etc/x", unix.S_IFREG) != "" {
		t.Errorf("without SELinux: %v %v", p, err)
	}
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("/sys/fs/selinux/enforce", "1")
	if _, err := Read(root); err == nil {
		t.Error("SELinux without a configuration is no error")
	}
	write("/etc/selinux/config", "SELINUX=enforcing\n# SELINUXTYPE=x\nSELINUXTYPE=mls\n")
	if _, err := Read(root); err == nil {
		t.Error("SELinux without a policy is no error")
	}
	write("/etc/selinux/mls/contexts/files/file_contexts", "/etc/.* a:b:etc_t:s0\n/etc/x\t--\t<<none>>\n/etc/(?<=odd)y.* a:b:odd_t:s0\nnonsense\n")
	write("/etc/selinux/mls/contexts/files/file_contexts.local", "/etc/z.* a:b:mine_t:s0\n")
	p, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/etc/zz": "a:b:mine_t:s0", "/etc/x": "", "/usr/x": "", "/etc/a": ""} {
		if got := p.Label(path, unix.S_IFREG); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
