package testlab

import (
	"os"
	"strings"
	"testing"
)

func TestMachine(t *testing.T) {
	m := NewMachine(t, map[string]string{"/etc/sysctl.d/50-test.conf": "net.ipv6.conf.default.accept_ra = 0\n"})
	m.Boot()
	if s := m.Run("cat", "/proc/1/comm"); s != "systemd\n" {
		t.Errorf("PID 1 is %q", s)
	}
	if s := m.Run("cat", "/proc/sys/net/ipv6/conf/default/accept_ra"); s != "0\n" {
		t.Errorf("systemd-sysctl did not read our file: %q", s)
	}
	m.Run("touch", "/etc/mine", "/tmp/mine", "/run/mine")
	for _, p := range []string{"/usr/bin/x", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/x", "/proc/sys/vm/swappiness"} {
		if out, err := m.Command("sh", "-c", "echo 1 > "+p).CombinedOutput(); err == nil {
			t.Errorf("the machine can write %s: %s", p, out)
		}
	}
	m.PowerCut()
	m.Boot()
	m.Run("test", "-e", "/etc/mine")
	if m.Command("test", "-e", "/tmp/mine").Run() == nil {
		t.Error("/tmp outlived a reboot")
	}
}

func TestMachineLooksFirst(t *testing.T) {
	m := NewMachine(t, nil)
	leak := t.TempDir()
	err := m.start(stage{Leak: leak})
	if err == nil || !strings.Contains(err.Error(), "/mnt is writable") {
		t.Fatalf("a machine that can write to %s was started: %v", leak, err)
	}
	if m.Alive() {
		t.Error("it still runs")
	}
	if _, err := os.Stat(leak); err != nil {
		t.Error(err)
	}
}
