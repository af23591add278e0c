package collect

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/testlab"
)

// The test binary doubles as the processes the tests look at.
func TestMain(m *testing.M) {
	if role := os.Getenv("SIXFENCE_TEST_ROLE"); role != "" {
		play(role)
		return
	}
	os.Exit(m.Run())
}

func die(err error) {
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

func number(name string) int {
	n, err := strconv.Atoi(os.Getenv(name))
	die(err)
	return n
}

func play(role string) {
	switch role {
	case "hidden":
		hide(false)
	case "inflight":
		hide(true)
	case "crowd":
		crowd(number("SIXFENCE_TEST_COUNT"))
	case "listeners":
		listeners(number("SIXFENCE_TEST_FIRST"), number("SIXFENCE_TEST_COUNT"))
	case "collect":
		c, err := Run(Options{})
		die(err)
		b, err := encode(c.Snapshot())
		die(err)
		fmt.Println(string(b))
		return
	}
	time.Sleep(time.Hour)
}

func inode(path string) uint64 {
	var st unix.Stat_t
	die(unix.Stat(path, &st))
	return st.Ino
}

// hide makes a namespace, does something in it, and leaves it: what stays is a
// listening socket or, with flight, a descriptor on its way through a socket.
func hide(flight bool) {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	die(err)
	die(unix.Unshare(unix.CLONE_NEWNET))
	ns := inode("/proc/thread-self/ns/net")
	var sock unix.Stat_t
	if flight {
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		die(err)
		out, err := exec.Command("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", os.Getenv("SIXFENCE_TEST_PEER")).CombinedOutput()
		if err != nil {
			die(fmt.Errorf("%w: %s", err, out))
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		die(err)
		die(unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(fd), nil, 0))
		die(unix.Close(fd))
	} else {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		die(err)
		die(unix.Bind(fd, &unix.SockaddrInet6{Port: 8443}))
		die(unix.Listen(fd, 1))
		die(unix.Fstat(fd, &sock))
	}
	die(unix.Setns(home, unix.CLONE_NEWNET))
	die(unix.Close(home))
	fmt.Println("ready", sock.Ino, ns)
}

// crowd makes namespaces the way any user can, and keeps each by a descriptor.
func crowd(n int) {
	for range n {
		c := exec.Command("/usr/bin/sleep", "3600")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		die(c.Start())
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid), unix.O_RDONLY, 0)
		die(err)
		_ = fd
		die(c.Process.Kill())
		_ = c.Wait()
	}
	fmt.Println("ready", n, os.Getuid())
}

// listeners opens many listeners on distinct addresses and ports.
func listeners(first, n int) {
	for i := first; i < first+n; i++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		die(err)
		die(unix.Bind(fd, &unix.SockaddrInet4{Port: 1024 + i%50000, Addr: [4]byte{127, 0, 0, byte(1 + i/50000)}}))
		die(unix.Listen(fd, 1))
	}
	fmt.Println("ready", first, n)
}

// actorBinary is a copy of the test binary that every user may run. cp makes it: a
// descriptor of ours open for writing would leak into other children.
func actorBinary(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "sixfence-collect")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "actor")
	if out, err := exec.Command("cp", fmt.Sprintf("/proc/%d/exe", os.Getpid()), exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return exe
}

func nobody(c *exec.Cmd) {
	c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
}

// actor starts this binary in a role and returns what it said.
func actor(t testing.TB, prepare func(*exec.Cmd), ns *testlab.NS, role string, env ...string) (pid int, first, second uint64) {
	t.Helper()
	exe := actorBinary(t)
	c := exec.Command(exe)
	if ns != nil {
		c = ns.Command(exe)
	}
	c.Env = append(append(os.Environ(), "SIXFENCE_TEST_ROLE="+role), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if prepare != nil {
		prepare(c)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel sends Pdeathsig when the thread that started it ends.
	runtime.LockOSThread()
	err = c.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", role, err)
	}
	if _, err := fmt.Sscanf(strings.TrimSpace(line), "ready %d %d", &first, &second); err != nil {
		t.Fatalf("%s: %q", role, line)
	}
	return c.Process.Pid, first, second
}
