package testlab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// disk is a file system in a file, on which everything lies that outlives a reboot.
type disk struct {
	image, at string
}

// OnDisk moves what outlives a reboot to a file system of its own. From then on a PowerCut
// leaves of it what had been written to the disk at that moment, and nothing more. The
// Machine must not run, and the test has to be Apart.
func (m *Machine) OnDisk() {
	m.t.Helper()
	if os.Getenv(apartEnv) == "" || m.cmd != nil {
		m.t.Fatal("a machine is put on a disk before it boots, by a test that is apart")
	}
	dir := m.t.TempDir()
	d := &disk{image: dir + "/image", at: dir + "/mnt"}
	if err := os.Mkdir(d.at, 0o755); err != nil {
		m.t.Fatal(err)
	}
	run(m.t, "truncate", "-s", "512M", d.image)
	run(m.t, RequireTool(m.t, "mkfs.ext4"), "-q", "-F", d.image)
	m.mount(d)
	m.t.Cleanup(func() { m.unmount(d) }) // whatever was started later has ended by then
	run(m.t, "cp", "-a", m.dir+"/.", d.at)
	run(m.t, "sync", "-f", d.at)
	m.dir, m.disk = d.at, d
}

func (m *Machine) mount(d *disk) {
	m.t.Helper()
	// The journal of the file system is written when somebody asks for it, and not by the clock.
	run(m.t, "mount", "-o", "loop,commit=300", d.image, d.at)
}

// unmount waits for processes that were killed and have not ended yet.
func (m *Machine) unmount(d *disk) {
	m.t.Helper()
	Eventually(m.t, time.Minute, "the disk of the machine to be free", func() bool { return exec.Command("umount", d.at).Run() == nil })
}

// cut ends every process, and makes the disk what it was in that moment.
func (m *Machine) cut() {
	// Nobody writes while it is copied.
	if err := os.WriteFile(m.cgroup+"/cgroup.freeze", []byte("1"), 0o600); err != nil {
		m.t.Errorf("freeze the machine: %v", err)
	}
	Eventually(m.t, 30*time.Second, "the machine to stand still", func() bool {
		b, err := os.ReadFile(m.cgroup + "/cgroup.events")
		return err != nil || strings.Contains(string(b), "frozen 1") || !m.Alive()
	})
	run(m.t, "cp", "--sparse=always", m.disk.image, m.disk.image+".cut")
	m.end()
	m.unmount(m.disk)
	if err := os.Rename(m.disk.image+".cut", m.disk.image); err != nil {
		m.t.Fatal(err)
	}
	m.mount(m.disk)
}

// SaveDisk keeps the disk of a Machine that does not run, for LoadDisk.
func (m *Machine) SaveDisk(name string) {
	m.t.Helper()
	m.swapDisk(func() { run(m.t, "cp", "--sparse=always", m.disk.image, m.saved(name)) })
}

// LoadDisk makes the disk what it was at SaveDisk.
func (m *Machine) LoadDisk(name string) {
	m.t.Helper()
	m.swapDisk(func() { run(m.t, "cp", "--sparse=always", m.saved(name), m.disk.image) })
}

func (m *Machine) saved(name string) string {
	return filepath.Join(filepath.Dir(m.disk.image), "saved-"+name)
}

func (m *Machine) swapDisk(f func()) {
	m.t.Helper()
	if m.disk == nil || m.cmd != nil {
		m.t.Fatal("only the disk of a machine that does not run can be exchanged")
	}
	m.unmount(m.disk)
	f()
	m.mount(m.disk)
}
