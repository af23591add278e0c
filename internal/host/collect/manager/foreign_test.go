package manager

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// holder runs a program in a mount namespace of its own that a script made.
func holder(t *testing.T, script string) int {
	t.Helper()
	testlab.RequireRoot(t)
	c := exec.Command(testlab.RequireTool(t, "unshare"), "--mount", "--propagation", "private", "sh", "-ec", script+"\necho ready\nexec sleep 60")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	b := make([]byte, 6)
	if n, _ := out.Read(b); !strings.HasPrefix(string(b[:n]), "ready") {
		_ = c.Process.Kill()
		_ = c.Wait()
		testlab.CannotRun(t, "set up a mount namespace: %s", errs.String())
	}
	return c.Process.Pid
}

func decodeOn(t *testing.T, host map[string]string, ps []Process, init fact.NamespaceID) map[string]fact.Manager {
	t.Helper()
	var h fact.Host
	Read(writeTree(t, host), ps, init).Decode(&h)
	out := map[string]fact.Manager{}
	for _, m := range h.Managers.Or(nil) {
		out[m.Name+"@"+strconv.FormatUint(m.NetNS.Inode, 10)] = m
	}
	return out
}

// TestFileSystemThatNeverAnswers: whoever owns a mount namespace can make its
// files wait for ever, and a lookup that waits for FUSE cannot be ended; the audit
// does not look there and says so.
func TestFileSystemThatNeverAnswers(t *testing.T) {
	t.Parallel()
	// Nobody ever reads fd 3. /run is where networkd's state would be.
	pid := holder(t, "exec 3<>/dev/fuse\nmount -t tmpfs tmpfs /run\nmkdir /run/systemd\nmount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 x /run/systemd")
	init, other := fact.NamespaceID{Dev: 4, Inode: 1}, fact.NamespaceID{Dev: 4, Inode: 2}
	ms := decodeOn(t, map[string]string{"etc/dhcpcd.conf": "noipv6rs\n"}, []Process{{PID: pid, Name: "dhcpcd", NetNS: other, OwnRoot: true}}, init)
	m := ms["dhcpcd@2"]
	if len(m.Gaps) != 1 || m.Gaps[0].Reason != fact.UnsupportedGap || len(m.Interfaces) != 0 {
		t.Errorf("%+v", m)
	}
}

// TestWithin leaves behind who takes too long.
func TestWithin(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	defer close(never)
	if _, g := within(0, "it", func() (source, *fact.Gap) { <-never; return nothing{}, nil }); g == nil || g.Reason != fact.Truncated {
		t.Errorf("gap %v", g)
	}
	if src, g := within(time.Hour, "it", func() (source, *fact.Gap) { return nothing{}, nil }); g != nil || src == nil {
		t.Errorf("%v, gap %v", src, g)
	}
}

func TestWaiting(t *testing.T) {
	t.Parallel()
	line := func(point, fstype string) string {
		return "36 35 98:0 / " + point + " rw,noatime shared:1 master:2 - " + fstype + " /dev/x rw\n"
	}
	for in, want := range map[string]string{
		"": "",
		line("/", "ext4") + line("/proc", "proc"):              "",
		line("/", "overlay") + line("/etc/hosts", "ext4"):      "",
		line("/", "fuse.fuse-overlayfs"):                       "fuse.fuse-overlayfs",
		line("/", "ext4") + line("/etc/network/x", "fuse"):     "fuse",
		line("/", "ext4") + line("/mnt", "fuse"):               "",
		line("/", "ext4") + line("/etcetera", "nfs4"):          "",
		line("/", "ext4") + line("/usr", "nfs4"):               "nfs4",
		line("/", "ext4") + line("/run/user/1000/doc", "fuse"): "",
		line("/", "ext4") + line("/run/systemd", "autofs"):     "autofs",
		"nonsense\n": "unknown",
	} {
		if got := waiting(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestEachRootItsOwn: a manager in a container is judged by the files there.
func TestEachRootItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mustWrite(t, dir+"/dhcpcd.conf", "noipv6rs\n")
	pid := holder(t, "mount --bind "+dir+" /etc")
	init, other := fact.NamespaceID{Dev: 4, Inode: 1}, fact.NamespaceID{Dev: 4, Inode: 2}
	host := map[string]string{"etc/dhcpcd.conf": "# defaults\n"}
	takes := func(m fact.Manager) bool {
		mi, ok := settings(&m, "eth0", "veth")
		if !ok {
			t.Errorf("no settings: %+v", m)
		}
		return mi.AcceptRA.Or(true)
	}
	ms := decodeOn(t, host, []Process{{PID: pid, Name: "dhcpcd", NetNS: other, OwnRoot: true}, {PID: 1, Name: "dhcpcd", NetNS: init}}, init)
	if takes(ms["dhcpcd@2"]) || !takes(ms["dhcpcd@1"]) {
		t.Errorf("the container's %v (want false), the host's %v (want true)", takes(ms["dhcpcd@2"]), takes(ms["dhcpcd@1"]))
	}
	// A root that is gone: nothing is known of another namespace's files.
	ms = decodeOn(t, host, []Process{{PID: 1 << 30, Name: "dhcpcd", NetNS: other, OwnRoot: true}}, init)
	if m := ms["dhcpcd@2"]; len(m.Gaps) != 1 || len(m.Interfaces) != 0 {
		t.Errorf("%+v", m)
	}
	// In the initial namespace the host's files are the best there is.
	ms = decodeOn(t, host, []Process{{PID: 1 << 30, Name: "dhcpcd", NetNS: init, OwnRoot: true}}, init)
	if m := ms["dhcpcd@1"]; len(m.Gaps) != 1 || !takes(m) {
		t.Errorf("%+v", m)
	}
	// A namespace that could not be read counts as the initial one, with a gap.
	ms = decodeOn(t, host, []Process{{PID: 7, Name: "dhcpcd"}}, init)
	if m := ms["dhcpcd@1"]; len(m.Gaps) != 1 || m.Gaps[0].Reason != fact.Permission || !m.Running.Or(false) {
		t.Errorf("%+v", m)
	}
}

// TestRunningAndEnabled: left-over files must be recognisable as such.
func TestRunningAndEnabled(t *testing.T) {
	t.Parallel()
	host := map[string]string{
		"etc/dhcpcd.conf": "", "usr/lib/systemd/system/dhcpcd.service": "x",
		"etc/systemd/network/a.network":                                     "[Match]\nName=*\n",
		"etc/systemd/system/multi-user.target.wants/NetworkManager.service": "-> /x",
		"etc/systemd/system/NetworkManager.service":                         "-> /dev/null",
		"etc/NetworkManager/NetworkManager.conf":                            "[main]\n",
		"run/systemd/netif/links/2":                                         "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/a.network\n",
	}
	for name, c := range map[string]struct {
		ps   []Process
		want string
	}{
		"none runs": {[]Process{}, "false"},
		"one runs":  {[]Process{{PID: 3, Name: "systemd-networkd", NetNS: fact.NamespaceID{Inode: 1}}}, "true"},
	} {
		ms := decodeOn(t, host, c.ps, fact.NamespaceID{Inode: 1})
		for _, m := range ms {
			if m.Enabled.Or(true) {
				t.Errorf("%s: %s is said to be enabled", name, m.Name)
			}
		}
		m := ms["systemd-networkd@1"]
		if got := strconv.FormatBool(m.Running.Or(false)); got != c.want {
			t.Errorf("%s: networkd runs: %s", name, got)
		}
		indexed := false
		for _, mi := range m.Interfaces {
			indexed = indexed || mi.Index == 2
		}
		if indexed != (c.want == "true") {
			t.Errorf("%s: interfaces that a running networkd named: %v", name, indexed)
		}
		if len(ms) != 3 {
			t.Errorf("%s: %d managers", name, len(ms))
		}
	}
	if ms := decodeOn(t, nil, []Process{}, fact.NamespaceID{}); len(ms) != 0 {
		t.Errorf("an empty tree has managers: %v", ms)
	}
	// The host's own root, and nobody knows what runs.
	tr, err := tree.Host()
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	var h fact.Host
	Read(tr, nil, fact.NamespaceID{}).Decode(&h)
	for _, m := range h.Managers.Or(nil) {
		if m.Name == "dhcpcd" && m.Running.State() != fact.StateGap {
			t.Errorf("nobody listed processes, and dhcpcd is said to run: %v", m.Running)
		}
	}
}
