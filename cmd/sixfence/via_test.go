package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sixfence/sixfence/internal/testlab"
)

// viaLab is a vantage with a real sshd between this host and a target that lets only the
// vantage at one of its services:
//
//	client ── far ── target
type viaLab struct {
	t                   *testing.T
	client, far, target *testlab.NS
	dir                 string // /mnt for all of them
	sshd                *exec.Cmd
	zone                string // the link-local address of far, as the client writes it
}

const viaHost = "ssh://root@[2001:db8:1::2]"

// newViaLab starts the sshd. mounts is what the far side does to its own mount namespace.
func newViaLab(t *testing.T, mounts string) *viaLab {
	t.Helper()
	l := &viaLab{t: t, client: testlab.NewNS(t, "vac"), far: testlab.NewNS(t, "vaf"), target: testlab.NewNS(t, "vat"), dir: t.TempDir()}
	for _, n := range []*testlab.NS{l.client, l.far, l.target} {
		for _, k := range []string{"all", "default"} {
			n.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
			n.Sysctl("net/ipv6/conf/"+k+"/router_solicitations", "0")
		}
	}
	testlab.Link(l.client, "c0", l.far, "f0")
	testlab.Link(l.far, "f1", l.target, "t0")
	l.far.Sysctl("net/ipv4/ip_forward", "1")
	l.far.Sysctl("net/ipv6/conf/all/forwarding", "1")
	l.client.IP("addr", "add", "192.0.2.1/24", "dev", "c0")
	l.far.IP("addr", "add", "192.0.2.2/24", "dev", "f0")
	l.far.IP("addr", "add", "198.51.100.1/24", "dev", "f1")
	l.target.IP("addr", "add", "198.51.100.2/24", "dev", "t0")
	l.client.AddAddr("c0", "2001:db8:1::1/64")
	l.far.AddAddr("f0", "2001:db8:1::2/64")
	l.far.AddAddr("f0", "fe80::f/64")
	l.far.AddAddr("f1", "2001:db8:2::1/64")
	l.target.AddAddr("t0", "2001:db8:2::2/64")
	l.zone = "fe80::f%c0"
	for n, via := range map[*testlab.NS][2]string{l.client: {"192.0.2.2", "2001:db8:1::2"}, l.target: {"198.51.100.1", "2001:db8:2::1"}} {
		n.IP("route", "add", "default", "via", via[0])
		n.IP("-6", "route", "add", "default", "via", via[1])
	}
	nftIn(t, l.target, "table inet f {\nchain i {\ntype filter hook input priority 0; policy drop;\ntcp dport 22 accept\n"+
		"ip saddr 198.51.100.1 tcp dport 5432 accept\nip6 saddr 2001:db8:2::1 tcp dport 5432 accept\nmeta l4proto { icmp, icmpv6 } accept\n}\n}\n")
	l.target.Do(func() {
		for _, p := range []string{":22", ":5432"} {
			x, err := net.Listen("tcp", p)
			if err != nil {
				t.Errorf("listen: %v", err)
				return
			}
			t.Cleanup(func() { _ = x.Close() })
		}
	})

	if err := os.Chmod(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	keygen := testlab.RequireTool(t, "ssh-keygen")
	for _, d := range []string{"home/.ssh", "user"} {
		if err := os.MkdirAll(filepath.Join(l.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{"host", "home/.ssh/id_ed25519"} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(l.dir, k)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	key := strings.Fields(l.read("host.pub"))
	known := ""
	for _, h := range []string{"2001:db8:1::2", "192.0.2.2", l.zone, "[2001:db8:1::2]:2222"} {
		known += h + " " + key[0] + " " + key[1] + "\n"
	}
	l.write("home/.ssh/known_hosts", known)
	l.write("authorized", l.read("home/.ssh/id_ed25519.pub"))
	passwd := ""
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "root:") {
			passwd += line
		}
	}
	l.write("passwd", "root:x:0:0::/mnt/home:/bin/bash\nprobe:x:65533:65533::/mnt/user:/bin/sh\n"+passwd)
	l.write("shadow", "root:*:::::::\nprobe:*:::::::\nsshd:*:::::::\n")
	l.write("sshd_config", "HostKey /mnt/host\nAuthorizedKeysFile /mnt/authorized\nStrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"+
		"KbdInteractiveAuthentication no\nUsePAM no\nPidFile none\nPort 22\nPort 2222\nPrintMotd no\nMaxStartups 100\n")
	// Chatter of a login is not an answer.
	l.write("home/.bashrc", "echo 'Welcome! \033[31mto this host'\n")
	for _, f := range []string{"passwd", "authorized", "sshd_config"} {
		if err := os.Chmod(filepath.Join(l.dir, f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sshd := testlab.RequireTool(t, "sshd")
	var log strings.Builder
	l.sshd = l.far.Command("unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", l.mounts()+
		"mount -t tmpfs tmpfs /run\nmkdir -p /run/sshd\nchmod 755 /run/sshd\n"+mounts+"\nexec "+sshd+" -D -e -f /mnt/sshd_config")
	l.sshd.Stderr = &log
	if err := l.sshd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range l.there() {
			_ = syscall.Kill(p, syscall.SIGKILL)
		}
		_ = l.sshd.Process.Kill()
		_ = l.sshd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", log.String())
		}
	})
	testlab.Eventually(t, 30*time.Second, "sshd", func() bool {
		up := false
		l.client.Do(func() {
			c, err := net.DialTimeout("tcp", "[2001:db8:1::2]:22", time.Second)
			if up = err == nil; up {
				_ = c.Close()
			}
		})
		return up
	})
	return l
}

func (l *viaLab) write(name, text string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *viaLab) read(name string) string {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

// mounts gives a mount namespace its own files; ssh and sshd ask passwd for the home.
func (l *viaLab) mounts() string {
	return "mount --bind " + l.dir + " /mnt\nmount --bind /mnt/passwd /etc/passwd\nmount --bind /mnt/shadow /etc/shadow\n"
}

// command is sixfence verify on the client.
func (l *viaLab) command(args ...string) *exec.Cmd {
	script := l.mounts() + `exec "$0" verify "$@"`
	return l.client.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-e", "-c", script, binary}, args...)...)
}

// outcome is what a command did.
type outcome struct {
	code        int
	out, errOut string
	doc         viaDocument
}

type viaDocument struct {
	verifyDocument
	Across []struct {
		Ports  string
		Vias   []string
		States []string
	}
	Lost []struct {
		Via, Why string
		Partly   bool
	}
	Results []struct {
		Via, Address, Proto, State, Verdict, Predicted string
		Port                                           int
	}
}

func (l *viaLab) run(args ...string) outcome {
	l.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	defer stop()
	c := l.command(args...)
	var o, e bytes.Buffer
	c.Stdout, c.Stderr = &o, &e
	if err := c.Start(); err != nil {
		l.t.Fatal(err)
	}
	defer context.AfterFunc(ctx, func() { _ = c.Process.Kill() })()
	err := c.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		l.t.Fatalf("%v: %v, %v\n%s%s", args, err, ctx.Err(), o.String(), e.String())
	}
	r := outcome{code: c.ProcessState.ExitCode(), out: o.String(), errOut: e.String()}
	if json.Unmarshal(o.Bytes(), &r.doc) == nil && r.doc.Results != nil && slices.Contains(args, "json") {
		keepsSchema(l.t, "verify", o.Bytes())
	}
	for i, b := range []byte(r.out + r.errOut) {
		if b < 0x20 && b != '\n' && b != '\t' || b == 0x7f {
			l.t.Errorf("%v: byte %#x of the other side is shown: %.200q", args, b, (r.out + r.errOut)[max(0, i-50):])
			break
		}
	}
	return r
}

func (r outcome) states() (out []string) {
	for _, x := range r.doc.Results {
		out = append(out, fmt.Sprintf("%s %s/%d %s", x.Address, x.Proto, x.Port, x.State))
	}
	return out
}

// there are the processes of the far side, the listening sshd left out.
func (l *viaLab) there() (pids []int) {
	mine, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", l.sshd.Process.Pid))
	if err != nil {
		return nil
	}
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == l.sshd.Process.Pid {
			continue
		}
		if ns, err := os.Readlink("/proc/" + p.Name() + "/ns/mnt"); err == nil && ns == mine {
			pids = append(pids, pid)
		}
	}
	return pids
}

// clean fails when the other side keeps a file or a process.
func (l *viaLab) clean(when string) {
	l.t.Helper()
	root := fmt.Sprintf("/proc/%d/root", l.sshd.Process.Pid)
	var left string
	gone := func() bool {
		left = ""
		for _, d := range []string{"/dev/shm", "/tmp", "/var/tmp", "/mnt/home", "/mnt/user"} {
			m, _ := filepath.Glob(root + d + "/sixfence-via.*")
			left += strings.Join(m, " ")
		}
		for _, p := range l.there() {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
			left += fmt.Sprintf(" %d %q", p, b)
		}
		return left == ""
	}
	end := time.Now().Add(30 * time.Second)
	for !gone() {
		if time.Now().After(end) {
			l.t.Fatalf("%s, this is left: %s", when, left)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

var viaPorts = []string{"198.51.100.2", "2001:db8:2::2", "--ports", "tcp/22,tcp/80,tcp/5432", "--format", "json"}

var viaStates = []string{
	"198.51.100.2 tcp/22 open", "198.51.100.2 tcp/80 filtered", "198.51.100.2 tcp/5432 open",
	"2001:db8:2::2 tcp/22 open", "2001:db8:2::2 tcp/80 filtered", "2001:db8:2::2 tcp/5432 open",
}

const ownTemp = "mount -t tmpfs tmpfs /dev/shm\nmount -t tmpfs tmpfs /tmp\nmount -t tmpfs tmpfs /var/tmp\n"

func TestVia(t *testing.T) {
	t.Parallel()
	l := newViaLab(t, ownTemp)
	l.write("e.yaml", "expect:\n  tcp/22: open\n  \"*\": filtered\n")
	// They are there at the same time, and none is in the way of another.
	t.Run("at once", func(t *testing.T) {
		for _, via := range []string{viaHost, "ssh://[2001:db8:1::2]:2222", "ssh://root@[" + l.zone + "]", "ssh://probe@192.0.2.2"} {
			t.Run(via, func(t *testing.T) {
				t.Parallel()
				r := l.run(append(slices.Clone(viaPorts), "--via", via)...)
				if !slices.Equal(r.states(), viaStates) || r.code != 0 || !r.doc.Complete || r.errOut != "" {
					t.Errorf("exit %d, complete %v\n%s\n%s", r.code, r.doc.Complete, strings.Join(r.states(), "\n"), r.errOut)
				}
				for _, x := range r.doc.Results {
					if x.Via != via {
						t.Errorf("a result is of %q", x.Via)
					}
				}
			})
		}
		// Here and there: the target lets only that host at 5432.
		t.Run("side by side", func(t *testing.T) {
			t.Parallel()
			r := l.run(append(slices.Clone(viaPorts), "--via", "here", "--via", viaHost)...)
			if len(r.doc.Results) != 12 || len(r.doc.Across) != 2 || r.doc.Across[0].Ports != "5432" || !slices.Equal(r.doc.Across[0].States, []string{"filtered", "open"}) ||
				!slices.Equal(r.doc.Across[0].Vias, []string{"", viaHost}) {
				t.Errorf("%+v\n%s", r.doc.Across, r.errOut)
			}
		})
		// What is expected is judged here, and a finding says whose claim it is.
		t.Run("in words", func(t *testing.T) {
			t.Parallel()
			r := l.run("2001:db8:2::2", "--ports", "tcp/22,tcp/5432", "--via", "here", "--via", viaHost, "--expect", "/mnt/e.yaml")
			for _, want := range []string{
				"Seen from here", "Seen from " + viaHost + ": it says so, and nothing here checks it", "filtered from here, open from " + viaHost,
				viaHost + " claims: tcp/5432 of 2001:db8:2::2 is open, and should be filtered",
			} {
				if r.code != 1 || !strings.Contains(strings.Join(strings.Fields(r.out), " "), want) {
					t.Errorf("exit %d, %q is not in:\n%s%s", r.code, want, r.out, r.errOut)
				}
			}
		})
		// What large packets do is looked at from there, too, and whether the target stays
		// findable, which for IPv6 nobody knows without a querier.
		t.Run("path and soak", func(t *testing.T) {
			t.Parallel()
			r := l.run("198.51.100.2", "2001:db8:2::2", "--ports", "tcp/22", "--path", "--soak=2s", "--via", viaHost, "--format", "json")
			var d struct {
				Addresses []struct {
					Via  string
					Path *struct{ Verdict string }
					Soak *struct{ Verdict, MAC string }
				}
			}
			if err := json.Unmarshal([]byte(r.out), &d); err != nil || len(d.Addresses) != 2 || r.code != 3 {
				t.Fatalf("exit %d, %v\n%s", r.code, err, r.errOut)
			}
			for i, a := range d.Addresses {
				if a.Via != viaHost || a.Path == nil || a.Path.Verdict != "honoured" || a.Soak == nil || a.Soak.Verdict != []string{"kept", "unknown"}[i] || a.Soak.MAC == "" {
					t.Error(r.out)
				}
			}
		})
	})
	l.clean("after a run each way")

	// A key that is not known is not taken, and not asked about.
	l.write("home/.ssh/known_hosts", strings.ReplaceAll(l.read("home/.ssh/known_hosts"), "192.0.2.2 ", "192.0.2.9 "))
	before := l.read("home/.ssh/known_hosts")
	r := l.run(append(viaPorts, "--via", "ssh://root@192.0.2.2")...)
	if r.code != 2 || !strings.Contains(r.errOut, "ost key") || !strings.Contains(r.errOut, "compare the fingerprint") || r.out != "" {
		t.Errorf("an unknown host: exit %d\n%s%s", r.code, r.out, r.errOut)
	}
	if after := l.read("home/.ssh/known_hosts"); after != before {
		t.Errorf("a key was taken:\n%s", after)
	}
	// One of two is enough for an answer, and the other is named.
	r = l.run("198.51.100.2", "--ports", "tcp/22", "--format", "json", "--via", "ssh://root@192.0.2.2", "--via", viaHost)
	if !slices.Equal(r.states(), viaStates[:1]) || r.code != 3 || len(r.doc.Lost) != 1 || r.doc.Lost[0].Via != "ssh://root@192.0.2.2" || r.doc.Complete {
		t.Errorf("one of two: exit %d %+v\n%s", r.code, r.doc.Lost, r.errOut)
	}
	// A password is not asked for.
	if err := os.Rename(filepath.Join(l.dir, "home/.ssh/id_ed25519"), filepath.Join(l.dir, "home/.ssh/away")); err != nil {
		t.Fatal(err)
	}
	r = l.run(append(viaPorts, "--via", viaHost)...)
	if r.code != 2 || !strings.Contains(r.errOut, "Permission denied") || !strings.Contains(r.errOut, "nobody is asked for a password") {
		t.Errorf("no key: exit %d\n%s", r.code, r.errOut)
	}
	l.clean("at the end")
}

// TestViaIsCut ends a run in every way while it looks.
func TestViaIsCut(t *testing.T) {
	t.Parallel()
	l := newViaLab(t, ownTemp)
	// A target that says at once that nobody listens, so that there is something to say.
	nftIn(t, l.target, "table inet f {\nchain i {\ntcp dport 1-20000 accept\n}\n}\n")
	state := filepath.Join(l.dir, "state")
	slow := []string{"198.51.100.2", "--ports", "tcp/1-20000", "--rate", "200", "--via", viaHost, "--format", "json", "--state", "/mnt/state"}
	start := func() (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
		t.Helper()
		_ = os.Remove(state)
		c := l.command(slow...)
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		var o, e bytes.Buffer
		c.Stdout, c.Stderr = &o, &e
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		testlab.Eventually(t, time.Minute, "the far program", func() bool { return l.vantage() != 0 })
		return c, &o, &e
	}
	sshOf := func(pid int) int {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, f := range tasks {
			x, _ := os.ReadFile(f)
			b = append(append(b, ' '), x...)
		}
		for f := range strings.FieldsSeq(string(b)) {
			n, _ := strconv.Atoi(f)
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", n)); filepath.Base(exe) == "ssh" {
				return n
			}
		}
		return 0
	}

	// As soon as it runs, its file is gone: whatever ends it, nothing is left on the disk.
	c, out, _ := start()
	if m, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/dev/shm/sixfence-via.*", l.sshd.Process.Pid)); len(m) > 0 {
		testlab.Eventually(t, 10*time.Second, "the copy to be removed", func() bool {
			m, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/dev/shm/sixfence-via.*", l.sshd.Process.Pid))
			return len(m) == 0
		})
	}
	// Ctrl-C, as a terminal sends it: to the whole group.
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGINT)
	_ = c.Wait()
	var d viaDocument
	if err := json.Unmarshal(out.Bytes(), &d); err != nil || d.Complete {
		t.Errorf("interrupted: %v, complete %v", err, d.Complete)
	}
	l.clean("after Ctrl-C")

	for name, end := range map[string]func(c *exec.Cmd){
		"ssh is killed":      func(c *exec.Cmd) { _ = syscall.Kill(sshOf(c.Process.Pid), syscall.SIGKILL) },
		"sixfence is killed": func(c *exec.Cmd) { _ = c.Process.Kill() },
		"the session's sshd is killed": func(*exec.Cmd) {
			for _, p := range l.there() {
				if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p)); strings.HasPrefix(filepath.Base(exe), "sshd") {
					_ = syscall.Kill(p, syscall.SIGKILL)
				}
			}
		},
		"the far shell is killed": func(*exec.Cmd) {
			for _, p := range l.there() {
				if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p)); strings.HasPrefix(string(b), "/bin/sh") {
					_ = syscall.Kill(p, syscall.SIGKILL)
				}
			}
		},
		"the far program is killed": func(*exec.Cmd) { _ = syscall.Kill(l.vantage(), syscall.SIGKILL) },
	} {
		c, out, complaint := start()
		// What was said before is shown, and not taken for the whole.
		testlab.Eventually(t, time.Minute, "a part to arrive", func() bool {
			b, _ := os.ReadFile(state)
			return strings.Contains(string(b), `"rst"`)
		})
		end(c)
		_ = c.Wait()
		l.clean("when " + name)
		if name == "sixfence is killed" {
			continue
		}
		var d viaDocument
		if err := json.Unmarshal(out.Bytes(), &d); err != nil || d.Complete || c.ProcessState.ExitCode() != 3 || len(d.Lost) != 1 || !d.Lost[0].Partly || len(d.Results) == 0 || len(d.Results) == 20000 {
			t.Errorf("%s: exit %d, %v, complete %v, lost %+v, %d results\n%s", name, c.ProcessState.ExitCode(), err, d.Complete, d.Lost, len(d.Results), complaint)
		}
		keepsSchema(t, "verify", out.Bytes())
	}
	// The next run goes on from there: with what the same host has claimed, and no other.
	l.write("state", `{"schemaVersion":"1.0","addresses":[{"via":"`+viaHost+`","address":"198.51.100.2","source":"198.51.100.1","tables":[{"proto":"tcp","states":[{"ports":"1","state":"open","why":"syn-ack"}]}]}]}`)
	for _, via := range []string{viaHost, "ssh://root@192.0.2.2", viaHost} {
		want := "198.51.100.2 tcp/1 closed"
		if via == viaHost {
			want = "198.51.100.2 tcp/1 open"
		}
		r := l.run("198.51.100.2", "--ports", "tcp/1-2", "--via", via, "--format", "json", "--state", "/mnt/state")
		if r.code != 0 || !r.doc.Complete || !slices.Equal(r.states(), []string{want, "198.51.100.2 tcp/2 closed"}) {
			t.Errorf("going on, from %s: exit %d %v\n%s", via, r.code, r.states(), r.errOut)
		}
	}
	l.write("state", `{"schemaVersion":"1.0","addresses":[{"via":"ssh://x","address":"198.51.100.2","tables":[{"proto":"tcp","states":[{"ports":"9-1","state":"open"}]}]}]}`)
	if r := l.run("198.51.100.2", "--ports", "tcp/1-2", "--via", viaHost, "--state", "/mnt/state"); r.code != 2 || !strings.Contains(r.errOut, "no range of ports") {
		t.Errorf("a broken state: exit %d\n%s", r.code, r.errOut)
	}
}

// vantage is the process that looks.
func (l *viaLab) vantage() int {
	for _, p := range l.there() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
		if strings.Contains(string(b), "\x00vantage\x00") {
			return p
		}
	}
	return 0
}

// TestViaHostileDisks: no place to run a program, and no room.
func TestViaHostileDisks(t *testing.T) {
	t.Parallel()
	full := "mount -t tmpfs -o size=1m tmpfs "
	noexec := "mount -t tmpfs -o noexec tmpfs "
	for name, c := range map[string]struct {
		mounts string
		want   []string // nil: it works
	}{
		"only the home runs programs": {mounts: noexec + "/dev/shm\n" + noexec + "/tmp\n" + full + "/var/tmp\n"},
		"noexec everywhere": {
			mounts: noexec + "/dev/shm\n" + noexec + "/tmp\n" + noexec + "/var/tmp\n" + noexec + "/mnt/home\n",
			want:   []string{"/dev/shm: no program may be written or run there", "/mnt/home: no program", "TMPDIR"},
		},
		"full": {
			mounts: full + "/dev/shm\n" + full + "/tmp\n" + full + "/var/tmp\n" + full + "/mnt/home\n",
			want:   []string{"KiB are free", "/var/tmp", "make room"},
		},
		// df says that there is room, and there is none.
		"df lies": {
			mounts: full + "/dev/shm\n" + full + "/tmp\n" + full + "/var/tmp\n" + full + "/mnt/home\nmount --bind /bin/true \"$(command -v df)\"\n",
			want:   []string{"could not be written", "disk full"},
		},
		"the program is changed": {
			mounts: ownTemp + "cp \"$(command -v head)\" /run/real\nprintf '#!/bin/sh\\n/run/real \"$@\" | tr a b\\n' >/run/head\nchmod 755 /run/head\nmount --bind /run/head \"$(command -v head)\"\n",
			want:   []string{"another hash"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newViaLab(t, c.mounts)
			r := l.run(append(viaPorts, "--via", viaHost)...)
			if c.want == nil {
				if !slices.Equal(r.states(), viaStates) || r.code != 0 {
					t.Errorf("exit %d %v\n%s", r.code, r.states(), r.errOut)
				}
			} else if r.code != 2 || r.out != "" {
				t.Errorf("exit %d\n%s", r.code, r.out)
			}
			for _, w := range c.want {
				if !strings.Contains(r.errOut, w) {
					t.Errorf("%q is not in:\n%s", w, r.errOut)
				}
			}
			l.clean("afterwards")
		})
	}
}

// liar reads the script, finds the word that makes an answer, and plays along as far as a
// case wants.
const liar = `#!/bin/sh
while read -r l; do
	case $l in
	"say()"*) n=${l#*\"}; n=${n%% *} ;;
	"}") break ;;
	esac
done
hello() { echo "$n hello Linux x86_64"; read -r go; }
ready() { hello; echo "$n run"; echo '{"ready":2}'; read -r errand; }
honest='{"claim":{"schemaVersion":"1.0","raw":true,"addresses":[{"address":"198.51.100.2","interface":"IF","sent":1,"controls":0,"lost":0,"complete":true,"life":"answered","notes":["NOTE"],"tables":[{"proto":"tcp","states":[{"ports":"22","state":"open","why":"syn-ack"}]}]}]}}'
e=$(printf '\033[2J\033]0;x\007\302\233')
`

// TestViaLies: what the other side may do to us is to say something wrong, with its name
// on it.
func TestViaLies(t *testing.T) {
	t.Parallel()
	l := newViaLab(t, ownTemp)
	if out, err := exec.Command("uname", "-m").Output(); err != nil || strings.TrimSpace(string(out)) != "x86_64" {
		l.write("machine", strings.TrimSpace(string(out)))
	}
	machine := "x86_64"
	if b, err := os.ReadFile(filepath.Join(l.dir, "machine")); err == nil {
		machine = string(b)
	}
	args := []string{"198.51.100.2", "--ports", "tcp/22", "--via", viaHost}
	for name, c := range map[string]struct {
		script string
		want   string // in what we complain of; empty: it is taken
	}{
		"a claim with escapes": {script: `ready; printf '%s\n' "$honest" | sed 's/IF/\\u001b[2J/; s/NOTE/\\u001b]0;x\\u0007\\u202e/'`},
		"another target":       {script: `ready; printf '%s\n' "$honest" | sed s/198.51.100.2/198.51.100.3/`, want: "198.51.100.2 was asked for"},
		"another port":         {script: `ready; printf '%s\n' "$honest" | sed 's/"22"/"1-65535"/'`, want: "was not asked for"},
		"no JSON":              {script: `ready; echo "$e"`, want: "another language"},
		"half a claim":         {script: `ready; printf '%s' "$honest" | head -c 100`, want: "connection ended"},
		"a problem":            {script: `ready; printf '{"problem":"\\u001b[2J %s"}\n' "$(head -c 3000 /dev/zero | tr '\0' x)"`, want: "it could not look"},
		"escapes on stderr":    {script: `echo "$e" >&2; exit 1`, want: "connection ended"},
		"escapes in the steps": {script: `echo "$n hello $e $e"`, want: `\x1b`},
		"another system":       {script: `echo "$n hello OpenBSD amd64"`, want: "Linux only"},
		"another machine":      {script: `echo "$n hello Linux riscv64"`, want: "--via-binary sixfence-linux-riscv64"},
		"an endless line":      {script: `ready; cat /dev/zero`, want: "a line of more than"},
		"endless lines":        {script: `ready; yes '{"sent":1,"left":1}'`, want: "talks too much"},
		"an endless login":     {script: `yes "$e"`, want: "other things than were asked for"},
		"an endless loop":      {script: `hello; yes "$n no x"`, want: "in circles"},
		"a part about another": {script: `ready; printf '%s\n' "$honest" | sed 's/"claim"/"part"/; s/198.51.100.2/198.51.100.3/'`, want: "198.51.100.2 was asked for"},
		"a part, then a lie":   {script: `ready; printf '%s\n' "$honest" | sed 's/"claim"/"part"/'; echo "$e"`, want: "another language"},
		"endless parts":        {script: `ready; printf '%s\n' "$honest" | sed 's/"claim"/"part"/' >/mnt/home/part; yes "$(cat /mnt/home/part)"`, want: "talks too much"},
		"a path, unasked":      {script: `ready; printf '%s\n' "$honest" | sed 's/"notes"/"path":{"verdict":"honoured","linkMTU":1500},"notes"/'`, want: "was not asked for"},
		"a Snapshot, unasked":  {script: `ready; echo '{"size":4}'; echo abc; sleep 1`, want: "another language"},
		"an answer too early":  {script: `hello; echo "$n run"; printf '%s\n' "$honest"; read -r x`, want: "before it is asked"},
		"an early end":         {script: `ready; echo "$n exit 0"`, want: "without an answer"},
		"it does not start":    {script: `hello; echo "$n run"; echo "$n exit 126"`, want: "does not run there"},
		"another protocol":     {script: `hello; echo "$n run"; echo '{"ready":7}'; read -r x`, want: "version 7"},
		"it asks twice":        {script: `ready; echo '{"ready":2}'; read -r x`, want: "protocol"},
		"no shell":             {script: `echo 'This account is closed.'; exit 1`, want: "connection ended"},
	} {
		l.write("liar", strings.Replace(liar, "x86_64", machine, 1)+c.script+"\n")
		if err := os.Chmod(filepath.Join(l.dir, "liar"), 0o755); err != nil {
			t.Fatal(err)
		}
		l.write("authorized", `command="/mnt/liar" `+l.read("home/.ssh/id_ed25519.pub"))
		formats := []string{"text"}
		if c.want == "" {
			formats = []string{"text", "json", "sarif", "junit"}
		}
		for _, format := range formats {
			r := l.run(append(args, "--format", format)...)
			switch {
			case c.want == "" && (r.code != 0 || format[0] != 's' && format != "junit" && !strings.Contains(r.out, viaHost)):
				t.Errorf("%s: exit %d\n%s%s", name, r.code, r.out, r.errOut)
			case c.want != "" && (r.code != 2 || r.out != "" || !strings.Contains(r.errOut, c.want)):
				t.Errorf("%s: exit %d, want a complaint about %q\n%.1000s\n%.1000s", name, r.code, c.want, r.out, r.errOut)
			}
			if len(r.errOut) > 3000 {
				t.Errorf("%s: %d bytes of complaint", name, len(r.errOut))
			}
		}
		l.clean(name)
	}
}

// keepsSchema tells whether a document is what the published schema says, as a second
// implementation of JSON Schema sees it.
func keepsSchema(t *testing.T, name string, b []byte) {
	t.Helper()
	s, err := validator.NewCompiler().Compile("../../schemas/" + name + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	v, err := validator.UnmarshalJSON(bytes.NewReader(b))
	if err == nil {
		err = s.Validate(v)
	}
	if err != nil {
		t.Errorf("it is not what schemas/%s.schema.json says: %v\n%.1000s", name, err, b)
	}
}
