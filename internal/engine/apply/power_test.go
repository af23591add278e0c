package apply

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// node is a file or a directory of the disk: as programs see it, and as much of it as
// is on the platter for certain.
type node struct {
	dir       bool
	mode      os.FileMode
	link      string
	cur, syn  []byte // content now, and at the last fsync
	now, sure map[string]*node
}

// disk replays operations of the file layer and cuts the power behind any of them.
type disk struct {
	root    *node
	pending []unit // changes of names that no fsync of a directory has covered
}

type unit []entry // takes place as a whole, or not at all

type entry struct {
	in   *node
	name string
	to   *node // nil: removed
}

func newDir() *node {
	return &node{dir: true, mode: 0o755, now: map[string]*node{}, sure: map[string]*node{}}
}

// load reads a tree as it is: all of it is durable.
func load(path string) *node {
	st, err := os.Lstat(path)
	if err != nil {
		return newDir()
	}
	if !st.IsDir() {
		b, _ := os.ReadFile(path)
		return &node{mode: st.Mode().Perm(), cur: b, syn: b}
	}
	d := newDir()
	d.mode = st.Mode().Perm()
	es, _ := os.ReadDir(path)
	for _, e := range es {
		n := load(filepath.Join(path, e.Name()))
		d.now[e.Name()], d.sure[e.Name()] = n, n
	}
	return d
}

func (d *disk) find(path string) *node {
	n := d.root
	for _, w := range strings.Split(strings.Trim(path, "/"), "/") {
		if n == nil || w == "" {
			continue
		}
		n = n.now[w]
	}
	return n
}

func (d *disk) in(path string) (*node, string) {
	return d.find(filepath.Dir(path)), filepath.Base(path)
}

func (d *disk) names(u unit) {
	for _, e := range u {
		if e.to == nil {
			delete(e.in.now, e.name)
		} else {
			e.in.now[e.name] = e.to
		}
	}
	d.pending = append(d.pending, u)
}

func (u unit) settle() {
	for _, e := range u {
		if e.to == nil {
			delete(e.in.sure, e.name)
		} else {
			e.in.sure[e.name] = e.to
		}
	}
}

func (d *disk) do(o store.Op) {
	in, name := d.in(o.Path)
	if in == nil && o.Kind == store.OpRemove {
		return // the copy of the program, in a directory that has moved
	}
	if in == nil && o.Kind != store.OpSyncDir {
		panic("no directory for " + o.Path)
	}
	switch o.Kind {
	case store.OpMkdir:
		n := newDir()
		n.mode = os.FileMode(o.Mode)
		d.names(unit{{in, name, n}})
	case store.OpCreate:
		d.names(unit{{in, name, &node{mode: os.FileMode(o.Mode)}}})
	case store.OpSymlink:
		d.names(unit{{in, name, &node{link: string(o.Data)}}})
	case store.OpWrite:
		in.now[name].cur = append(slices.Clone(in.now[name].cur), o.Data...)
	case store.OpSync:
		if n := in.now[name]; n != nil { // the copy of the program is not modelled
			n.syn = n.cur
		}
	case store.OpRename, store.OpMove:
		to, other := d.in(o.To)
		n := in.now[name]
		d.names(unit{{in, name, nil}, {to, other, n}})
	case store.OpExchange:
		to, other := d.in(o.To)
		a, b := in.now[name], to.now[other]
		d.names(unit{{in, name, b}, {to, other, a}})
	case store.OpRemove, store.OpRmdir:
		if in.now[name] != nil {
			d.names(unit{{in, name, nil}})
		}
	case store.OpSyncDir:
		dir := d.find(o.Path)
		var rest []unit
		for _, u := range d.pending {
			if slices.ContainsFunc(u, func(e entry) bool { return e.in == dir }) {
				u.settle()
			} else {
				rest = append(rest, u)
			}
		}
		d.pending = rest
	}
}

// cut is what the disk may hold after a power cut now: of what was not waited for, any
// part, in any order, torn anywhere.
func (d *disk) cut(r *rand.Rand, to string) error {
	lost := r.IntN(3) // nothing of it, all of it, or anything
	if lost > 0 {
		for _, u := range d.pending {
			if lost == 1 || r.IntN(2) == 0 {
				u.settle()
			}
		}
	}
	return d.root.write(to, r)
}

func (n *node) write(path string, r *rand.Rand) error {
	if n.link != "" {
		return os.Symlink(n.link, path)
	}
	if !n.dir {
		b := n.syn
		if !bytes.Equal(n.syn, n.cur) {
			switch r.IntN(4) {
			case 0: // as it was at the last fsync
			case 1:
				b = n.cur
			case 2:
				b = n.cur[:len(n.syn)+r.IntN(len(n.cur)-len(n.syn)+1)]
			default: // its size and not its blocks
				b = append(slices.Clone(n.syn), make([]byte, len(n.cur)-len(n.syn))...)
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
		return os.Chmod(path, n.mode)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	for name, e := range n.sure {
		if err := e.write(filepath.Join(path, name), r); err != nil {
			return err
		}
	}
	return os.Chmod(path, n.mode)
}

// noArm arms nothing: the cut ends every process.
type noArm struct{}

func (noArm) Arm(string, string, string, time.Duration) (Arming, error) {
	return Arming{How: "none"}, nil
}
func (noArm) Disarm(Arming) {}

// TestPowerCuts replays every prefix of what apply and confirm, or apply and rollback,
// write, and boots what is left.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	cuts, repeat := 20, 1
	if s := os.Getenv("HARDEN_CUTS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		if cuts, repeat = n, 1; n == 0 {
			repeat = 4
		}
	}
	r := rand.New(rand.NewPCG(3, 3))
	tally := map[string]int{}
	for _, ending := range []string{"confirm", "rollback"} {
		l := newLab(t)
		// What systemctl writes is not in the log: TestPowerCutsOnExt4 has it.
		p := l.plan(slices.DeleteFunc(l.all(false), func(s change.Step) bool { return s.Kind == change.Unit }))
		before := l.projection(p)
		initial := load(l.dir)
		var ops []store.Op
		e := l.engine()
		e.Arm = noArm{}
		e.Host.Layer.After = func(o store.Op) {
			o.Data = slices.Clone(o.Data)
			o.Path = strings.TrimPrefix(o.Path, l.dir)
			o.To = strings.TrimPrefix(o.To, l.dir)
			ops = append(ops, o)
		}
		committedAt := -1
		l.ns.Do(func() {
			if _, err := e.Apply(labContext, p, Options{Timeout: time.Hour}); err != nil {
				t.Errorf("apply: %v", err)
				return
			}
			var err error
			if ending == "confirm" {
				_, err = e.Confirm(labContext, ConfirmOptions{})
			} else {
				_, err = e.Rollback(labContext)
			}
			if err != nil {
				t.Errorf("%s: %v", ending, err)
			}
		})
		e.Host.Layer.After = nil
		for i, o := range ops {
			if strings.HasSuffix(o.To, "/is-committed") {
				committedAt = i
			}
		}
		after := l.projection(p)
		if ending == "rollback" && diff(before, after) != "" || ending == "confirm" && diff(intended(t, p), after) != "" {
			t.Fatalf("%s without a cut:\n%s", ending, diff(before, after))
		}
		tally["operations of apply and "+ending] = len(ops)
		at := r.Perm(len(ops) + 1)
		if cuts > 0 {
			at = at[:min(cuts, len(at))]
			if committedAt >= 0 { // always around the point of commitment
				for i := -1; i < 8; i++ {
					at = append(at, committedAt+i)
				}
			}
		}
		var boot *lab
		for _, k := range at {
			for range repeat {
				tally["power cuts"]++
				if boot == nil {
					boot = newLab(t)
				}
				d := &disk{root: initial.clone()}
				for _, o := range ops[:k] {
					d.do(o)
				}
				boot.dir = t.TempDir()
				if err := d.cut(r, boot.dir); err != nil {
					t.Fatal(err)
				}
				boot.boot = "second-boot"
				boot.host = &mutate.Host{Root: boot.dir + "/root", Layer: &store.Layer{}}
				same := boot.recovered(p, before, after, fmt.Sprintf("%s, cut behind operation %d of %d (%s)", ending, k, len(ops), opName(ops, k)), tally)
				if !same {
					boot = nil // its kernel is another one now
				}
			}
		}
	}
	var b strings.Builder
	for _, k := range []string{"power cuts", "operations of apply and confirm", "operations of apply and rollback", "booted as before", "booted as intended"} {
		fmt.Fprintf(&b, "| %s | %d |\n", k, tally[k])
	}
	t.Logf("\n%s", b.String())
	if tally["booted as before"] == 0 || tally["booted as intended"] == 0 {
		t.Error("one of the two ends never came: the cuts prove nothing")
	}
	report(t, 5, "Power cuts, replayed from the log of the file layer", b.String())
}

func opName(ops []store.Op, k int) string {
	if k == 0 {
		return "before the first"
	}
	return string(ops[k-1].Kind) + " " + ops[k-1].Path
}

func (n *node) clone() *node {
	c := *n
	if n.dir {
		c.now, c.sure = map[string]*node{}, map[string]*node{}
		for k, v := range n.sure {
			x := v.clone()
			c.now[k], c.sure[k] = x, x
		}
	}
	return &c
}

// load is the boot: it reads the files that are there, and makes the kernel so.
func (l *lab) load(p *change.Plan) {
	l.t.Helper()
	as := func(id string) bool {
		for _, s := range p.Steps {
			if s.ID == id {
				now, err := l.host.State(s.Kind, s.Target)
				want, _ := l.host.Want(s.Kind, s.Target, s.After)
				return err == nil && now == want
			}
		}
		return false
	}
	table, rest := as("file:changed"), as("file:new")
	l.ns.Do(func() {
		for _, s := range p.Steps {
			if s.Phase != change.Runtime || s.Kind == change.Table && !table || s.Kind != change.Table && !rest {
				continue
			}
			if err := l.host.Set(s.Kind, s.Target, s.After); err != nil {
				l.t.Errorf("boot: %v", err)
			}
		}
	})
}

// recovered boots what a power cut left and judges it. It tells whether the kernel is
// as before.
func (l *lab) recovered(p *change.Plan, before, after []string, what string, tally map[string]int) bool {
	l.t.Helper()
	l.load(p)
	if out, err := l.play("resume"); err != nil {
		l.t.Errorf("%s: resume: %v\n%s", what, err, out)
		return false
	}
	first := l.projection(p)
	was := diff(before, first) == ""
	switch {
	case was:
		tally["booted as before"]++
	case l.settled(p, after, patience) == "":
		tally["booted as intended"]++
	default:
		l.t.Errorf("%s: a third state; to before:\n%sto intended:\n%s", what, diff(before, first), diff(after, first))
		return false
	}
	var s *Status
	var err error
	l.ns.Do(func() { s, err = l.engine().Status() })
	if err != nil || s.Pending != nil || len(s.Alerts) > 0 {
		l.t.Errorf("%s: status %+v, %v", what, s, err)
	}
	names, _ := os.ReadDir(l.state())
	for _, n := range names {
		if !slices.Contains([]string{"lock", "history.jsonl", ".history.jsonl.new", "past"}, n.Name()) {
			l.t.Errorf("%s: left behind: %s", what, n.Name())
		}
	}
	return was
}

// TestPowerCutsOnExt4 stops the processes anywhere, copies the image that their files
// are on, and boots the copy: what a real file system makes of a power cut.
func TestPowerCutsOnExt4(t *testing.T) {
	t.Parallel()
	if !testlab.Apart(t) {
		return
	}
	runs := 4
	if s := os.Getenv("HARDEN_CUTS"); s != "" {
		if runs = 60; s != "0" {
			runs, _ = strconv.Atoi(s)
		}
	}
	r := rand.New(rand.NewPCG(5, 5))
	tally := map[string]int{}
	for n := range runs {
		l := newLab(t)
		base := l.dir
		image, mnt := base+"/image", base+"/mnt"
		sh(t, "truncate", "-s", "96M", image)
		sh(t, "mkfs.ext4", "-q", "-F", image)
		if err := os.Mkdir(mnt, 0o755); err != nil {
			t.Fatal(err)
		}
		sh(t, "mount", "-o", "loop,commit=300", image, mnt)
		sh(t, "cp", "-a", l.host.Root, mnt+"/root")
		sh(t, "sync", "-f", mnt)
		l.dir, l.host.Root = mnt, mnt+"/root"
		p := l.plan(l.all(false))
		before := l.projection(p)
		role, at := "apply", 5+r.IntN(110)
		if n%2 == 0 {
			role, at = "confirm", 1+r.IntN(100)
			if out, err := l.play("apply", "SIXFENCE_TEST_TIMEOUT=60000"); err != nil {
				t.Fatalf("apply: %v\n%s", err, out)
			}
		}
		c := l.command(role, fmt.Sprintf("SIXFENCE_TEST_FAULT=stop:%d", at), "SIXFENCE_TEST_TIMEOUT=60000")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var ws unix.WaitStatus
		_, _ = unix.Wait4(c.Process.Pid, &ws, unix.WUNTRACED, nil)
		if ws.Stopped() {
			tally["stopped in "+role]++
		}
		sh(t, "cp", image, base+"/copy")
		_ = c.Process.Kill()
		l.end()
		if ws.Stopped() {
			_, _ = unix.Wait4(c.Process.Pid, &ws, 0, nil)
		}
		unmount(t, mnt)
		if err := os.Mkdir(base+"/mnt2", 0o755); err != nil {
			t.Fatal(err)
		}
		sh(t, "mount", "-o", "loop", base+"/copy", base+"/mnt2")
		boot := newLab(t)
		boot.dir, boot.boot = base+"/mnt2", "second-boot"
		boot.host.Root = boot.dir + "/root"
		boot.recovered(p, before, intended(t, p), fmt.Sprintf("%s, stopped at crossing %d", role, at), tally)
		boot.end()
		unmount(t, base+"/mnt2")
	}
	fmt.Printf("| images | %d |\n| of a stopped apply | %d |\n| of a stopped confirm | %d |\n| booted as before | %d |\n| booted as intended | %d |\n", runs, tally["stopped in apply"], tally["stopped in confirm"], tally["booted as before"], tally["booted as intended"])
	report(t, 6, "Power cuts on ext4", fmt.Sprintf("| images copied | %d |\n| of a stopped apply | %d |\n| of a stopped confirm | %d |\n| booted as before | %d |\n| booted as intended | %d |\n", runs, tally["stopped in apply"], tally["stopped in confirm"], tally["booted as before"], tally["booted as intended"]))
}

// unmount waits for processes that were killed and have not ended yet.
func unmount(t *testing.T, dir string) {
	t.Helper()
	var out []byte
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if out, err = exec.Command("umount", dir).CombinedOutput(); err == nil {
			return
		}
	}
	t.Fatalf("umount: %v\n%s", err, out)
}

func sh(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
