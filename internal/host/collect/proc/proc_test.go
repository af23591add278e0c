package proc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

func scan() *Table {
	return Scan(ask.New(func(string) bool { return true }, false), ask.NewBudget("test", time.Minute, 1<<30, 1<<40))
}

func ownersOf(t *testing.T, tab *Table, inode uint64) []int {
	t.Helper()
	k := tab.Owners(inode)
	pids, ok := k.Get()
	if !ok {
		g, _ := k.Gap()
		t.Fatalf("owners of %d: %v %v", inode, k.State(), g)
	}
	return pids
}

func TestEveryProcessThatHoldsASocketIsItsOwner(t *testing.T) {
	t.Parallel()
	ns := testlab.NewNS(t, "proc")
	pid, inode, child := actor(t, ns, "inherit")
	tab := scan()
	got := ownersOf(t, tab, inode)
	want := []int{pid, int(child)}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("owners %v, want %v", got, want)
	}
	// "Nobody holds it" is only known where every process could be read.
	none := fact.StateAbsent
	if !everyProcessReadable() {
		none = fact.StateGap
	}
	if k := tab.Owners(1<<63 + 1); k.State() != none {
		t.Errorf("a socket without a holder: %v, %v", k.State(), tab.Unseen())
	}
	list := []fact.Namespace{{Sockets: fact.Value([]fact.Socket{{Inode: inode, Owners: tab.Owners(inode)}})}}
	procs, _ := tab.Processes(list)
	all, ok := procs.Get()
	if !ok {
		t.Fatal(procs.Gap())
	}
	exe, _ := os.Executable()
	for _, want := range want {
		i := slices.IndexFunc(all, func(p fact.Process) bool { return p.PID == want })
		if i < 0 {
			t.Errorf("process %d is not listed", want)
			continue
		}
		p := all[i]
		if id, ok := p.NetNS.Get(); p.UID != 0 || p.Exe.Or("") != exe || !ok || id.Inode != ns.Inode() || p.Comm == "" || p.Flags != nil {
			t.Errorf("%+v", p)
		}
		if !p.Root { // ip netns exec makes a mount namespace
			t.Errorf("its root is ours: %+v", p)
		}
	}
	for _, p := range all {
		if p.PID == os.Getpid() {
			t.Error("a process without a listed socket is listed")
		}
	}
}

// everyProcessReadable looks with other means: a sandbox around the tests may
// keep some process to itself even from root.
func everyProcessReadable() bool {
	if s, err := os.Readlink("/proc/self/ns/pid"); err != nil || s != "pid:[4026531836]" {
		return false
	}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err != nil {
			continue
		}
		if _, err := os.Readlink("/proc/" + d.Name() + "/ns/net"); errors.Is(err, os.ErrPermission) {
			if _, err := os.Stat("/proc/" + d.Name() + "/status"); err == nil {
				return false
			}
		}
	}
	return true
}

// /proc/PID speaks for the first thread only.
func TestThreadsWithDescriptorsAndNamespacesOfTheirOwn(t *testing.T) {
	t.Parallel()
	ns := testlab.NewNS(t, "proc")
	pid, inode, inside := actor(t, ns, "thread")
	tab := scan()
	if got := ownersOf(t, tab, inode); !slices.Equal(got, []int{pid}) {
		t.Errorf("owners %v, want %d", got, pid)
	}
	nets := tab.Networks()
	i := slices.IndexFunc(nets, func(n Network) bool { return n.Inode == inside })
	if i < 0 || nets[i].Users != 1 || nets[i].Handles[0].PID != pid {
		t.Fatalf("the thread's namespace: %+v", nets)
	}
	var st unix.Stat_t
	if err := unix.Stat(nets[i].Handles[0].Path(), &st); err != nil || st.Ino != inside {
		t.Errorf("the handle leads to %d (%v), want %d", st.Ino, err, inside)
	}
	h, _ := tab.Holder(inode)
	if h.Task == h.PID {
		t.Errorf("holder %+v: the socket is in a thread's own table", h)
	}
	if p, err := h.Protocol(); err != nil || p != "UDPv6" {
		t.Errorf("protocol %q, %v", p, err)
	}
}

// A descriptor opened below /run/netns reads "/" once the name is deleted.
func TestNamespaceKeptByADescriptorAlone(t *testing.T) {
	t.Parallel()
	ns := testlab.NewNS(t, "proc")
	kept := testlab.NewNS(t, "proc")
	pid, inode, _ := actor(t, ns, "detached", "SIXFENCE_TEST_PATH=/run/netns/"+kept.Name)
	if inode != kept.Inode() {
		t.Fatalf("opened %d, want %d", inode, kept.Inode())
	}
	if out, err := exec.Command("ip", "netns", "del", kept.Name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, n := range scan().Networks() {
		if n.Inode == inode && slices.ContainsFunc(n.Handles, func(h Handle) bool { return h.PID == pid && h.FD >= 0 }) {
			return
		}
	}
	t.Error("the namespace was not seen")
}

// What the program tries in namespaces of its own is no part of the host; the same of
// somebody else's is.
func TestOwnHelpersAreNotTheHost(t *testing.T) {
	t.Parallel()
	const say = "readlink /proc/self/ns/net; unshare -n sh -c 'readlink /proc/self/ns/net; exec cat'"
	inodes := func(r io.Reader) (out []uint64) {
		t.Helper()
		for lines := bufio.NewScanner(r); len(out) < 2 && lines.Scan(); {
			var n uint64
			if _, err := fmt.Sscanf(lines.Text(), "net:[%d]", &n); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			out = append(out, n)
		}
		if len(out) != 2 {
			t.Fatal("it did not start")
		}
		return out
	}
	a, err := run.StartApart(run.Program{Path: "/bin/sh", Args: []string{"-c", say}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	c := exec.Command("unshare", "-n", "sh", "-c", say)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = c.Wait() }()
	ours, theirs := inodes(a.Out), inodes(out)
	seen := map[uint64]bool{}
	for _, n := range scan().Networks() {
		seen[n.Inode] = true
	}
	for i := range 2 {
		if seen[ours[i]] || !seen[theirs[i]] {
			t.Errorf("namespace %d: ours seen %v, theirs seen %v", i, seen[ours[i]], seen[theirs[i]])
		}
	}
}

func TestOthersProcessesAreAGapNotAbsent(t *testing.T) {
	t.Parallel()
	ns := testlab.NewNS(t, "proc")
	_, inode, _ := actor(t, ns, "inherit")
	// A copy that nobody may execute.
	dir, err := os.MkdirTemp("/var/tmp", "sixfence-proc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := dir + "/scan"
	copySelf(t, exe)
	c := exec.Command(exe)
	c.Env = []string{"SIXFENCE_TEST_ROLE=scan", "SIXFENCE_TEST_INODE=" + strconv.FormatUint(inode, 10)}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got struct {
		Owners fact.Known[[]int]          `json:"owners"`
		Procs  fact.Known[[]fact.Process] `json:"procs"`
		Gaps   []fact.Gap                 `json:"gaps"`
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if g, ok := got.Owners.Gap(); !ok || g.Reason != fact.Permission {
		t.Errorf("owners of root's socket, seen by nobody: %v %v", got.Owners.State(), g)
	}
	if !slices.ContainsFunc(got.Gaps, func(g fact.Gap) bool { return g.Reason == fact.Permission }) {
		t.Errorf("gaps %v", got.Gaps)
	}
}

// copySelf uses cp: a descriptor of ours open for writing would leak into other
// children.
func copySelf(t *testing.T, to string) {
	t.Helper()
	if out, err := exec.Command("cp", fmt.Sprintf("/proc/%d/exe", os.Getpid()), to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestDaemonsOfRootAndTheirFlags(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	dir, err := os.MkdirTemp("/var/tmp", "sixfence-proc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := dir + "/dockerd"
	copySelf(t, exe)
	start := func(uid uint32) int {
		runtime.LockOSThread()
		c := exec.Command(exe, "--ipv6", "--ip6tables=false", "--registry-token", "SECRET-TOKEN")
		c.Env = []string{"SIXFENCE_TEST_ROLE=sleep", "PASSWORD=SECRET-ENV"}
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		})
		return c.Process.Pid
	}
	roots, users := start(0), start(65534)
	tab := scan()
	var found []int
	for _, d := range tab.Daemons() {
		if d.PID == roots || d.PID == users {
			found = append(found, d.PID)
			if d.Name != "dockerd" || d.OwnRoot || d.NetNS.State() != fact.StateValue {
				t.Errorf("%+v", d)
			}
		}
	}
	if !slices.Equal(found, []int{roots}) {
		t.Errorf("daemons %v; root's is %d, the one that nobody calls dockerd %d", found, roots, users)
	}
	procs, _ := tab.Processes(nil)
	all, _ := procs.Get()
	i := slices.IndexFunc(all, func(p fact.Process) bool { return p.PID == roots })
	if i < 0 || len(all[i].Flags) != 2 || all[i].Flags["ipv6"] != "true" || all[i].Flags["ip6tables"] != "false" {
		t.Fatalf("%+v", all)
	}
	out, err := json.Marshal(all)
	if err != nil || strings.Contains(string(out), "SECRET") {
		t.Errorf("a secret left the process (%v): %s", err, out)
	}
}

func TestBudgetIsAGap(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]*ask.Budget{"objects": ask.NewBudget("test", time.Minute, 10, 1<<30), "time": ask.NewBudget("test", 0, 1<<30, 1<<30)} {
		tab := Scan(ask.New(func(string) bool { return true }, false), b)
		if g := tab.Unseen(); g == nil || g.Reason != fact.Truncated {
			t.Errorf("%s: %v", name, g)
		}
		if k := tab.Owners(1 << 63); k.State() != fact.StateGap {
			t.Errorf("%s: an owner that was not looked for is %v", name, k.State())
		}
	}
}

func TestSocketTellsItsNamespaceAndOptions(t *testing.T) {
	t.Parallel()
	ns := testlab.NewNS(t, "proc")
	_, inode, _ := actor(t, ns, "inherit")
	tab := scan()
	h, ok := tab.Holder(inode)
	if !ok {
		t.Fatal("no holder")
	}
	if p, err := h.Protocol(); err != nil || p != "TCPv6" && p != "MPTCPv6" {
		t.Errorf("protocol %q, %v", p, err)
	}
	s, err := h.Duplicate()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fd, err := s.NetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != ns.Inode() {
		t.Errorf("namespace %d (%v), want %d", st.Ino, err, ns.Inode())
	}
	if !s.Listening().Or(false) || !s.V6Only().Or(false) {
		t.Errorf("listening %v, v6only %v", s.Listening(), s.V6Only())
	}
	if v6, index := tab.Options(inode); !v6.Or(false) || index.Or(-1) != 0 {
		t.Errorf("options %v %v", v6, index)
	}
	h.Inode++
	if _, err := h.Protocol(); err != ErrSwapped {
		t.Errorf("another inode: %v", err)
	}
	if _, err := h.Duplicate(); err != ErrSwapped {
		t.Errorf("another inode: %v", err)
	}
}

func TestCgroups(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct{ in, path, unit, container string }{
		{"0::/system.slice/ssh.service\n", "/system.slice/ssh.service", "ssh.service", ""},
		{"12:cpu:/\n1:name=systemd:/system.slice/nginx.service\n0::/\n", "/system.slice/nginx.service", "nginx.service", ""},
		{"4:memory:/x\n0::/\n", "/x", "", ""},
		{"0::/\n", "/", "", ""},
		{"0::/system.slice/docker-" + id + ".scope\n", "/system.slice/docker-" + id + ".scope", "docker-" + id + ".scope", id},
		{"1:name=systemd:/docker/" + id + "\n", "/docker/" + id, "", id},
		{"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope\n", "/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope", "cri-containerd-" + id + ".scope", id},
		{"0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:" + id + "\n", "/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:" + id, "containerd.service", id},
		{"0::/machine.slice/libpod-" + id + ".scope/container\n", "/machine.slice/libpod-" + id + ".scope/container", "libpod-" + id + ".scope", id},
		{"0::/machine.slice/libpod-conmon-" + id + ".scope\n", "/machine.slice/libpod-conmon-" + id + ".scope", "libpod-conmon-" + id + ".scope", ""},
		{"0::/crio-" + strings.ToUpper(id) + ".scope\n", "/crio-" + strings.ToUpper(id) + ".scope", "crio-" + strings.ToUpper(id) + ".scope", ""},
		{"0::/a:b/c.socket\n", "/a:b/c.socket", "c.socket", ""},
		{"", "", "", ""},
		{"garbage\n0::\n", "", "", ""},
	} {
		if p, u, i := splitCgroup([]byte(c.in)); p != c.path || u != c.unit || i != c.container {
			t.Errorf("%q: %q %q %q", c.in, p, u, i)
		}
	}
}

func TestFlagsAreAnAllowList(t *testing.T) {
	t.Parallel()
	line := strings.Join([]string{"/usr/bin/dockerd", "--ipv6", "--ip6tables=false", "--registry-token", "SECRET", "-H", "unix:///x", "--userland-proxy=true", "--fixed-cidr-v6", "fd00::/64", "--", "--iptables=false", ""}, "\x00")
	got := parseFlags([]byte(line), flagsOf("dockerd"))
	want := map[string]string{"ipv6": "true", "ip6tables": "false", "userland-proxy": "true", "fixed-cidr-v6": "fd00::/64"}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %q, want %q", k, got[k], v)
		}
	}
	if got := parseFlags([]byte("kubelet\x00--node-ip=::1\x00--node-ip=::2\x00--config="+strings.Repeat("x", maxFlagValue+1)), flagsOf("kubelet")); len(got) != 1 || got["node-ip"] != "::2" {
		t.Errorf("%v", got)
	}
	if flagsOf("sshd") != nil {
		t.Error("sshd has no flags to read")
	}
}

// A process can keep a reader of its memory waiting for ever.
func TestAReaderThatHangsIsAbandoned(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	defer close(stop)
	if _, ok := patiently(time.Millisecond, func() []byte { <-stop; return nil }); ok {
		t.Error("it came back")
	}
	if b, ok := patiently(time.Minute, func() []byte { return []byte("x") }); !ok || string(b) != "x" {
		t.Error("an answer was lost")
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	c := parseStatus(7, []byte("Name:\ta\\nUid:\t5\nUmask:\t0022\nUid:\t1000\t0\t0\t0\nThreads:\t3\nUid:\t9\n"))
	if c.pid != 7 || c.uid != 1000 || c.threads != 3 || c.comm != `a\nUid:	5` {
		t.Errorf("%+v", c)
	}
	if c := parseStatus(7, []byte("Name:\tx\n")); c.threads < 2 || !isUser(c.uid) {
		t.Errorf("what is not understood is a stranger with threads: %+v", c)
	}
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if c := parseStatus(7, raw); c.uid != uint32(os.Getuid()) || c.threads < 2 {
		t.Errorf("%+v", c)
	}
}

func TestListing(t *testing.T) {
	t.Parallel()
	var l listing
	fd, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	names, more, err := l.numbers(fd, nil, 1000)
	if err != nil || more || !slices.Contains(names, int32(fd)) || !slices.Contains(names, 0) {
		t.Errorf("%v %v %v", names, more, err)
	}
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		t.Fatal(err)
	}
	if names, more, err := l.numbers(fd, nil, 2); err != nil || !more || len(names) != 2 {
		t.Errorf("%v %v %v", names, more, err)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("0::/system.slice/ssh.service\n"))
	f.Add([]byte("Name:\tx\nUid:\t0\t0\t0\t0\nThreads:\t1\n"))
	f.Add([]byte("dockerd\x00--ipv6\x00--ip\x00::1\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x18\x00\x0412\x00\x00\x00"))
	f.Add([]byte("socket:[123]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path, unit, container := splitCgroup(b)
		if len(path) > maxPath || len(unit) > len(path) || len(container) != 0 && len(container) != 64 {
			t.Fatalf("%q %q %q", path, unit, container)
		}
		if c := parseStatus(1, b); len(c.comm) > 64 {
			t.Fatalf("%+v", c)
		}
		for k, v := range parseFlags(b, flagsOf("dockerd")) {
			if len(v) > maxFlagValue || k == "" {
				t.Fatalf("%q %q", k, v)
			}
		}
		if n := direntNumbers(b, nil); len(n) > len(b)/19 {
			t.Fatal(n)
		}
		if v, ok := bracketed(b, linkSocket); ok && strings.TrimLeft(string(b), "socket:[0") != strings.TrimLeft(strconv.FormatUint(v, 10)+"]", "0") {
			t.Fatalf("%q is %d", b, v)
		}
	})
}
