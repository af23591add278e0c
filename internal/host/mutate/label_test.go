package mutate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestFilesAreLabelled: what is staged and promoted has the label of the host's policy,
// and so have the directories made for it; a file of others keeps its own, and without
// SELinux nobody labels anything.
func TestFilesAreLabelled(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	for _, on := range []bool{true, false} {
		root := t.TempDir()
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
		write("/etc/x", "")
		if on {
			write("/sys/fs/selinux/enforce", "1")
		}
		write("/etc/selinux/config", "SELINUXTYPE=targeted\n")
		write("/etc/selinux/targeted/contexts/files/file_contexts", "/etc/.*\ts:o:etc_t:s0\n/etc/network/if-up\\.d/.*\t--\ts:o:initrc_exec_t:s0\n/etc/systemd/network(/.*)?\ts:o:net_conf_t:s0\n/usr/bin(/.*)?\ts:o:bin_t:s0\n")
		write("/etc/dhcpcd.conf", "theirs\n")
		if err := unix.Lsetxattr(root+"/etc/dhcpcd.conf", "security.selinux", []byte("s:o:theirs_t:s0\x00"), 0); err != nil {
			t.Fatalf("this file system keeps no labels: %v", err)
		}
		h := &Host{Root: root, Layer: &store.Layer{}}
		for path, want := range map[string]string{
			"/etc/network/if-up.d/zz-sixfence": "s:o:initrc_exec_t:s0", "/etc/sysctl.d/99-zz-sixfence.conf": "s:o:etc_t:s0",
			"/etc/systemd/network/a.network.d/zz-sixfence.conf": "s:o:net_conf_t:s0", "/etc/dhcpcd.conf": "s:o:theirs_t:s0",
		} {
			before, err := h.Image(path)
			if err != nil {
				t.Fatal(err)
			}
			after := change.Image{Text: "ours\n", Mode: 0o644, Label: before.Label}
			from, _ := h.Want(change.File, path, before)
			to, _ := h.Want(change.File, path, after)
			if err := h.Stage(path, "id", after); err != nil {
				t.Fatal(err)
			}
			if err := h.Promote(path, "id", from, to); err != nil {
				t.Fatal(err)
			}
			if !on && !strings.Contains(want, "theirs") {
				want = ""
			}
			if i, err := h.Image(path); err != nil || i.Label != want || i.Text != "ours\n" {
				t.Errorf("SELinux: %t: %s is %+v, %v; want %q", on, path, i, err, want)
			}
		}
		var label [64]byte
		n, err := unix.Lgetxattr(root+"/etc/systemd/network/a.network.d", "security.selinux", label[:])
		if on != (err == nil && strings.HasPrefix(string(label[:max(n, 0)]), "s:o:net_conf_t:s0")) {
			t.Errorf("SELinux: %t: the directory has %q, %v", on, label[:max(n, 0)], err)
		}
		if l, err := h.Label("/usr/bin/sixfence"); err != nil || on != (l == "s:o:bin_t:s0") {
			t.Errorf("SELinux: %t: a program is %q, %v", on, l, err)
		}
	}
}
