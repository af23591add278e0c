package proc

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
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

func play(role string) {
	die := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	switch role {
	case "thread": // one thread in another namespace, with descriptors of its own
		done := make(chan uint64)
		var thread func()
		thread = func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() { // the first thread: keep it, and take another
				go thread()
				select {}
			}
			die(unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_FILES))
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
			die(err)
			var st unix.Stat_t
			die(unix.Fstat(fd, &st))
			var ns unix.Stat_t
			die(unix.Stat("/proc/thread-self/ns/net", &ns))
			fmt.Println("ready", st.Ino, ns.Ino)
			done <- 0
			select {}
		}
		go thread()
		<-done
	case "detached": // holds a namespace by a descriptor whose mount is gone
		fd, err := unix.Open(os.Getenv("SIXFENCE_TEST_PATH"), unix.O_RDONLY, 0)
		die(err)
		var st unix.Stat_t
		die(unix.Fstat(fd, &st))
		fmt.Println("ready", st.Ino, 0)
	case "inherit": // listens, and lets a child hold the same socket
		l, err := net.Listen("tcp6", "[::1]:0")
		die(err)
		f, err := l.(*net.TCPListener).File()
		die(err)
		c := exec.Command("/proc/self/exe")
		c.Env = []string{"SIXFENCE_TEST_ROLE=sleep"}
		c.ExtraFiles = []*os.File{f}
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		die(c.Start())
		var st unix.Stat_t
		die(unix.Fstat(int(f.Fd()), &st))
		fmt.Println("ready", st.Ino, c.Process.Pid)
	case "scan":
		b := ask.NewBudget("test", time.Minute, 1<<30, 1<<40)
		t := Scan(ask.New(func(string) bool { return true }, false), b)
		inode, _ := strconv.ParseUint(os.Getenv("SIXFENCE_TEST_INODE"), 10, 64)
		owners := t.Owners(inode)
		procs, gaps := t.Processes(nil)
		out, _ := json.Marshal(map[string]any{"owners": owners, "procs": procs, "gaps": gaps})
		fmt.Println(string(out))
		return
	case "sleep":
	}
	time.Sleep(time.Hour)
}

// actor starts this binary in a role inside a namespace and returns what it said.
func actor(t *testing.T, ns *testlab.NS, role string, env ...string) (pid int, first, second uint64) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := ns.Command(exe)
	c.Env = append(append(os.Environ(), "SIXFENCE_TEST_ROLE="+role), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // Pdeathsig comes when the thread that started it ends
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(line, "ready %d %d", &first, &second); err != nil {
		t.Fatalf("%s: %q", role, line)
	}
	return c.Process.Pid, first, second
}
