package apply

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestHistoryIsAChain alters what is written, and cuts it.
func TestHistoryIsAChain(t *testing.T) {
	testlab.RequireRoot(t)
	e := &Engine{StateDir: t.TempDir() + "/state", Host: &mutate.Host{Layer: &store.Layer{}}}
	d, unlock, err := e.open()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	for _, id := range []string{"a", "b", "c"} {
		if err := e.record(d, Record{Event: "armed", Transaction: id}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.record(d, Record{Event: "armed", Transaction: "c"}); err != nil {
		t.Fatal(err)
	}
	if rs, err := e.History(); err != nil || len(rs) != 3 {
		t.Fatalf("%+v, %v", rs, err)
	}
	path := e.StateDir + "/" + historyFile
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	for name, bad := range map[string][]byte{
		"altered":   bytes.Replace(good, []byte(`"transaction":"a"`), []byte(`"transaction":"x"`), 1),
		"taken out": slices.Concat(lines[0], lines[2]),
		"swapped":   slices.Concat(lines[1], lines[0], lines[2]),
		"no record": slices.Concat(lines[0], []byte("oops\n"), lines[1]),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := e.History(); !errors.As(err, new(*BrokenError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A line that a crash tore was never relied on: the next record goes on before it.
	for name, torn := range map[string][]byte{"half": slices.Concat(good, lines[0][:20]), "zeros": append(slices.Clone(good), make([]byte, 100)...)} {
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := e.record(d, Record{Event: "armed", Transaction: "d" + name}); err != nil {
			t.Fatal(err)
		}
		if rs, err := e.History(); err != nil || len(rs) != 4 || rs[3].Transaction != "d"+name {
			t.Errorf("%s: %+v, %v", name, rs, err)
		}
	}
	// A broken one is kept aside, and said.
	if err := os.WriteFile(path, slices.Concat(lines[0], lines[2]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.record(d, Record{Event: "armed", Transaction: "e"}); err != nil {
		t.Fatal(err)
	}
	if rs, err := e.History(); err != nil || len(rs) != 2 || rs[0].Event != "torn" || !d.Has(historyFile+".broken") {
		t.Errorf("%+v, %v", rs, err)
	}
}

// TestDamagedJournals reads journals that are cut, altered, or newer.
func TestDamagedJournals(t *testing.T) {
	b, err := encodeJournal(&Journal{ID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeJournal("j", b); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		if _, err := decodeJournal("j", b[:i]); err == nil {
			t.Errorf("cut to %d bytes it is taken", i)
		}
		x := slices.Clone(b)
		x[i] ^= 1
		if _, err := decodeJournal("j", x); err == nil {
			t.Errorf("with byte %d altered it is taken", i)
		}
	}
	newer := bytes.Replace(b, []byte("sixfence-journal 1 "), []byte("sixfence-journal 2 "), 1)
	if _, err := decodeJournal("j", newer); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("a newer one: %v", err)
	}
}

// TestDamagedTransaction spoils the journal of a change that waits: one copy is
// enough, none is an alert.
func TestDamagedTransaction(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false)[1:3])
	before := l.projection(p)
	spoil := func(name string) {
		t.Helper()
		if err := os.WriteFile(l.state()+"/pending/"+name, []byte("sixfence-journal 1 x 3\nabc"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	spoil("journal")
	if out, err := l.play("rollback"); err != nil {
		t.Fatalf("rollback: %v\n%s", err, out)
	}
	if d := diff(before, l.projection(p)); d != "" {
		t.Errorf("after the rollback:\n%s", d)
	}
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	spoil("journal")
	spoil("journal.copy")
	var s *Status
	var err error
	l.ns.Do(func() { s, err = l.engine().Status() })
	if err != nil || len(s.Alerts) == 0 {
		t.Fatalf("status %+v, %v", s, err)
	}
	l.ns.Do(func() { s, err = l.engine().Status() })
	if err != nil || len(s.Alerts) != 1 || !strings.Contains(s.Alerts[0], "damaged journal") {
		t.Errorf("status %+v, %v", s, err)
	}
}

// TestStateDirectory refuses directories that others could reach.
func TestStateDirectory(t *testing.T) {
	testlab.RequireRoot(t)
	base := t.TempDir()
	open := func(path string) error {
		d, unlock, err := (&Engine{StateDir: path, Host: &mutate.Host{Layer: &store.Layer{}}}).open()
		if err == nil {
			unlock()
			d.Close()
		}
		return err
	}
	if err := open(base + "/good"); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(base + "/good")
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("made %v, %v", st.Mode(), err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink(base+"/good", base+"/link"))
	must(os.Mkdir(base+"/open", 0o755))
	must(os.Mkdir(base+"/theirs", 0o700))
	must(os.Chown(base+"/theirs", 1000, 1000))
	must(os.Mkdir(base+"/shared", 0o755))
	must(os.Chmod(base+"/shared", 0o777))
	for name, path := range map[string]string{"link": "/link", "open": "/open", "theirs": "/theirs", "in theirs": "/theirs/x", "shared": "/shared/x", "through a link": "/link/x"} {
		if err := open(base + path); !errors.As(err, new(*store.UnsafeError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nobody else can take the lock, and so keep us from an undo.
	must(os.Chmod(base, 0o755))
	c := exec.Command("flock", "--nonblock", base+"/good/"+lockFile, "true")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := c.CombinedOutput(); err == nil {
		t.Errorf("nobody took the lock: %s", out)
	}
}

// TestPlansThatAreRefused gives plans that must not be performed.
func TestPlansThatAreRefused(t *testing.T) {
	step := func(k change.Kind, p change.Phase, target string) change.Step {
		return change.Step{ID: "x", Kind: k, Phase: p, Target: target}
	}
	for name, p := range map[string]*change.Plan{
		"refusal":          {SchemaVersion: change.Version, Refusals: []change.Refusal{{Title: "no"}}},
		"version":          {SchemaVersion: "2.0"},
		"file at once":     {SchemaVersion: change.Version, Steps: []change.Step{step(change.File, change.Runtime, "/etc/x")}},
		"action at once":   {SchemaVersion: change.Version, Steps: []change.Step{step(change.Action, change.Runtime, "initramfs")}},
		"sysctl on disk":   {SchemaVersion: change.Version, Steps: []change.Step{step(change.Sysctl, change.Persist, "net/x")}},
		"the same twice":   {SchemaVersion: change.Version, Steps: []change.Step{step(change.Sysctl, change.Runtime, "net/x"), step(change.Sysctl, change.Runtime, "net/x")}},
		"an unknown phase": {SchemaVersion: change.Version, Steps: []change.Step{step(change.Sysctl, "later", "net/x")}},
	} {
		if err := valid(p); !errors.As(err, new(*RefusedError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNewConnections is about which connection is a proof.
func TestNewConnections(t *testing.T) {
	testlab.RequireRoot(t)
	d, err := (&store.Layer{}).OpenPrivate(t.TempDir() + "/t")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	at := func(local, remote string, inode uint64) Socket {
		return Socket{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), Inode: inode}
	}
	old := at("[2001:db8::1]:22", "[2001:db8::2]:1000", 1)
	tr := &transaction{dir: d, j: &Journal{Sockets: []string{old.key()}, Plan: change.Plan{Administered: []change.Way{
		{Family: "ipv6", Local: old.Local, Remote: old.Remote},
		{Family: "ipv4", Local: netip.MustParseAddrPort("192.0.2.1:22"), Remote: netip.MustParseAddrPort("192.0.2.2:999")},
	}}}}
	e := &Engine{}
	ns := testlab.NewNS(t, "proof") // without addresses
	prove := func(held uint64, ss ...Socket) (err error) {
		ns.Do(func() {
			err = e.proveConnections(tr, ConfirmOptions{
				Sockets:   func() ([]Socket, error) { return ss, nil },
				Ancestors: func(int) (map[uint64]bool, error) { return map[uint64]bool{held: true}, nil },
			})
		})
		return err
	}
	for name, err := range map[string]error{
		"the old connection":   prove(1, old),
		"a new one of others":  prove(1, old, at("[2001:db8::1]:22", "[2001:db8::2]:1001", 2)),
		"no connection":        prove(7),
		"through another port": prove(3, at("[2001:db8::1]:8022", "[2001:db8::2]:1001", 3)),
		"from the host itself": prove(3, at("[2001:db8::1]:22", "[2001:db8::1]:1001", 3)),
		"from its loopback":    prove(3, at("127.0.0.1:22", "127.0.0.1:1001", 3)),
	} {
		var u *UnprovenError
		if !errors.As(err, &u) || len(u.Missing) != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
	var u *UnprovenError
	if err := prove(4, at("[2001:db8::1]:22", "[2001:db8::2]:1002", 4)); !errors.As(err, &u) || len(u.Missing) != 1 || u.Missing[0] != "ipv4" {
		t.Errorf("one family: %v", err)
	}
	if err := prove(5, at("192.0.2.1:22", "192.0.2.2:1002", 5)); err != nil {
		t.Errorf("the other family, in a second run: %v", err)
	}
}

// TestConnectionsThatNeverLeftTheHost takes a connection between two addresses of the host
// for what it is.
func TestConnectionsThatNeverLeftTheHost(t *testing.T) {
	ns := testlab.NewNS(t, "own")
	ns.IP("address", "add", "2001:db8:5::1/64", "dev", "lo")
	ns.IP("address", "add", "192.0.2.5/32", "dev", "lo")
	d, err := (&store.Layer{}).OpenPrivate(t.TempDir() + "/t")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for local, remote := range map[string]string{"[2001:db8::1]:22": "[2001:db8:5::1]:1000", "192.0.2.1:22": "192.0.2.5:1000"} {
		s := Socket{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), Inode: 1}
		tr := &transaction{dir: d, j: &Journal{Plan: change.Plan{Administered: []change.Way{{Family: s.family(), Local: s.Local}}}}}
		ns.Do(func() {
			err = (&Engine{}).proveConnections(tr, ConfirmOptions{
				Sockets:   func() ([]Socket, error) { return []Socket{s}, nil },
				Ancestors: func(int) (map[uint64]bool, error) { return map[uint64]bool{1: true}, nil },
			})
		})
		if !errors.As(err, new(*UnprovenError)) || !strings.Contains(err.Error(), "from this host itself") {
			t.Errorf("from %s: %v", remote, err)
		}
	}
}

// TestNobodyAdministeredIt confirms a change that was planned at the console: there, over a
// connection that is as old, over one that is new, and by an agent that calls its server.
func TestNobodyAdministeredIt(t *testing.T) {
	ns := testlab.NewNS(t, "console")
	d, err := (&store.Layer{}).OpenPrivate(t.TempDir() + "/t")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	old := Socket{Local: netip.MustParseAddrPort("[2001:db8::1]:22"), Remote: netip.MustParseAddrPort("[2001:db8::2]:1000"), Inode: 1}
	fresh := Socket{Local: old.Local, Remote: netip.MustParseAddrPort("[2001:db8::2]:1001"), Inode: 2}
	agent := Socket{Local: netip.MustParseAddrPort("[2001:db8::1]:40000"), Remote: netip.MustParseAddrPort("[2001:db8::3]:443"), Inode: 3}
	tr := &transaction{dir: d, j: &Journal{Sockets: []string{old.key(), agent.key()}}}
	for held, want := range map[uint64]bool{0: true, 1: false, 2: true, 3: true} {
		ns.Do(func() {
			err = (&Engine{}).proveConnections(tr, ConfirmOptions{
				Sockets:   func() ([]Socket, error) { return []Socket{old, fresh, agent}, nil },
				Ancestors: func(int) (map[uint64]bool, error) { return map[uint64]bool{held: true}, nil },
			})
		})
		if (err == nil) != want || err != nil && !errors.As(err, new(*UnprovenError)) {
			t.Errorf("over connection %d: %v", held, err)
		}
	}
}

// TestConnectionsBeforeTheRules opens a connection after the undo was armed and before the
// rules are there: nothing of the change has let it in, and it confirms nothing.
func TestConnectionsBeforeTheRules(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false))
	way := change.Way{Family: "ipv6", Local: netip.MustParseAddrPort("[2001:db8:1::10]:22"), Remote: netip.MustParseAddrPort("[2001:db8::2]:1")}
	p.Administered = []change.Way{way}
	l.write(p)
	c := l.command("apply", "SIXFENCE_TEST_FAULT=stop:step 0 before", "SIXFENCE_TEST_TIMEOUT=60000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	testlab.Eventually(t, patience, "the run to stop", func() bool { return stopped(c.Process.Pid) })
	var conn net.Conn
	var n net.Listener
	var err error
	l.ns.Do(func() {
		if n, err = net.Listen("tcp6", "[::1]:0"); err == nil {
			conn, err = net.Dial("tcp6", n.Addr().String())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	defer conn.Close()
	if err := c.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	d, err := (&store.Layer{}).Open(l.state())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	tr, err := openTransaction(d)
	if err != nil || tr == nil {
		t.Fatal(err)
	}
	defer tr.close()
	key := conn.RemoteAddr().String() + " " + conn.LocalAddr().String()
	if old, err := tr.oldSockets(); err != nil || slices.Contains(tr.j.Sockets, key) || !slices.Contains(old, key) {
		t.Errorf("%s is not in %v, %v", key, old, err)
	}
	s := Socket{Local: netip.MustParseAddrPort(conn.RemoteAddr().String()), Remote: netip.MustParseAddrPort(conn.LocalAddr().String()), Inode: 1}
	l.ns.Do(func() {
		err = (&Engine{}).proveConnections(tr, ConfirmOptions{
			Sockets:   func() ([]Socket, error) { return []Socket{s}, nil },
			Ancestors: func(int) (map[uint64]bool, error) { return map[uint64]bool{1: true}, nil },
		})
	})
	if !errors.As(err, new(*UnprovenError)) || !strings.Contains(err.Error(), "as old as the change") {
		t.Errorf("confirm over it: %v", err)
	}
	l.must(t, "rollback")
}

// TestStoppedRuns stops a confirm, and an apply, that have the lock (ctrl-Z at the wrong
// moment, and the network is gone): the undo comes all the same.
func TestStoppedRuns(t *testing.T) {
	for name, role := range map[string]string{"before the commitment": "confirm stop:stage 9", "in the commitment": "confirm stop:promote 10", "in apply": "apply stop:step 1 before"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			p := l.plan(l.all(false))
			before := l.projection(p)
			role, fault, _ := strings.Cut(role, " ")
			env := []string{"SIXFENCE_TEST_FAULT=" + fault, "SIXFENCE_TEST_TIMEOUT=6000"}
			if role != "apply" {
				if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=6000"); err != nil {
					t.Fatalf("apply: %v\n%s", err, out)
				}
			}
			c := l.command(role, env...)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			testlab.Eventually(t, patience, "the run to stop", func() bool { return stopped(c.Process.Pid) })
			if !l.ended(2 * patience) {
				t.Fatalf("nobody ended it: %s", l.log())
			}
			_ = c.Process.Kill()
			_ = c.Wait()
			want := before
			if strings.HasPrefix(fault, "stop:promote") {
				want = intended(t, p)
			}
			if d := l.settled(p, want, patience); d != "" {
				t.Errorf("afterwards:\n%s", d)
			}
		})
	}
}

// TestNothingTouchesAnotherNamespace finishes a change from where it was not made.
func TestNothingTouchesAnotherNamespace(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false)[1:3])
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	after := l.projection(p)
	other := newLab(t)
	other.dir, other.host = l.dir, l.host
	if out, err := other.play("rollback"); err == nil || !strings.Contains(out, "another network namespace") {
		t.Errorf("rollback: %v\n%s", err, out)
	}
	if d := diff(after, l.projection(p)); d != "" {
		t.Errorf("it was undone:\n%s", d)
	}
	if out, err := l.play("rollback"); err != nil {
		t.Errorf("rollback where it belongs: %v\n%s", err, out)
	}
}

// TestContainerStartedAgain applies a change in a namespace that goes, with all that runs in
// it: on the same kernel, as when a container is started again.
func TestContainerStartedAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false)[1:3])
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=600000"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	next := newLab(t)
	before := next.projection(p)
	again := *l
	again.ns = next.ns
	var s *Status
	var err error
	again.ns.Do(func() { s, err = again.engine().Status() })
	if err != nil || s.Pending == nil || len(s.Alerts) == 0 {
		t.Errorf("while it lives: %+v, %v", s, err)
	}
	l.end()
	if out, err := exec.Command("ip", "netns", "delete", l.ns.Name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	again.ns.Do(func() { s, err = again.engine().Status() })
	if err != nil || s.Pending != nil || len(s.Alerts) > 0 || len(s.Unseen) != 1 || s.Unseen[0].Event != "reverted-by-reboot" {
		t.Errorf("afterwards: %+v, %v", s, err)
	}
	if d := diff(before, next.projection(p)); d != "" {
		t.Errorf("the new namespace was changed:\n%s", d)
	}
	if out, err := again.play("apply", "SIXFENCE_TEST_TIMEOUT=600000"); err != nil {
		t.Errorf("apply there: %v\n%s", err, out)
	}
	if out, err := again.play("rollback"); err != nil {
		t.Errorf("rollback there: %v\n%s", err, out)
	}
}

// TestWhereNothingCanBeWritten refuses, before anything is changed, what confirm could not
// finish, and what could not be undone.
func TestWhereNothingCanBeWritten(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := l.plan(l.all(false))
	before := l.projection(p)
	mount := func(dir string, flags uintptr) func() {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=755"); err != nil {
			t.Fatal(err)
		}
		end := func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }
		t.Cleanup(end)
		return end
	}
	end := mount(l.host.Root+"/etc/modprobe.d", unix.MS_RDONLY)
	p.Steps[len(p.Steps)-2].Before = change.Image{Absent: true} // what is mounted over it hides it
	p.Steps[len(p.Steps)-2].After = change.Image{Text: "x", Mode: 0o644}
	l.write(p)
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err == nil || !strings.Contains(out, "confirm could not write") {
		t.Errorf("a read-only directory: %v\n%s", err, out)
	}
	end()
	l.plan(l.all(false))
	if err := os.MkdirAll(l.state(), 0o700); err != nil {
		t.Fatal(err)
	}
	mount(l.state(), unix.MS_NOEXEC)
	if err := os.Chmod(l.state(), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err == nil || !strings.Contains(out, "nothing may be executed") {
		t.Errorf("a state directory that is noexec: %v\n%s", err, out)
	}
	if d := diff(before, l.projection(p)); d != "" {
		t.Errorf("changed:\n%s", d)
	}
}

// TestQuestionsLeaveNothing asks every verb on a host on which nothing was ever changed.
func TestQuestionsLeaveNothing(t *testing.T) {
	testlab.RequireRoot(t)
	e := &Engine{StateDir: t.TempDir() + "/a/b", Host: &mutate.Host{Layer: &store.Layer{}}}
	_, confirm := e.Confirm(t.Context(), ConfirmOptions{})
	_, rollback := e.Rollback(t.Context())
	_, _, former := e.Former("")
	if !errors.Is(confirm, ErrNothing) || !errors.Is(rollback, ErrNothing) || !errors.Is(former, ErrNothing) {
		t.Errorf("confirm %v, rollback %v, former %v", confirm, rollback, former)
	}
	out, resume := e.Resume()
	_, status := e.Status()
	if seen := e.Acknowledge(); out != nil || resume != nil || status != nil || seen != nil {
		t.Errorf("resume %v, status %v, acknowledge %v", resume, status, seen)
	}
	if _, err := os.Stat(filepath.Dir(e.StateDir)); !os.IsNotExist(err) {
		t.Errorf("it was made: %v", err)
	}
}

// TestSuspects names the files that may have undone us.
func TestSuspects(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"/etc/sysctl.d/50-x.conf": "# comment\n-net/ipv6/conf/eth0.1/accept_ra = 1\nnet.ipv6.conf.eth1.accept_ra=2\n",
		"/etc/ufw/sysctl.conf":    "net/ipv6/conf/eth1/accept_ra=1\n",
		"/etc/nftables.conf":      "#!/usr/sbin/nft -f\n\nflush ruleset\n",
	} {
		if err := os.MkdirAll(filepath.Dir(root+name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e := &Engine{Host: &mutate.Host{Root: root}}
	for _, c := range []struct {
		s    change.Step
		now  string
		want string
	}{
		{change.Step{Kind: change.Sysctl, Target: "net/ipv6/conf/eth1/accept_ra"}, "= 2", "50-x.conf"},
		{change.Step{Kind: change.Sysctl, Target: "net/ipv6/conf/eth1/accept_ra"}, "= 1", "ufw"},
		{change.Step{Kind: change.Sysctl, Target: "net/ipv6/conf/eth1/accept_ra"}, "= 0", ""},
		{change.Step{Kind: change.Table, Target: "inet sixfence"}, mutate.Absent, "/etc/nftables.conf"},
		{change.Step{Kind: change.Table, Target: "inet sixfence"}, "table x", ""},
	} {
		got := strings.Join(e.suspects(c.s, c.now, time.Time{}), "; ")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %q, want %q", c.s.Target, c.now, got, c.want)
		}
	}
}
