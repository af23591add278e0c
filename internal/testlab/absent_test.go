package testlab

import (
	"bytes"
	_ "embed"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

//go:embed absent.txt
var absentList string

type absentFeature struct{ name, dir, test string }

func absentFeatures(t *testing.T) []absentFeature {
	t.Helper()
	var out []absentFeature
	for _, line := range strings.Split(absentList, "\n") {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			t.Fatalf("absent.txt: want three words: feature, folder, test: %q", line)
		}
		out = append(out, absentFeature{f[0], f[1], f[2]})
	}
	return out
}

// probes tell whether the kernel has a feature, by using it.
func (n *NS) has(feature string) (bool, error) {
	if kind, ok := strings.CutPrefix(feature, "link:"); ok {
		args := []string{"-n", n.Name, "link", "add"}
		if kind == "vlan" {
			args = append(args, "link", "lo", "probe0", "type", "vlan", "id", "5")
		} else {
			args = append(args, "probe0", "type", kind)
		}
		out, err := n.Command("ip", args[2:]...).CombinedOutput()
		switch {
		case err == nil:
			n.IP("link", "del", "probe0")
			return true, nil
		case bytes.Contains(out, []byte("Unknown device type")), bytes.Contains(out, []byte("Operation not supported")):
			return false, nil
		}
		return true, nil // it was understood and refused for what was missing in our request
	}
	var err error
	n.Do(func() {
		switch feature {
		case "socket:sctp":
			err = open(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
		case "socket:dccp":
			err = open(unix.AF_INET6, unix.SOCK_DCCP, unix.IPPROTO_DCCP)
		case "diag:raw":
			err = diagDump(unix.AF_INET6, unix.IPPROTO_RAW)
		case "modules":
			_, err = os.Stat("/proc/modules")
		default:
			err = errors.New("no probe for " + feature)
		}
	})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ESOCKTNOSUPPORT), errors.Is(err, unix.ENOENT):
		return false, nil
	}
	return false, err
}

func open(family, typ, proto int) error {
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// diagDump sends SOCK_DIAG_BY_FAMILY and reads the first answer.
func diagDump(family, proto byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	m := make([]byte, 16+56)
	m[0], m[4] = byte(len(m)), 20
	m[6], m[7] = 0x01, 0x03 // NLM_F_REQUEST, NLM_F_DUMP
	m[16], m[17] = family, proto
	copy(m[20:24], []byte{0xff, 0xff, 0xff, 0xff})
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 8192)
	k, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	const nlmsgError, nlmsgDone = 2, 3 // a dump that fails at once ends with its error
	if k >= 20 && (buf[4] == nlmsgError || buf[4] == nlmsgDone) {
		if e := int32(uint32(buf[16]) | uint32(buf[17])<<8 | uint32(buf[18])<<16 | uint32(buf[19])<<24); e != 0 {
			return unix.Errno(-e)
		}
	}
	return nil
}

// TestAbsentFeaturesAreAbsent keeps absent.txt honest: what this kernel has is to
// be tested with the kernel, not with recorded bytes. Elsewhere than in CI
// nothing is probed: on a kernel with modules the probes would load them.
func TestAbsentFeaturesAreAbsent(t *testing.T) {
	if !InCI() {
		t.Skip("the probes may load modules; the list speaks about the CI kernel")
	}
	n := NewNS(t, "absent")
	for _, f := range absentFeatures(t) {
		switch there, err := n.has(f.name); {
		case err != nil:
			t.Errorf("%s: could not be probed: %v", f.name, err)
		case there:
			t.Errorf("%s: this kernel has it. Test the real thing and take it off absent.txt", f.name)
		}
	}
}

// TestProbesSeeWhatIsThere shows that the probes can also say yes.
func TestProbesSeeWhatIsThere(t *testing.T) {
	n := NewNS(t, "there")
	for _, feature := range []string{"link:bridge", "link:veth"} {
		if there, err := n.has(feature); !there || err != nil {
			t.Errorf("%s: %v, %v; every lab here uses it", feature, there, err)
		}
	}
	var err error
	n.Do(func() { err = diagDump(unix.AF_INET6, unix.IPPROTO_TCP) })
	if err != nil {
		t.Errorf("dump TCP sockets: %v", err)
	}
	if _, err := n.has("no such thing"); err == nil {
		t.Error("an unknown feature was not refused")
	}
}

// TestStandInsExist: every absent feature names the test that covers it from
// recorded bytes.
func TestStandInsExist(t *testing.T) {
	for _, f := range absentFeatures(t) {
		files, _ := filepath.Glob(filepath.Join("..", "..", f.dir, "*_test.go"))
		found := false
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			found = found || regexp.MustCompile(`(?m)^func `+regexp.QuoteMeta(f.test)+`\(`).Match(b)
		}
		if !found {
			t.Errorf("%s: no %s in %s", f.name, f.test, f.dir)
		}
	}
}
