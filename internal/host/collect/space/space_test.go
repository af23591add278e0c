package space

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

func TestMountinfo(t *testing.T) {
	t.Parallel()
	text := `21 1 8:1 / / rw - ext4 /dev/sda1 rw
30 21 0:4 net:[4026532177] /run/netns/blue rw shared:5 - nsfs nsfs rw
31 21 0:4 mnt:[4026532178] /run/snapd/ns/x.mnt rw - nsfs nsfs rw
32 21 0:4 net:[4026532179] /srv/a\040b\134c rw - nsfs nsfs rw
33 21 0:50 / /home/u/mnt rw - fuse.sshfs u@h: rw
34 33 0:4 net:[4026532180] /home/u/mnt/ns rw - nsfs nsfs rw
35 21 0:4 net:[4026532181] /home/u/mnt2 rw - nsfs nsfs rw
36 21 0:4 net:[x] /bad rw - nsfs nsfs rw
garbage
37 21 0:51 / /auto rw - autofs systemd-1 rw
38 37 0:4 net:[4026532182] /auto/ns rw - nsfs nsfs rw
`
	got := parseMountinfo([]byte(text))
	want := []nsMount{
		{4026532177, "/run/netns/blue", false},
		{4026532179, `/srv/a b\c`, false},
		{4026532180, "/home/u/mnt/ns", true},
		{4026532181, "/home/u/mnt2", false},
		{4026532182, "/auto/ns", true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestOnlyLinksToNamespacesOfProcessesAreFollowed(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"/proc/1/ns/net": true, "/proc/12/task/13/ns/net": true,
		"/proc/self/ns/net": false, "/proc/1/ns/mnt": false, "/proc/1/root/ns/net": false, "proc/1/ns/net": false,
		"/home/u/fuse/ns": false, "/proc/1/../ns/net": false, "/proc/-1/ns/net": false, "": false,
	} {
		if procLink(s) != want {
			t.Errorf("%q", s)
		}
	}
}

func TestOrderGivesEveryCreatorATurn(t *testing.T) {
	t.Parallel()
	var all []*found
	add := func(inode uint64, uid uint32, foreign bool) {
		f := &found{}
		f.Namespace.ID.Inode, f.Namespace.Foreign = inode, foreign
		f.Namespace.Owner = fact.Value(fact.UserNS{UID: uid, Initial: !foreign})
		all = append(all, f)
	}
	for i := range 100 {
		add(uint64(1000+i), 1001, true)
	}
	add(5000, 1002, true)
	add(6000, 0, false)
	all[101].names = []string{"blue"}
	all[100].names = []string{"blue"}
	order(all)
	name(all)
	if all[0].Namespace.ID.Inode != 6000 || all[1].Namespace.Foreign != true || all[2].Namespace.ID.Inode != 5000 {
		t.Errorf("%d %d %d", all[0].Namespace.ID.Inode, all[1].Namespace.ID.Inode, all[2].Namespace.ID.Inode)
	}
	if all[0].Namespace.Name != "blue" || all[2].Namespace.Name != "blue#5000" {
		t.Errorf("%q %q", all[0].Namespace.Name, all[2].Namespace.Name)
	}
}

func TestNamesDoNotPretend(t *testing.T) {
	t.Parallel()
	a, b, c := &found{names: []string{"init"}}, &found{names: []string{"self"}}, &found{container: strings.Repeat("a", 64)}
	a.Namespace.ID.Inode, b.Namespace.ID.Inode = 1, 2
	name([]*found{a, b, c})
	if a.Namespace.Name != "init#1" || b.Namespace.Name != "self#2" || c.Namespace.Name != "container:aaaaaaaaaaaa" {
		t.Errorf("%q %q %q", a.Namespace.Name, b.Namespace.Name, c.Namespace.Name)
	}
}

// What is no namespace is not opened, whatever it is.
func TestReopenRefusesWhatIsNotNsfs(t *testing.T) {
	t.Parallel()
	d := newDiscovery(ask.New(func(string) bool { return true }, false), nil)
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{dir + "/fifo": false, dir: false, "/dev/null": false, "/proc/self/status": false, "/proc/self/ns/net": true} {
		p, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := d.reopen(p)
		unix.Close(p)
		if (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			unix.Close(fd)
		}
	}
	fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if f := d.add(fd); f != nil {
		t.Errorf("a uts namespace was taken for %+v", f)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add([]byte("30 21 0:4 net:[4026532177] /run/netns/blue rw shared:5 - nsfs nsfs rw\n"))
	f.Add([]byte("32 21 0:4 net:[1] /srv/a\\040b\\ rw - nsfs nsfs rw\n33 21 0:50 / / rw - fuse x rw\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range parseMountinfo(b) {
			if m.inode == 0 || m.point == "" {
				t.Fatalf("%+v", m)
			}
		}
		_ = procLink(string(b))
	})
}

func FuzzNSIDs(f *testing.F) {
	f.Add([]byte{28, 0, 0, 0, 88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 5, 0, 0, 0})
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff})
	f.Add([]byte{16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, _, _ := parseNSIDs(b)
		if len(ids) > len(b)/8 {
			t.Fatal(fmt.Sprint(len(ids), " ids in ", len(b), " bytes"))
		}
	})
}
