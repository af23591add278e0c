package testlab

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Machine is a host that boots a real systemd as its PID 1, in namespaces of its own:
// user, mount, pid, network, uts, ipc and cgroup. It has the programs of this machine,
// read-only, and an /etc, a /var, a /root and a /usr/local of its own, which outlive a
// reboot. Everything else is fresh at each boot.
//
// A systemd that can write outside of its machine destroys what it finds: it empties
// /tmp. So the mounts are made first, by a process that becomes systemd only after the
// test has read them from outside and found nothing else.
type Machine struct {
	t      testing.TB
	dir    string // what outlives a reboot
	cgroup string // of this boot, on the host
	cmd    *exec.Cmd
	ended  chan struct{}
	wire   []func(pid int)
	out    *lockedBuffer
	disk   *disk  // nil: what is written outlives every cut
	init   string // a script of the Machine that is its PID 1, instead of systemd
	hide   []string
}

// machineLife bounds one boot.
const machineLife = 4 * time.Minute

// kept are the directories of a Machine that outlive a reboot.
var kept = []string{"/etc", "/var", "/root", "/usr/local"}

// devices are those of the host that a Machine may open: none that keeps anything.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// startable are the units of systemd's own wants that a Machine starts. Every other one
// is masked: in a namespace they are of no use, or would destroy (tmpfiles).
var startable = []string{
	"systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-sysctl.service", "systemd-modules-load.service",
}

// NewMachine makes a Machine with these files (by their path in it) and what any Debian
// has. It is not booted yet.
func NewMachine(t testing.TB, files map[string]string) *Machine {
	t.Helper()
	RequireRoot(t)
	shareHost(t)
	RequireTool(t, "systemd")
	RequireTool(t, "nsenter")
	m := &Machine{t: t, dir: t.TempDir()}
	if err := os.Chmod(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range kept {
		if err := os.MkdirAll(m.Path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives"} {
		if _, err := os.Lstat("/etc/" + f); err == nil {
			run(t, "cp", "-a", "/etc/"+f, m.Path("/etc/"))
		}
	}
	m.Write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
	m.Write("/etc/group", "root:x:0:\nadm:x:4:\ntty:x:5:\nsystemd-journal:x:101:\nnogroup:x:65534:\n")
	m.Write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
	m.Write("/etc/hostname", "machine\n")
	m.Write("/etc/hosts", "127.0.0.1 localhost machine\n::1 localhost\n")
	m.Write("/etc/fstab", "")
	var id [16]byte
	_, _ = rand.Read(id[:])
	m.Write("/etc/machine-id", hex.EncodeToString(id[:])+"\n")
	m.Write("/etc/systemd/journald.conf", "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRuntimeMaxUse=16M\nRateLimitIntervalSec=0\n")
	m.Write("/etc/systemd/system.conf", "[Manager]\nDefaultTimeoutStartSec=60s\nDefaultTimeoutStopSec=10s\nLogLevel=info\n")
	m.link("/var/run", "/run")
	m.link("/var/lock", "/run/lock")
	m.link("/etc/os-release", "../usr/lib/os-release")
	m.link("/etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target")
	wants, _ := filepath.Glob("/usr/lib/systemd/system/*.wants/*")
	for _, w := range append(wants, "systemd-tmpfiles-setup.service", "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-clean.service", "systemd-tmpfiles-clean.timer",
		"systemd-udevd.service", "systemd-remount-fs.service", "ifupdown-pre.service") {
		if name := filepath.Base(w); !slices.Contains(startable, name) && !strings.HasSuffix(name, ".target") {
			m.link("/etc/systemd/system/"+name, "/dev/null")
		}
	}
	generators, _ := filepath.Glob("/usr/lib/systemd/system-generators/*")
	for _, g := range generators {
		m.link("/etc/systemd/system-generators/"+filepath.Base(g), "/dev/null")
	}
	for name, text := range files {
		m.Write(name, text)
	}
	return m
}

// bootedFile is made by the script of Script when all is up.
const bootedFile = "/run/booted"

// Script makes a script of the Machine its PID 1: no systemd runs. It makes /run/booted
// when all is up, and must not end. Of the programs of the host those in hide are not
// there.
func (m *Machine) Script(text string, hide ...string) {
	m.t.Helper()
	const name = "/etc/lab-init"
	m.Write(name, text)
	m.init, m.hide = name, hide
	if err := os.RemoveAll(m.Path("/etc/systemd")); err != nil {
		m.t.Fatal(err)
	}
}

func (m *Machine) bootScript() {
	m.t.Helper()
	end := time.Now().Add(90 * time.Second)
	for m.Command("test", "-e", bootedFile).Run() != nil {
		if time.Now().After(end) || !m.Alive() {
			m.t.Fatalf("the machine did not come up\n%s", tail(m.out.String(), 3000))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Path is where a file of the Machine (below /etc, /var, /root or /usr/local) lies on
// the host.
func (m *Machine) Path(name string) string {
	if !slices.ContainsFunc(kept, func(d string) bool { return name == d || strings.HasPrefix(name, d+"/") }) {
		m.t.Fatalf("%s: a machine keeps %v only", name, kept)
	}
	return m.dir + name
}

// Write writes a file of the Machine; a script ("#!…") may be executed.
func (m *Machine) Write(name, text string) {
	m.t.Helper()
	p := m.Path(name)
	mode := os.FileMode(0o644)
	if strings.HasPrefix(text, "#!") {
		mode = 0o755
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// Install copies a program of the host into the Machine.
func (m *Machine) Install(from, name string) {
	m.t.Helper()
	p := m.Path(name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		m.t.Fatal(err)
	}
	run(m.t, "install", "-m", "755", from, p)
}

// Enable enables a unit, as systemctl does.
func (m *Machine) Enable(unit string) {
	m.t.Helper()
	run(m.t, "systemctl", "--root="+m.enableRoot(), "enable", unit)
}

// Bus lets the Machine have a system bus, with the users that who speaks on it needs.
func (m *Machine) Bus() {
	m.t.Helper()
	for _, u := range []string{"dbus.socket", "dbus.service"} {
		if err := os.Remove(m.Path("/etc/systemd/system/" + u)); err != nil && !os.IsNotExist(err) {
			m.t.Fatal(err)
		}
	}
	m.Write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:990:990::/nonexistent:/usr/sbin/nologin\nsystemd-network:x:991:991::/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
	m.Write("/etc/group", "root:x:0:\nadm:x:4:\ntty:x:5:\nnetdev:x:6:\nsystemd-journal:x:101:\nmessagebus:x:990:\nsystemd-network:x:991:\nnogroup:x:65534:\n")
	m.link("/etc/systemd/system/sockets.target.wants/dbus.socket", "/usr/lib/systemd/system/dbus.socket")
}

// enableRoot is a tree in which systemctl finds the units of both.
func (m *Machine) enableRoot() string {
	root := m.dir + "/tree"
	if _, err := os.Lstat(root); err != nil {
		if err := os.MkdirAll(root+"/usr/lib/systemd", 0o755); err != nil {
			m.t.Fatal(err)
		}
		for name, to := range map[string]string{root + "/etc": "../etc", root + "/lib": "usr/lib"} {
			if err := os.Symlink(to, name); err != nil {
				m.t.Fatal(err)
			}
		}
		run(m.t, "cp", "-a", "/usr/lib/systemd/system", root+"/usr/lib/systemd/")
	}
	return root
}

func (m *Machine) link(name, to string) {
	m.t.Helper()
	p := m.Path(name)
	_ = os.MkdirAll(filepath.Dir(p), 0o755)
	if err := os.Symlink(to, p); err != nil && !os.IsExist(err) {
		m.t.Fatal(err)
	}
}

// Wire makes a veth pair at each boot: ifname in the Machine, peer in the namespace.
func (m *Machine) Wire(ifname string, ns *NS, peer string) {
	m.wire = append(m.wire, func(pid int) {
		// That of the boot before goes a moment after its machine.
		_ = exec.Command("ip", "-n", ns.Name, "link", "del", peer).Run()
		Eventually(m.t, 30*time.Second, "the former "+peer+" to go", func() bool {
			return exec.Command("ip", "-n", ns.Name, "link", "show", "dev", peer).Run() != nil
		})
		ns.IP("link", "add", peer, "type", "veth", "peer", "name", ifname, "netns", strconv.Itoa(pid))
		ns.IP("link", "set", peer, "up")
	})
}

// stage is what the process is told that becomes systemd.
type stage struct {
	Init    string
	Hide    []string
	Dir     string
	Devices []string
	MountNS string // of the test: not to be found here
	Leak    string // for the test of the look: a directory that is wrongly left writable
}

// Start starts the Machine and waits for nothing.
func (m *Machine) Start() {
	m.t.Helper()
	if err := m.start(stage{}); err != nil {
		m.t.Fatalf("boot machine: %v", err)
	}
}

// Boot starts the Machine and waits until every unit has started.
func (m *Machine) Boot() {
	m.t.Helper()
	m.Start()
	if m.init != "" {
		m.bootScript()
		return
	}
	state := ""
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, _ := m.Command("systemctl", "is-system-running").Output()
		state = strings.TrimSpace(string(out))
		if state == "running" {
			return
		}
		if state == "degraded" || time.Now().After(end) || !m.Alive() {
			break
		}
	}
	failed, _ := m.Command("systemctl", "--no-pager", "--failed").CombinedOutput()
	log, _ := m.Command("journalctl", "--no-pager", "-b", "-n", "60").CombinedOutput()
	m.t.Fatalf("the machine is %q, not running\n%s\n%s\n%s", state, failed, log, tail(m.out.String(), 3000))
}

// start makes the process, looks at it, and lets it become systemd.
func (m *Machine) start(s stage) error {
	if m.cmd != nil {
		m.t.Fatal("the machine runs already")
	}
	var err error
	s.Dir, s.Devices, s.Init, s.Hide = m.dir, devices, m.init, m.hide
	if s.MountNS, err = os.Readlink("/proc/self/ns/mnt"); err != nil {
		return err
	}
	if m.cgroup, err = newCgroup(); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	group, err := os.Open(m.cgroup)
	if err != nil {
		return err
	}
	defer group.Close()
	told, err := json.Marshal(s)
	if err != nil {
		return err
	}
	goR, goW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer goR.Close()
	defer goW.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer readyR.Close()
	m.out = &lockedBuffer{}
	c := exec.Command("/proc/self/exe")
	c.Args = []string{"sixfence-machine"}
	c.Env = []string{stageEnv + "=" + string(told)}
	c.ExtraFiles = []*os.File{goR, readyW}
	c.Stdout, c.Stderr = m.out, m.out
	all := []syscall.SysProcIDMap{{Size: 1 << 31}}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
		UseCgroupFD: true, CgroupFD: int(group.Fd()), Pdeathsig: unix.SIGKILL, Setsid: true,
	}
	// The child dies with the thread that made it: that one waits for its end.
	begun, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := c.Start()
		begun <- err
		if err == nil {
			_ = c.Wait()
		}
		close(ended)
		runtime.UnlockOSThread()
	}()
	if err := <-begun; err != nil {
		readyW.Close()
		return fmt.Errorf("start the process that becomes systemd: %w", err)
	}
	m.cmd, m.ended = c, ended
	end := sync.OnceFunc(func() { _ = c.Process.Kill() })
	bomb := time.AfterFunc(machineLife, end)
	m.t.Cleanup(func() {
		bomb.Stop()
		if m.cmd == c {
			m.end()
		}
	})
	readyW.Close()
	said := make([]byte, 1)
	_ = readyR.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(readyR, said); err != nil {
		m.end()
		return fmt.Errorf("the process that becomes systemd ended early: %s", tail(m.out.String(), 2000))
	}
	if err := m.look(); err != nil {
		m.end()
		return err
	}
	for _, w := range m.wire {
		w(c.Process.Pid)
	}
	_, err = goW.Write([]byte("g"))
	return err
}

// look reads from outside what the process can reach, before it becomes systemd.
func (m *Machine) look() error {
	pid := strconv.Itoa(m.cmd.Process.Pid)
	for _, ns := range []string{"user", "mnt", "pid", "net", "uts", "ipc", "cgroup"} {
		mine, err1 := os.Readlink("/proc/self/ns/" + ns)
		its, err2 := os.Readlink("/proc/" + pid + "/ns/" + ns)
		if err1 != nil || err2 != nil || mine == its {
			return fmt.Errorf("look: the %s namespace is not its own (%s, %s; %w, %w)", ns, mine, its, err1, err2)
		}
	}
	b, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return fmt.Errorf("look: %w", err)
	}
	return judgeMounts(string(b), m.cgroup, func(at, file string) bool {
		there, err1 := os.Stat("/proc/" + pid + "/root" + at)
		here, err2 := os.Stat(file)
		return err1 == nil && err2 == nil && os.SameFile(there, here)
	}, m.dir)
}

// judgeMounts tells whether a list of mounts has nothing that is writable but what is
// the machine's own. same tells whether a file of it is one of the host.
func judgeMounts(info, cgroup string, same func(at, file string) bool, dir string) error {
	want := map[string]bool{}
	for _, d := range append([]string{"/", "/usr", "/proc", "/proc/sys", "/proc/sys/net", "/sys", "/sys/fs/cgroup", "/dev", "/run", "/tmp"}, kept...) {
		want[d] = false
	}
	for line := range strings.Lines(info) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+4 {
			return fmt.Errorf("look: %q is not understood", line)
		}
		root, at, options, optional, typ := f[3], f[4], strings.Split(f[5], ","), f[6:dash], f[dash+1]
		if len(optional) > 0 {
			return fmt.Errorf("look: %s is not private (%v)", at, optional)
		}
		want[at] = true
		own := false
		switch dev, isDev := strings.CutPrefix(at, "/dev/"); {
		case slices.Contains(options, "ro"):
			own = true
		case typ == "tmpfs" && f[dash+2] == machineTmpfs:
			own = root == "/"
		case slices.Contains(kept, at):
			own = same(at, dir+at)
		case isDev && slices.Contains(devices, dev):
			own = same(at, at)
		case at == "/dev/pts":
			own = typ == "devpts"
		case at == "/proc", at == "/proc/sys/net":
			own = typ == "proc"
		case at == "/sys/fs/cgroup":
			own = typ == "cgroup2" && strings.HasSuffix(cgroup, root) && len(root) > 1
		}
		if !own {
			return fmt.Errorf("look: %s is writable, and not the machine's own: %s", at, strings.TrimSpace(line))
		}
	}
	for at, seen := range want {
		if !seen {
			return fmt.Errorf("look: nothing is mounted on %s", at)
		}
	}
	return nil
}

// newCgroup makes a group of its own in the unified hierarchy.
func newCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if i := slices.Index(f, "-"); i > 0 && f[i+1] == "cgroup2" {
			var r [4]byte
			_, _ = rand.Read(r[:])
			d := f[4] + "/sf-machine-" + hex.EncodeToString(r[:])
			return d, os.Mkdir(d, 0o755)
		}
	}
	return "", fmt.Errorf("no cgroup2 is mounted here, and systemd cannot do without")
}

// removeCgroup removes a group whose processes are dead, and those in it.
func removeCgroup(d string) {
	for range 200 {
		_ = filepath.WalkDir(d, func(p string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() && p != d {
				_ = os.Remove(p) // those in it first fail, and go in a later round
			}
			return nil
		})
		if err := os.Remove(d); err == nil || os.IsNotExist(err) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// PID is the host's number of the Machine's systemd.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Alive tells whether it runs.
func (m *Machine) Alive() bool {
	if m.cmd == nil {
		return false
	}
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// PowerCut ends every process of the Machine at once. What they wrote is kept, or, if it is
// OnDisk, what of it had reached the disk.
func (m *Machine) PowerCut() {
	switch {
	case m.cmd == nil:
	case m.disk != nil && m.Alive():
		m.cut()
	default:
		m.end()
	}
}

func (m *Machine) end() {
	_ = m.cmd.Process.Kill() // the namespace's PID 1: the kernel ends all with it
	<-m.ended
	m.cmd = nil
	removeCgroup(m.cgroup)
}

// Command prepares a command in the Machine, as root at its console.
func (m *Machine) Command(name string, args ...string) *exec.Cmd {
	c := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.PID()), "--user", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", name}, args...)...)
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "TERM=dumb", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"}
	return c
}

// Run runs a command in the Machine; failure ends the test.
func (m *Machine) Run(name string, args ...string) string {
	m.t.Helper()
	c := m.Command(name, args...)
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		m.t.Fatalf("in the machine: %v: %v\n%s%s", append([]string{name}, args...), err, out, complaint.String())
	}
	return string(out)
}

// Show is a property of a unit, as systemctl shows it.
func (m *Machine) Show(unit, property string) string {
	m.t.Helper()
	return strings.TrimSpace(m.Run("systemctl", "show", "--value", "-p", property, unit))
}
