package collect

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

func encode(s *fact.Snapshot) ([]byte, error) { return json.Marshal(s) }

func collect(t testing.TB, o Options) *fact.Snapshot {
	t.Helper()
	c, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	return c.Snapshot()
}

func find(s *fact.Snapshot, inode uint64) *fact.Namespace {
	for i := range s.Namespaces {
		if s.Namespaces[i].ID.Inode == inode {
			return &s.Namespaces[i]
		}
	}
	return nil
}

// A process makes a namespace, listens in it, leaves it, and keeps the socket.
func TestNamespaceThatOnlyASocketKeepsIsAudited(t *testing.T) {
	testlab.RequireRoot(t)
	pid, sock, hidden := actor(t, nil, nil, "hidden")
	s := collect(t, Options{})
	ns := find(s, hidden)
	if ns == nil {
		t.Fatalf("namespace %d was not found; orphans %v, gaps %v", hidden, s.Host.Orphans, s.Gaps)
	}
	socks, ok := ns.Sockets.Get()
	if !ok || len(socks) != 1 {
		t.Fatalf("sockets: %+v", ns.Sockets)
	}
	owners, _ := socks[0].Owners.Get()
	if socks[0].Inode != sock || socks[0].Port != 8443 || !slices.Equal(owners, []int{pid}) || socks[0].V6Only.Or(true) {
		t.Errorf("%+v", socks[0])
	}
	if ns.Name != fmt.Sprintf("net:[%d]", hidden) || ns.IsSelf || ns.IsInit || ns.Foreign {
		t.Errorf("%+v", ns)
	}
	procs, _ := s.Host.Processes.Get()
	if !slices.ContainsFunc(procs, func(p fact.Process) bool { return p.PID == pid }) {
		t.Error("its process is not listed")
	}
	if o, ok := s.Host.Orphans.Get(); ok && len(o) > 0 {
		t.Errorf("orphans although the namespace was entered: %+v", o)
	}
}

// Nothing in /proc shows a namespace whose last descriptor is in flight; the
// link into it does.
func TestPeerInANamespaceThatWasNotFoundIsAGap(t *testing.T) {
	peer := testlab.NewNS(t, "peer")
	other := testlab.NewNS(t, "other")
	testlab.Link(peer, "known0", other, "known1")
	_, _, hidden := actor(t, nil, nil, "inflight", "SIXFENCE_TEST_PEER="+peer.Name)
	s := collect(t, Options{})
	if find(s, hidden) != nil {
		t.Fatal("it was found; the test shows nothing")
	}
	var lost []string
	for _, g := range s.Gaps {
		if strings.Contains(g.What, "was not found") && strings.Contains(g.What, peer.Name) {
			lost = append(lost, g.What)
		}
	}
	if len(lost) != 1 {
		t.Errorf("gaps about it: %q, all %v", lost, s.Gaps)
	}
}

func TestNamesAndOwners(t *testing.T) {
	ns := testlab.NewNS(t, "name")
	ns.Start("sleep", "60")
	s := collect(t, Options{})
	got := find(s, ns.Inode())
	if got == nil {
		t.Fatal("not found")
	}
	owner, ok := got.Owner.Get()
	if got.Name != ns.Name || !slices.Contains(got.Paths, "/run/netns/"+ns.Name) || got.Users < 1 || got.IsInit || got.IsSelf || got.Foreign || !ok || !owner.Initial || owner.UID != 0 {
		t.Errorf("%q %v users=%d init=%v self=%v foreign=%v %+v", got.Name, got.Paths, got.Users, got.IsInit, got.IsSelf, got.Foreign, owner)
	}
	seen := map[string]bool{}
	inits, selves := 0, 0
	for _, n := range s.Namespaces {
		if seen[n.Name] {
			t.Errorf("two namespaces are called %q", n.Name)
		}
		seen[n.Name] = true
		if n.IsInit {
			inits++
		}
		if n.IsSelf {
			selves++
		}
	}
	if selves != 1 || inits > 1 || !s.Namespaces[0].IsSelf && !s.Namespaces[0].IsInit {
		t.Errorf("%d self, %d init", selves, inits)
	}
	// Seen from inside, it is "self", and init is another.
	exe := actorBinary(t)
	c := ns.Command(exe)
	c.Env = append(os.Environ(), "SIXFENCE_TEST_ROLE=collect")
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var inner fact.Snapshot
	if err := json.Unmarshal(out, &inner); err != nil {
		t.Fatal(err)
	}
	if got := find(&inner, ns.Inode()); got == nil || got.Name != "self" || !got.IsSelf || got.IsInit {
		t.Errorf("from inside: %+v", got)
	}
	if inner.Host.Privilege.InitialNetNS {
		t.Error("it is not the initial one")
	}
	if s.Namespaces[0].IsInit && inner.Namespaces[0].Name != "init" {
		t.Errorf("from inside, the initial one is %q", inner.Namespaces[0].Name)
	}
}

// /run/netns may hold anything.
func TestStrangeThingsUnderRunNetns(t *testing.T) {
	ns := testlab.NewNS(t, "odd")
	script := `set -e
mount -t tmpfs none /run/netns
mkfifo /run/netns/fifo
touch /run/netns/stale
ln -s /proc/$$/ns/net /run/netns/link
ln -s /run/netns/fifo /run/netns/tofifo
ln -s /proc/$$/ns/mnt /run/netns/mnt
mkdir /run/netns/dir
touch /run/netns/bound && mount --bind /proc/$$/ns/net /run/netns/bound
touch /run/netns/uts && mount --bind /proc/$$/ns/uts /run/netns/uts
exec "$0"`
	c := exec.Command("ip", "netns", "exec", ns.Name, "unshare", "-m", "sh", "-c", script, actorBinary(t))
	c.Env = append(os.Environ(), "SIXFENCE_TEST_ROLE=collect")
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var s fact.Snapshot
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	got := find(&s, ns.Inode())
	if got == nil || got.Name != "self" || !slices.Contains(got.Paths, "/run/netns/link") || !slices.Contains(got.Paths, "/run/netns/bound") {
		t.Errorf("%+v", got)
	}
	for _, n := range s.Namespaces {
		for _, p := range n.Paths {
			if p == "/run/netns/uts" || p == "/run/netns/mnt" || p == "/run/netns/fifo" || p == "/run/netns/stale" {
				t.Errorf("%s is no network namespace", p)
			}
		}
	}
}

// Namespaces mounted in another mount namespace only, without a process inside.
func TestMountsOfOtherMountNamespaces(t *testing.T) {
	script := `mount -t tmpfs none /mnt && touch "/mnt/a b" &&
unshare -n sh -c 'mount --bind /proc/self/ns/net "/mnt/a b"; stat -Lc "ready 0 %i" /proc/self/ns/net' && exec sleep 3600`
	c := exec.Command("unshare", "-m", "sh", "-c", script)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	var zero, inside uint64
	if _, err := fmt.Fscanf(out, "ready %d %d\n", &zero, &inside); err != nil {
		t.Fatal(err)
	}
	got := find(collect(t, Options{}), inside)
	if got == nil || got.Users != 0 {
		t.Fatalf("%+v", got)
	}
	if _, ok := got.Sockets.Get(); !ok {
		t.Errorf("it was not entered: %+v", got.Sockets)
	}
}

func TestUsersNamespacesAreFoldedAndCannotDisplaceTheHosts(t *testing.T) {
	n := 300
	if v := os.Getenv("SIXFENCE_TEST_CROWD"); v != "" {
		n, _ = strconv.Atoi(v)
	}
	testlab.RequireRoot(t)
	ns := testlab.NewNS(t, "host")
	ns.Do(func() {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet6{Port: 443})
		}
		if err == nil {
			err = unix.Listen(fd, 1)
		}
		if err != nil {
			t.Error(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
	})
	_, made, uid := actor(t, nobody, nil, "crowd", "SIXFENCE_TEST_COUNT="+strconv.Itoa(n))
	if int(made) != n || uid != 65534 {
		t.Fatalf("%d namespaces by %d", made, uid)
	}
	const limit = 8
	s := collect(t, Options{Budgets: Budgets{Spaces: limit}})
	host := find(s, ns.Inode())
	if host == nil {
		t.Fatal("the host's own namespace is missing")
	}
	if socks, ok := host.Sockets.Get(); !ok || len(socks) != 1 {
		t.Errorf("its sockets: %+v", host.Sockets)
	}
	foreign, theirs, lastOwn := 0, 0, 0
	for i, n := range s.Namespaces {
		if n.Foreign {
			foreign++
			if o, ok := n.Owner.Get(); !ok || o.Initial {
				t.Errorf("%s: owner %+v", n.Name, o)
			} else if o.UID == 65534 {
				theirs++
			}
		} else {
			lastOwn = i
		}
	}
	if foreign != limit || theirs == 0 || lastOwn != len(s.Namespaces)-limit-1 {
		t.Errorf("%d strangers' namespaces, own until %d of %d", foreign, lastOwn, len(s.Namespaces))
	}
	var folded []fact.Gap
	for _, g := range s.Gaps {
		if strings.Contains(g.What, "made by users") {
			folded = append(folded, g)
		}
	}
	left := 0
	if len(folded) == 1 {
		_, _ = fmt.Sscanf(folded[0].What, "%d more", &left)
	}
	if len(folded) != 1 || folded[0].Reason != fact.Truncated || left < n-limit { // other tests may make some, too
		t.Errorf("gaps: %v", folded)
	}
}

func TestUnprivilegedSaysWhatIsMissing(t *testing.T) {
	ns := testlab.NewNS(t, "unpriv")
	c := exec.Command(actorBinary(t))
	c.Env = append(os.Environ(), "SIXFENCE_TEST_ROLE=collect")
	c.SysProcAttr = &syscall.SysProcAttr{}
	nobody(c)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var s fact.Snapshot
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	if s.Host.Privilege.UID != 65534 || len(s.Host.Privilege.Capabilities) != 0 {
		t.Errorf("%+v", s.Host.Privilege)
	}
	self := &s.Namespaces[0]
	if _, ok := self.Sockets.Get(); !ok || !self.IsSelf {
		t.Errorf("its own namespace: %+v", self.Sockets)
	}
	socks, _ := self.Sockets.Get()
	for _, k := range socks {
		if k.Owners.State() == fact.StateAbsent {
			t.Errorf("nobody owns %+v, says nobody", k)
		}
	}
	got := find(&s, ns.Inode())
	if got == nil {
		t.Fatal("a namespace under /run/netns was not even named")
	}
	if g, ok := got.Sockets.Gap(); !ok || g.Reason != fact.Permission || got.Name != ns.Name {
		t.Errorf("%s: %v", got.Name, g)
	}
	if g, ok := s.Host.Orphans.Gap(); !ok || g.Reason != fact.Permission {
		t.Errorf("orphans: %v %v", s.Host.Orphans.State(), g)
	}
	if !slices.ContainsFunc(s.Gaps, func(g fact.Gap) bool { return g.Reason == fact.Permission }) {
		t.Errorf("gaps: %v", s.Gaps)
	}
}
