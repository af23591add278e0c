package sandbox_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/host/sandbox"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// Sealing cannot be undone, so each test runs this binary again as a child, which
// does one thing, prints one line of JSON and waits until it may go.
const childEnv = "SIXFENCE_SANDBOX_CHILD"

var children = map[string]func(args []string) any{
	"seal":       childSeal,
	"collecting": childCollecting,
	"without":    childWithout,
	"listen":     childListen,
	"collect":    childCollect,
}

func TestMain(m *testing.M) {
	if f := children[os.Getenv(childEnv)]; f != nil {
		out := f(os.Args[1:])
		b, err := json.Marshal(out)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(b))
		_, _ = io.ReadAll(os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is a running copy of this binary that has done its thing.
type child struct {
	pid int
}

func start(t *testing.T, out any, cmd *exec.Cmd, name string) child {
	t.Helper()
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("child %s: %v\n%s", name, err, stderr.String())
	}
	if err := json.Unmarshal(line, out); err != nil {
		t.Fatalf("child %s said %q: %v", name, line, err)
	}
	return child{cmd.Process.Pid}
}

func self(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(exe, args...)
}

// status reads a field of /proc/PID/task/*/status of every thread.
func (c child) status(t *testing.T, field string) []string {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", c.pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no thread of %d: %v", c.pid, err)
	}
	var out []string
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(l, field+":"); ok {
				out = append(out, strings.TrimSpace(v))
			}
		}
	}
	if len(out) != len(tasks) {
		t.Fatalf("%s: %d values of %d threads", field, len(out), len(tasks))
	}
	return out
}

func (c child) every(t *testing.T, field, want string) {
	t.Helper()
	got := c.status(t, field)
	for _, v := range got {
		if strings.TrimLeft(v, "0") != strings.TrimLeft(want, "0") {
			t.Errorf("%s on the threads: %v; want %s on each", field, got, want)
			return
		}
	}
}

// threads makes OS threads in every state the runtime knows: blocked in a system
// call, locked inside another network namespace, parked.
func threads(namespaces bool) {
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		var p [2]int
		err := unix.Pipe(p[:])
		ready <- err
		var b [1]byte
		_, _ = unix.Read(p[0], b[:]) // never returns
	}()
	for range 2 {
		go func() {
			runtime.LockOSThread()
			var err error
			if namespaces {
				err = unix.Unshare(unix.CLONE_NEWNET)
			}
			ready <- err
			select {}
		}()
	}
	for range 3 {
		if err := <-ready; err != nil {
			panic(err)
		}
	}
	done := make(chan bool)
	for range 8 {
		go func() {
			unix.Nanosleep(&unix.Timespec{Nsec: 20e6}, nil) // a thread each, parked afterwards
			done <- true
		}()
	}
	for range 8 {
		<-done
	}
}

// sealed is what a child could still do after Seal.
type sealed struct {
	Result  sandbox.Result
	Error   string
	Threads int
	Can     map[string]string // what was tried → error, "" for success
}

// childSeal args: uid, seccomp errno for landlock_create_ruleset, directory of the test.
func childSeal(args []string) any {
	uid, _ := strconv.Atoi(args[0])
	errno, _ := strconv.Atoi(args[1])
	dir := args[2]
	threads(uid == 0)
	if uid != 0 {
		for _, err := range []error{syscall.Setgroups(nil), syscall.Setresgid(uid, uid, uid), syscall.Setresuid(uid, uid, uid)} {
			if err != nil {
				panic(err)
			}
		}
	}
	if errno != 0 {
		refuseLandlock(uint32(errno))
	}
	ns, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var s sealed
	s.Result, err = sandbox.Seal(sandbox.Options{Writable: []string{dir + "/out"}, Readable: []string{dir + "/in/file"}})
	if err != nil {
		s.Error = err.Error()
	}
	try := func(what string, err error) {
		if s.Can == nil {
			s.Can = map[string]string{}
		}
		s.Can[what] = ""
		if err != nil {
			s.Can[what] = err.Error()
		}
	}
	write := func(name string) error {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString("x")
		return firstOf(err, f.Close())
	}
	read := func(name string) error { _, err := os.ReadFile(name); return err }
	try("write out", firstOf(write(dir+"/out/tmp"), os.Rename(dir+"/out/tmp", dir+"/out/final")))
	try("write in", write(dir+"/in/new"))
	try("write parent", write(dir+"/new"))
	try("mkdir", os.Mkdir(dir+"/out/d", 0o700))
	try("symlink", os.Symlink("/etc", dir+"/out/l"))
	try("truncate", os.Truncate(dir+"/in/file", 0))
	try("read in/file", read(dir+"/in/file"))
	try("read in/other", read(dir+"/in/other"))
	try("read in/none", read(dir+"/in/none"))
	try("read in/foreign", read(dir+"/in/foreign"))
	try("read /etc/passwd", read("/etc/passwd"))
	try("read /proc", read("/proc/self/status"))
	try("exec", exec.Command("/bin/true").Run())
	try("setns", unix.Setns(ns, unix.CLONE_NEWNET))
	try("unshare", unix.Unshare(unix.CLONE_NEWNS))
	try("mount", unix.Mount("none", dir+"/out", "tmpfs", 0, ""))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}})
	}
	try("connect", err)
	_, err = os.Stdout.Stat()
	try("stdout", err)
	return s
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// refuseLandlock makes landlock_create_ruleset fail on every thread, as a container
// runtime's seccomp profile does.
func refuseLandlock(errno uint32) {
	const landlockCreateRuleset = 444 // the same number on every architecture
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: landlockCreateRuleset},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); e != 0 {
		panic(e)
	}
	runtime.KeepAlive(filter)
}

// tree makes the directory that childSeal works on.
func tree(t *testing.T, owner int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sixfence-sandbox-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"", "/in", "/out"} {
		if d != "" {
			must(os.Mkdir(dir+d, 0o755))
		}
		must(os.Chown(dir+d, owner, owner))
	}
	for name, mode := range map[string]os.FileMode{"file": 0o644, "other": 0o644, "none": 0, "foreign": 0o600} {
		must(os.WriteFile(dir+"/in/"+name, []byte("content"), 0o600))
		must(os.Chown(dir+"/in/"+name, owner, owner))
		must(os.Chmod(dir+"/in/"+name, mode))
	}
	must(os.Chown(dir+"/in/foreign", 12345, 12345))
	return dir
}

var always = map[string]bool{"write out": true, "read in/file": true, "stdout": true}

func TestSeal(t *testing.T) {
	testlab.RequireRoot(t)
	for name, uid := range map[string]int{"root": 0, "unprivileged": 65534} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, uid)
			var got sealed
			c := start(t, &got, self(t, strconv.Itoa(uid), "0", dir), "seal")
			if got.Error != "" {
				t.Errorf("Seal: %s", got.Error)
			}
			if got.Result.LandlockABI < 6 || got.Result.Landlock != "" {
				testlab.CannotRun(t, "Landlock ABI 6: %+v", got.Result)
			}
			if !got.Result.NoNewPrivs || len(got.Result.Capabilities) != 0 {
				t.Errorf("result %+v", got.Result)
			}
			for _, f := range []string{"CapPrm", "CapEff", "CapInh", "CapAmb"} {
				c.every(t, f, "0")
			}
			if uid == 0 {
				c.every(t, "CapBnd", "0")
			}
			c.every(t, "NoNewPrivs", "1")
			if n := len(c.status(t, "NoNewPrivs")); n < 5 {
				t.Errorf("only %d threads: the test shows little", n)
			}
			for what, err := range got.Can {
				if (err == "") != always[what] {
					t.Errorf("%s: %q", what, err)
				}
			}
		})
	}
}

// TestSealWithoutLandlock: on an old kernel, or where a container forbids it, the
// rest still holds and the Result says what does not.
func TestSealWithoutLandlock(t *testing.T) {
	testlab.RequireRoot(t)
	for name, errno := range map[string]unix.Errno{"ENOSYS": unix.ENOSYS, "EPERM": unix.EPERM, "EOPNOTSUPP": unix.EOPNOTSUPP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, 0)
			var got sealed
			c := start(t, &got, self(t, "0", strconv.Itoa(int(errno)), dir), "seal")
			if got.Error != "" || got.Result.LandlockABI != 0 || got.Result.Landlock == "" || !got.Result.NoNewPrivs || len(got.Result.Capabilities) != 0 {
				t.Errorf("Seal: %q, %+v", got.Error, got.Result)
			}
			c.every(t, "CapPrm", "0")
			c.every(t, "NoNewPrivs", "1")
			for _, what := range []string{"setns", "unshare", "mount", "read in/none", "read in/foreign"} {
				if got.Can[what] == "" {
					t.Errorf("%s works without capabilities", what)
				}
			}
		})
	}
}

func TestSealNamesAMissingPath(t *testing.T) {
	testlab.RequireRoot(t)
	var got sealed
	start(t, &got, self(t, "0", "0", "/nonexistent"), "seal")
	if !strings.Contains(got.Error, "/nonexistent/out") || got.Result.LandlockABI == 0 || got.Can["read /etc/passwd"] == "" {
		t.Errorf("%+v", got)
	}
}

func childCollecting([]string) any {
	threads(true)
	if err := sandbox.Collecting(); err != nil {
		return err.Error()
	}
	return strings.Join(sandbox.Held(), " ")
}

func TestCollecting(t *testing.T) {
	testlab.RequireRoot(t)
	var held string
	c := start(t, &held, self(t), "collecting")
	want := sandbox.Needed()
	slices.Sort(want)
	if held != strings.Join(want, " ") {
		t.Errorf("held %q, want %q", held, want)
	}
	mask := strconv.FormatUint(sandbox.NeededMask(), 16)
	c.every(t, "CapPrm", mask)
	c.every(t, "CapEff", mask)
	c.every(t, "CapBnd", mask)
	c.every(t, "CapInh", "0")
	c.every(t, "CapAmb", "0")
}

// childWithout args: capability to leave out, namespace path, pid of a process of
// root with every capability, pid of another user's process, file of another user.
func childWithout(args []string) any {
	can := map[string]string{}
	if err := sandbox.KeepWithout(args[0]); err != nil {
		panic(err)
	}
	try := func(what string, err error) {
		can[what] = ""
		if err != nil {
			can[what] = err.Error()
		}
	}
	var ns fact.Namespace
	packetfilter.Read(ask.New(func(string) bool { return true }, false), ask.NewBudget("test", 5*time.Second, 1<<20, 1<<24), packetfilter.Options{}).Decode(&ns)
	try("nf_tables", known(ns.PacketFilter.NFTables))
	var blob error
	lt, ok := ns.PacketFilter.Legacy.Get()
	if !ok || len(lt) == 0 {
		blob = fmt.Errorf("no table: %+v", ns.PacketFilter.Legacy)
	} else {
		blob = known(lt[0].Blob)
	}
	try("x_tables", blob)
	var h fact.Host
	packetfilter.ReadBPF(ask.New(func(string) bool { return true }, false)).Decode(&h)
	try("bpf", known(h.BPF.NetfilterLinks))
	_, err := os.ReadFile(args[4])
	try("foreign file", err)
	_, err = os.ReadDir("/proc/" + args[3] + "/fd")
	try("foreign fds", err)
	_, err = os.Readlink("/proc/" + args[2] + "/exe")
	try("owner", err)
	fd, err := unix.Open(args[1], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		runtime.LockOSThread()
		err = unix.Setns(fd, unix.CLONE_NEWNET)
	}
	try("setns", err)
	return can
}

// childListen opens a listener as another user. args: uid.
func childListen(args []string) any {
	uid, _ := strconv.Atoi(args[0])
	if uid != 0 {
		if err := firstOf(syscall.Setgroups(nil), syscall.Setresgid(uid, uid, uid), syscall.Setresuid(uid, uid, uid)); err != nil {
			panic(err)
		}
	}
	l, err := net.Listen("tcp6", "[::]:0")
	if err != nil {
		panic(err)
	}
	go func() { _, _ = l.Accept() }()
	return l.Addr().(*net.TCPAddr).Port
}

// audited is what an audit knows about some namespaces and their listeners.
type audited struct {
	Spaces    map[uint64]string // inode → name
	Listeners map[string]string // "inode/port" → owners and their executables
	Filters   map[uint64]string // inode → state of nf_tables and x_tables
	Sealed    sandbox.Result
}

// childCollect runs a whole audit's collection. args: "full" or "sandboxed", then
// the inodes of the namespaces that matter.
func childCollect(args []string) any {
	if args[0] == "sandboxed" {
		if err := sandbox.Collecting(); err != nil {
			panic(err)
		}
	}
	c, err := collect.Run(collect.Options{})
	if err != nil {
		panic(err)
	}
	out := audited{map[uint64]string{}, map[string]string{}, map[uint64]string{}, sandbox.Result{}}
	if args[0] == "sandboxed" {
		if out.Sealed, err = sandbox.Seal(sandbox.Options{}); err != nil {
			panic(err)
		}
	}
	s := c.Snapshot()
	exe := map[int]string{}
	procs, _ := s.Host.Processes.Get()
	for _, p := range procs {
		exe[p.PID] = fmt.Sprint(p.UID, " ", p.Exe.Or("unknown"))
	}
	for _, ns := range s.Namespaces {
		if !slices.Contains(args[1:], strconv.FormatUint(ns.ID.Inode, 10)) {
			continue
		}
		out.Spaces[ns.ID.Inode] = ns.Name
		out.Filters[ns.ID.Inode] = ns.PacketFilter.NFTables.State().String() + " " + ns.PacketFilter.Legacy.State().String()
		sockets, _ := ns.Sockets.Get()
		for _, so := range sockets {
			owners, _ := so.Owners.Get()
			if so.State != "listen" {
				continue
			}
			var who []string
			for _, pid := range owners {
				who = append(who, fmt.Sprint(pid, " ", exe[pid]))
			}
			out.Listeners[fmt.Sprint(ns.ID.Inode, "/", so.Port)] = strings.Join(who, ", ")
		}
	}
	return out
}

// TestCollectInTheSandbox: full owners and namespaces with the sandbox on.
func TestCollectInTheSandbox(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	named, empty := testlab.NewNS(t, "box"), testlab.NewNS(t, "box")
	named.Run(testlab.RequireTool(t, "nft"), "add table inet x")
	named.Run(testlab.RequireTool(t, "ip6tables-legacy"), "-A", "INPUT", "-j", "ACCEPT")
	inodes := []string{strconv.FormatUint(named.Inode(), 10), strconv.FormatUint(empty.Inode(), 10)}
	want := map[string]string{}
	for n, uid := range map[*testlab.NS]int{named: 65534, empty: 0} {
		var port int
		c := start(t, &port, n.Command(exe, strconv.Itoa(uid)), "listen")
		want[fmt.Sprint(n.Inode(), "/", port)] = fmt.Sprint(c.pid, " ", uid, " ", exe)
	}
	// A namespace that only a process keeps, with a user namespace of its own.
	strange := self(t, "0")
	strange.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: 65534, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: 65534, Size: 1}},
	}
	var port int
	c := start(t, &port, strange, "listen")
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", c.pid), &st); err != nil {
		t.Fatal(err)
	}
	inodes = append(inodes, strconv.FormatUint(st.Ino, 10))
	want[fmt.Sprint(st.Ino, "/", port)] = fmt.Sprint(c.pid, " 0 ", exe) // root outside, nobody inside

	for _, mode := range []string{"full", "sandboxed"} {
		var got audited
		start(t, &got, self(t, append([]string{mode}, inodes...)...), "collect")
		for k, v := range want {
			if got.Listeners[k] != v {
				t.Errorf("%s: listener %s is held by %q, want %q", mode, k, got.Listeners[k], v)
			}
		}
		if got.Spaces[named.Inode()] != named.Name || got.Spaces[empty.Inode()] != empty.Name || got.Spaces[st.Ino] == "" {
			t.Errorf("%s: namespaces %v", mode, got.Spaces)
		}
		if got.Filters[named.Inode()] != "value value" || got.Filters[empty.Inode()] != "absent absent" || got.Filters[st.Ino] != "absent absent" {
			t.Errorf("%s: packet filters %v", mode, got.Filters)
		}
		if mode == "sandboxed" && (!got.Sealed.NoNewPrivs || len(got.Sealed.Capabilities) != 0) {
			t.Errorf("sealed: %+v", got.Sealed)
		}
	}
}

func known[T any](k fact.Known[T]) error {
	if g, gap := k.Gap(); gap {
		return g
	}
	return nil
}

func TestEachCapabilityIsNeeded(t *testing.T) {
	n, other := testlab.NewNS(t, "cap"), testlab.NewNS(t, "cap")
	n.Run(testlab.RequireTool(t, "nft"), "add table inet x")
	n.Run(testlab.RequireTool(t, "ip6tables-legacy"), "-A", "INPUT", "-j", "ACCEPT")
	dir := tree(t, 0)
	foreign := exec.Command("/bin/sleep", "60")
	foreign.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := foreign.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = foreign.Process.Kill(); _ = foreign.Wait() })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	breaks := map[string][]string{
		"":                    nil,
		"cap_sys_admin":       {"bpf", "setns"},
		"cap_sys_ptrace":      {"owner"},
		"cap_net_admin":       {"nf_tables", "x_tables"},
		"cap_dac_read_search": {"foreign fds", "foreign file"},
	}
	for _, c := range sandbox.Needed() {
		if breaks[c] == nil {
			t.Errorf("nothing shows that %s is needed", c)
		}
	}
	for without, want := range breaks {
		var can map[string]string
		start(t, &can, n.Command(exe, without, "/run/netns/"+other.Name, strconv.Itoa(os.Getpid()), strconv.Itoa(foreign.Process.Pid), dir+"/in/foreign"), "without")
		var broke []string
		for what, err := range can {
			if err != "" {
				broke = append(broke, what)
			}
		}
		slices.Sort(broke)
		if !slices.Equal(broke, want) {
			t.Errorf("without %q breaks %v, want %v (%v)", without, broke, want, can)
		}
	}
}
