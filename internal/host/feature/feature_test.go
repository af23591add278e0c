package feature

import (
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/testlab"
)

var update = flag.Bool("update", false, "rewrite the running kernel's column of docs/reference/kernels.md")

// probeInside probes in a namespace of the lab that has an interface and sockets.
func probeInside(t *testing.T, present func(string) bool) map[string]Result {
	t.Helper()
	p := testlab.NewPair(t, "feat")
	out := map[string]Result{}
	p.Victim.Do(func() {
		u, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
		if err != nil {
			t.Errorf("listen: %v", err)
			return
		}
		defer u.Close()
		for _, r := range (&Prober{Present: present}).Probe() {
			out[r.Name] = r
		}
	})
	return out
}

func everything(string) bool { return true }

// The probes agree with what another way of asking shows.
func TestProbesAgreeWithTheKernel(t *testing.T) {
	got := probeInside(t, everything)
	for name, want := range map[string]bool{
		"force-forwarding":    exists("/proc/sys/net/ipv6/conf/all/force_forwarding"),
		"accept-ra-min-lft":   exists("/proc/sys/net/ipv6/conf/all/accept_ra_min_lft"),
		"accept-untracked-na": exists("/proc/sys/net/ipv6/conf/all/accept_untracked_na"),
		"landlock":            strings.Contains(read("/sys/kernel/security/lsm"), "landlock") || !exists("/sys/kernel/security/lsm") && got["landlock"].Answer == Yes,
	} {
		if (got[name].Answer == Yes) != want {
			t.Errorf("%s: probe says %s (%s), want %v", name, got[name].Answer, got[name].Detail, want)
		}
	}
	// Options that are modules are left out: a module may or may not be loaded.
	for name, option := range map[string]string{
		"raw-diag": "CONFIG_INET_RAW_DIAG", "packet-diag": "CONFIG_PACKET_DIAG", "udp-diag": "CONFIG_INET_UDP_DIAG",
		"sctp-diag": "CONFIG_INET_SCTP_DIAG", "nf-tables": "CONFIG_NF_TABLES", "bpf-netfilter-link": "CONFIG_NETFILTER_BPF_LINK",
	} {
		on, known := configured(t, option)
		modules := exists("/proc/modules")
		if known && (on || !modules) && (got[name].Answer == Yes) != on {
			t.Errorf("%s: probe says %s (%s), the kernel's configuration says %v", name, got[name].Answer, got[name].Detail, on)
		}
	}
	// What any kernel that can run these tests has.
	for _, name := range []string{"inet-diag", "inet-diag-v6only", "inet6-conf", "neighbour-table-fulls", "netns-of-socket", "netns-owner"} {
		if got[name].Answer != Yes {
			t.Errorf("%s: %s (%s), want yes", name, got[name].Answer, got[name].Detail)
		}
	}
	if len(got) != len(All()) {
		t.Errorf("%d answers to %d features: names are not unique", len(got), len(All()))
	}
}

func exists(p string) bool { _, err := os.Stat(p); return err == nil }

func read(p string) string { b, _ := os.ReadFile(p); return string(b) }

// configured tells whether the kernel's own build configuration has an option;
// known is false where the kernel does not publish it.
func configured(t *testing.T, option string) (on, known bool) {
	t.Helper()
	var text string
	if f, err := os.Open("/proc/config.gz"); err == nil {
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	} else {
		text = read("/boot/config-" + release(t))
	}
	return strings.Contains(text, option+"=y\n"), text != ""
}

func release(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(u.Release[:])
}

// What is not loaded is not asked: asking would load it.
func TestAbsentSubsystemsAreNotAsked(t *testing.T) {
	got := probeInside(t, func(string) bool { return false })
	for _, name := range []string{"inet-diag", "inet-diag-v6only", "udp-diag", "raw-diag", "packet-diag", "sctp-diag", "nf-tables"} {
		if got[name].Answer != Untested {
			t.Errorf("%s: %s, want untested", name, got[name].Answer)
		}
	}
}

// A probe that is refused does not claim that the feature is missing.
func TestRefusedIsUntested(t *testing.T) {
	for _, err := range []error{unix.EPERM, unix.EACCES} {
		if a, detail := failed(err, unix.ENOSYS, unix.EINVAL); a != Untested || detail == "" {
			t.Errorf("%v: %s %q, want untested with the reason", err, a, detail)
		}
	}
	if a, _ := failed(fmt.Errorf("ask: %w", unix.ENOSYS), unix.ENOSYS); a != No {
		t.Errorf("ENOSYS: %s, want no", a)
	}
}

const page = "../../../docs/reference/kernels.md"

// columns of the table. A column is filled only by running the probes there.
var columns = []string{"4.18", "5.4", "5.14", "6.1", "6.12", "6.18"}

func column(rel string) string {
	for _, c := range columns {
		if strings.HasPrefix(rel, c+".") || rel == c {
			return c
		}
	}
	return ""
}

// TestDocsKernelTable keeps the running kernel's column of the support table
// true; `go test -update` rewrites it. A kernel without a column claims nothing.
func TestDocsKernelTable(t *testing.T) {
	testlab.RequireRoot(t)
	col := column(release(t))
	if col == "" {
		t.Logf("kernel %s has no column in %s", release(t), page)
		return
	}
	old, err := os.ReadFile(page)
	if err != nil && !*update {
		t.Fatal(err)
	}
	table := parseTable(string(old))
	got := probeInside(t, everything)
	var b strings.Builder
	b.WriteString(preamble)
	b.WriteString("| feature | used for | in mainline since |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c)
	}
	b.WriteString("\n|" + strings.Repeat("---|", 3+len(columns)) + "\n")
	for _, f := range All() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |", f.Name, f.What, f.Since)
		for _, c := range columns {
			v := table[f.Name][c]
			if c == col {
				v = string(got[f.Name].Answer)
			}
			if v == "" {
				v = "untested"
			}
			fmt.Fprintf(&b, " %s |", v)
		}
		b.WriteByte('\n')
	}
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if b.String() != string(old) && !testlab.InCI() {
		t.Logf("this %s kernel is built differently from the one in %s", col, page)
		return
	}
	if b.String() != string(old) {
		t.Errorf("%s is stale for kernel %s: run `make docs` and look at what changed", page, col)
	}
}

// parseTable reads feature → column → answer.
func parseTable(s string) map[string]map[string]string {
	out := map[string]map[string]string{}
	var head []string
	for _, line := range strings.Split(s, "\n") {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == "feature":
			head = cells
		case strings.HasPrefix(cells[0], "`") && len(cells) == len(head):
			m := map[string]string{}
			for i := 3; i < len(cells); i++ {
				if slices.Contains([]string{"yes", "no", "untested"}, cells[i]) {
					m[head[i]] = cells[i]
				}
			}
			out[strings.Trim(cells[0], "`")] = m
		}
	}
	return out
}

const preamble = `# Kernels

<!-- The table is written by a test (make docs); edit internal/host/feature instead. -->

sixfence runs on any Linux since 4.18 that Go supports. What it can see depends on the kernel, so it asks the kernel at
run time and never reads a version number: ` + "`sixfence version --features`" + ` prints the answers for the machine it runs on. Where a
feature is missing, the facts that need it become gaps and the controls that need them *unknown*; nothing turns into a pass.

How to read the columns: **yes** and **no** were found by running these probes on such a kernel, in a lab, as root; **untested**
means that nobody has done that yet. The column of the kernel that runs the tests is compared with the probes on every
run. "In mainline since" is taken from the kernel's history; distributions backport, so it proves nothing about your kernel.
The 6.18 kernel of the tests is a small one, without modules, SCTP, raw_diag or VLANs: a *no* there is about its configuration.

`
