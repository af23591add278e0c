package apply

import (
	"os"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/change"
)

// Of a file in which only a block is ours, status compares the block: what others write
// above it is theirs; what comes below may override it.
func TestDriftOfABlock(t *testing.T) {
	t.Parallel()
	const theirs, block = "hostname\n", "# sixfence begin: from the intent; these lines are its own, write above them\ninterface eth0\nnoipv6rs\n# sixfence end\n"
	l := newLab(t)
	file := l.host.Root + "/etc/dhcpcd.conf"
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(theirs)
	l.plan([]change.Step{{ID: "file:/etc/dhcpcd.conf", Kind: change.File, Phase: change.Persist, Target: "/etc/dhcpcd.conf", Before: change.Image{Text: theirs, Mode: 0o644}, After: change.Image{Text: theirs + block, Mode: 0o644}}})
	l.must(t, "apply")
	l.must(t, "confirm")
	drift := func() (out []Drift) {
		t.Helper()
		l.ns.Do(func() {
			s, err := l.engine().Status()
			if err != nil {
				t.Error(err)
				return
			}
			out = s.Drift
		})
		return out
	}
	for _, text := range []string{theirs + block, "duid\n" + theirs + block, "none of theirs\n" + block, strings.TrimSuffix(theirs+block, "\n")} {
		put(text)
		if d := drift(); len(d) > 0 {
			t.Errorf("%q: %+v", text, d)
		}
	}
	for _, text := range []string{theirs, "", theirs + block + "ipv6rs\n", strings.ReplaceAll(theirs+block, "\n", "\r\n"), strings.Replace(theirs+block, "noipv6rs\n", "", 1), theirs + block + block, strings.Replace(theirs+block, "# sixfence end\n", "", 1)} {
		put(text)
		if d := drift(); len(d) != 1 || d[0].Where != "disk" || d[0].Want != "with our lines" {
			t.Errorf("%q: %+v", text, d)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if d := drift(); len(d) != 1 || d[0].Now != "absent" {
		t.Errorf("without the file: %+v", d)
	}
}

// What confirm could not do beside the files, as an initramfs for which there is no room,
// is in the history, and status goes on saying it.
func TestWhatConfirmCouldNotDo(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.plan([]change.Step{
		{ID: "file:/etc/modprobe.d/00-sixfence.conf", Kind: change.File, Phase: change.Persist, Target: "/etc/modprobe.d/00-sixfence.conf", Before: change.Image{Absent: true}, After: change.Image{Text: "blacklist sit\n", Mode: 0o644}},
		{ID: "action:initramfs", Kind: change.Action, Phase: change.AfterConfirm, Target: "initramfs"},
	})
	l.must(t, "apply")
	if out, err := l.play("confirm", "SIXFENCE_TEST_FAULT=eperm:action initramfs"); err != nil { // it is never called
		t.Fatalf("confirm: %v\n%s", err, out)
	}
	l.ns.Do(func() {
		s, err := l.engine().Status()
		if err != nil || s.Confirmed == nil || len(s.Confirmed.Failed) != 1 || !strings.Contains(s.Confirmed.Failed[0], "initramfs") {
			t.Errorf("status: %+v, %v", s, err)
		}
	})
}
