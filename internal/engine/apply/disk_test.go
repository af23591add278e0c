package apply

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/testlab"
)

// fillDisk writes until nothing more fits, as somebody's log does.
func fillDisk(dir string) {
	const most = 128 << 20 // the image is smaller: never the disk of the machine
	var st unix.Statfs_t
	if !filepath.IsAbs(dir) || unix.Statfs(dir, &st) != nil || st.Blocks*uint64(st.Bsize) > most {
		panic("not the image of the test: " + dir)
	}
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	for _, n := range []int{1 << 20, 4096, 64, 1} {
		b := make([]byte, n)
		for {
			if _, err := f.Write(b); err != nil {
				break
			}
		}
	}
	_ = f.Sync() // what is only promised is taken now
}

// TestFullDisk has the state and the files on a real ext4 of a few megabytes, which is
// full before something begins, or becomes full at some crossing of it, and stays so: the
// kernel is as before, or all is as intended; the error says what is the matter; and
// with room again the next command ends it.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if !testlab.Apart(t) {
		return
	}
	every := 97
	if s := os.Getenv("HARDEN_DISK"); s != "" {
		if _, err := fmt.Sscan(s, &every); err != nil {
			t.Fatal(err)
		}
	}
	first := newLab(t)
	p := first.plan(first.all(false))
	before, after := first.projection(p), intended(t, p)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(self)
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	image, mnt := base+"/image", base+"/mnt"
	sh(t, "truncate", "-s", fmt.Sprint(st.Size()+16<<20), image) // the program, and a few megabytes
	sh(t, "mkfs.ext4", "-q", "-F", "-m", "0", image)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	sh(t, "mount", "-o", "loop", image, mnt)
	defer unmount(t, mnt)
	if err := os.Setenv("SIXFENCE_TEST_DISK", mnt); err != nil {
		t.Fatal(err)
	}
	tally := newTally()
	for i, role := range scenarios {
		last := map[string]int{"apply": 115, "confirm": 110, "rollback": 87, "undo": 91}[role]
		for at := 0; at <= last; {
			name := fmt.Sprintf("%s/%d", role, at)
			ok := t.Run(name, func(t *testing.T) {
				l := newLab(t)
				defer l.unwatch()
				dir := fmt.Sprintf("%s/%s-%d", mnt, role, at)
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				defer os.RemoveAll(dir)
				sh(t, "cp", "-a", l.host.Root, dir+"/root")
				l.dir, l.host.Root = dir, dir+"/root"
				l.write(p)
				x := crossing(l, role, "fill", at)
				x.p = p
				x.full(t, role, at, before, after, mnt, tally)
			})
			if !ok {
				tally.count["failed"]++
			}
			if at == 0 {
				at = 1 + (5*i)%every // 0 was: full before it began
			} else {
				at += every
			}
		}
	}
	tally.report(t, 3, "A disk that is really full", nil)
}

// full plays the trial on a disk that fills.
func (x *trial) full(t *testing.T, role string, at int, before, after []string, mnt string, tally *tally) {
	tally.count["runs"]++
	must := func(role, f string) {
		t.Helper()
		if out, err := x.play(role, f); err != nil {
			t.Fatalf("%s: %v\n%s", role, err, out)
		}
	}
	switch role {
	case "apply":
	case "undo":
		x.undo = "none:0"
		if at > 0 {
			x.undo = fmt.Sprintf("fill:%d", at)
		}
		x.timeout = 1500 * time.Millisecond
		if out, err := x.play("apply", "none:0"); err != nil && !strings.Contains(out, "no space left") && !strings.Contains(out, "did not start") && !strings.Contains(out, "the time was up") {
			t.Errorf("the error is not clear: %s", out)
		}
	default:
		must("apply", "none:0")
	}
	if at == 0 {
		fillDisk(mnt)
	}
	var out string
	var err error
	if role != "undo" {
		f := "none:0"
		if at > 0 {
			f = fmt.Sprintf("fill:%d", at)
		}
		out, err = x.play(role, f)
		if err != nil && !strings.Contains(out, "no space left on device") {
			t.Errorf("the error is not clear: %s", out)
		}
		if err != nil {
			tally.count[role+" failed, and said that the disk is full"]++
		}
	}
	// The process that waits comes to its crossing after the deadline.
	for end := time.Now().Add(patience); role == "undo" && !x.l.ended(0) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(mnt, "filler")); err == nil && !x.l.waits() {
			break
		}
	}
	// Without any help and with the disk still full: what is not kept is undone in the kernel.
	kept := func() bool {
		_, err := os.Stat(x.l.state() + "/" + pendingDir + "/is-" + string(committed))
		rs, _ := x.l.engine().History()
		return err == nil || len(rs) > 0 && rs[len(rs)-1].Event == "confirmed"
	}
	kernel := func(ls []string) (out []string) {
		for _, s := range ls {
			if !strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "file:") && !strings.HasPrefix(s, "unit ") {
				out = append(out, s)
			}
		}
		return out
	}
	d := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if x.l.waits() {
			break // a confirmation that failed, or the deadline to come
		}
		want := before
		if kept() {
			want = after
		}
		if d = diff(kernel(want), kernel(x.l.projection(x.p))); d == "" {
			break
		}
	}
	if d != "" {
		t.Errorf("with the disk full, the kernel is neither:\n%s%s%s", d, x.story, x.l.log())
	}
	if x.l.waits() && role != "undo" && role != "apply" {
		tally.count[role+" failed and left it waiting"]++
		if out, err := x.play("rollback", "none:0"); err != nil && !strings.Contains(out, "no space left on device") {
			t.Errorf("rollback on a full disk: %v\n%s", err, out)
		}
	}
	if err := os.Remove(filepath.Join(mnt, "filler")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	sh(t, "sync", "-f", mnt)
	for end := time.Now().Add(patience); !x.l.ended(0) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		role := "resume"
		if x.l.waits() {
			role = "rollback"
		}
		_, _ = x.play(role, "none:0")
	}
	if !x.l.ended(0) {
		t.Fatalf("with room again it never ended: %s%s", x.story, x.l.log())
	}
	want, word := before, "before"
	if kept() {
		want, word = after, "intended"
	}
	if d := x.l.settled(x.p, want, patience); d != "" {
		t.Errorf("it is not as %s:\n%s%s%s", word, d, x.story, x.l.log())
	}
	tally.count["ended as "+word]++
	if out, err := x.l.play("resume"); err != nil {
		t.Errorf("resume: %v %s", err, out)
	}
}
