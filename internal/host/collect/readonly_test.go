package collect

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// needs lists the subsystems that a request wakes. known is false for a request
// that nobody has thought about: it may not be made at all.
func needs(e ask.Entry) (subsystems []string, known bool) {
	switch {
	case e.Op == "present", e.Op == "open", e.Op == "ioctl", e.Op == "getxattr", e.Op == "pidfd_getfd":
		return nil, true // files and handles that are there already
	case e.Op == "netlink" && strings.HasPrefix(e.What, "RTM_GET"):
		return nil, true // NETLINK_ROUTE is no module
	case e.Op == "netlink" && (strings.HasPrefix(e.What, "NFT_MSG_GET") || strings.Contains(e.What, "NETLINK_NETFILTER")):
		return []string{"nfnetlink", "nf_tables"}, true
	case e.Op == "netlink" && strings.HasPrefix(e.What, "SOCK_DIAG_BY_FAMILY packet"):
		return []string{"packet_diag"}, true
	case e.Op == "netlink" && strings.HasPrefix(e.What, "SOCK_DIAG_BY_FAMILY "):
		proto := strings.Fields(e.What)[1]
		if proto == "udplite" {
			proto = "udp"
		}
		return []string{"inet_diag", proto + "_diag"}, true
	case e.Op == "getsockopt":
		return []string{strings.Fields(e.What)[1]}, true
	case e.Op == "bpf" && strings.HasPrefix(e.What, "BPF_PROG_QUERY"):
		return nil, true // asks about a device that is there; a system call is no module
	case e.Op == "bpf":
		return []string{"bpf"}, true
	}
	return nil, false
}

// furnish fills a namespace with something of everything that is read.
func furnish(t *testing.T) *testlab.NS {
	n := testlab.NewNS(t, "ro")
	n.IP("link", "add", "br0", "type", "bridge")
	n.IP("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	n.IP("link", "set", "eth0", "up")
	n.IP("addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
	n.IP("neigh", "add", "2001:db8::2", "lladdr", "02:00:00:00:00:09", "dev", "eth0", "nud", "permanent")
	n.Run(testlab.RequireTool(t, "nft"), "add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c counter")
	n.Run(testlab.RequireTool(t, "ip6tables-legacy"), "-A", "INPUT", "-p", "tcp", "-j", "ACCEPT")
	return n
}

// TestNothingLoadedIsNotAsked: on a host that has none of the modules, a whole
// collection makes no request that would load one.
func TestNothingLoadedIsNotAsked(t *testing.T) {
	furnish(t)
	c, err := Run(Options{KeepLog: true, present: func(string) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	questions := map[string]bool{}
	for _, e := range c.Log() {
		if e.Op == "present" {
			questions[e.What] = true
		}
		if subs, known := needs(e); !known {
			t.Errorf("nobody knows what %s %s may load", e.Op, e.What)
		} else if len(subs) > 0 {
			t.Errorf("asked %s %s although nothing is loaded", e.Op, e.What)
		}
	}
	for _, s := range []string{"nfnetlink", "inet_diag", "packet_diag", "bpf", "ip6_tables"} {
		if !questions[s] {
			t.Errorf("nobody asked whether %s is there: this test shows little", s)
		}
	}
}

// TestPresentComesFirst: every request follows the question whether what it wakes is
// there.
func TestPresentComesFirst(t *testing.T) {
	furnish(t)
	c, err := Run(Options{KeepLog: true})
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	seen := map[string]int{}
	for _, e := range c.Log() {
		if e.Op == "present" {
			said[e.What] = e.Yes
			continue
		}
		subs, known := needs(e)
		if !known {
			t.Errorf("nobody knows what %s %s may load", e.Op, e.What)
		}
		for _, s := range subs {
			seen[s]++
			if !said[s] {
				t.Errorf("%s %s before a yes for %s", e.Op, e.What, s)
			}
		}
	}
	for _, s := range []string{"nf_tables", "ip6_tables", "inet_diag", "tcp_diag", "udp_diag", "packet_diag", "bpf"} {
		if seen[s] == 0 {
			t.Errorf("no request for %s was logged: this test shows little", s)
		}
	}
}

// picture is all that an audit could change in a namespace, or in the host's modules.
func picture(t *testing.T, n *testlab.NS) map[string]string {
	t.Helper()
	out := map[string]string{}
	tool := func(name string, args ...string) {
		out[name+" "+strings.Join(args, " ")] = n.Run(testlab.RequireTool(t, name), args...)
	}
	tool("nft", "-s", "-j", "list", "ruleset") // stateless: without counters
	for _, what := range []string{"link", "addr", "route show table all", "-6 route show table all", "rule", "-6 rule", "neigh", "maddr", "netconf"} {
		tool("ip", append([]string{"-d"}, strings.Fields(what)...)...)
	}
	n.Do(func() {
		for _, f := range []string{"ip_tables_names", "ip6_tables_names", "arp_tables_names"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + f)
			out[f] = fmt.Sprint(string(b), err)
		}
		// Another namespace's /proc/sys/net is seen through the thread.
		_ = filepath.WalkDir("/proc/sys/net", func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || p == "/proc/sys/net/netfilter/nf_conntrack_count" {
				return nil
			}
			b, err := os.ReadFile(p)
			out[p] = fmt.Sprint(string(b), err)
			return nil
		})
	})
	modules, err := os.ReadFile("/proc/modules")
	out["/proc/modules"] = fmt.Sprint(string(modules), err)
	sys, err := os.ReadDir("/sys/module")
	out["/sys/module"] = fmt.Sprint(sys, err)
	return out
}

// TestAuditChangesNothing compares namespaces before and after, one that has
// something of everything and one that has nothing.
func TestAuditChangesNothing(t *testing.T) {
	spaces := map[string]*testlab.NS{"furnished": furnish(t), "empty": testlab.NewNS(t, "ro")}
	before := map[string]map[string]string{}
	for name, n := range spaces {
		before[name] = picture(t, n)
	}
	if len(before["empty"]) < 300 || before["furnished"]["ip6_tables_names"] != "filter\n<nil>" || before["empty"]["ip6_tables_names"] != "<nil>" {
		t.Fatalf("the picture shows too little: %d entries, %q", len(before["empty"]), before["furnished"]["ip6_tables_names"])
	}
	c, err := Run(Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Snapshot()
	for name, n := range spaces {
		i := slices.IndexFunc(s.Namespaces, func(x fact.Namespace) bool { return x.ID.Inode == n.Inode() })
		if i < 0 {
			t.Fatalf("the %s namespace was not audited", name)
		}
		if _, gap := s.Namespaces[i].PacketFilter.NFTables.Gap(); gap {
			t.Errorf("the packet filter of the %s namespace was not read", name)
		}
		after := picture(t, n)
		for k, v := range after {
			if before[name][k] != v {
				b, _ := json.Marshal([]string{before[name][k], v})
				t.Errorf("%s: the audit changed %s: %s", name, k, b)
			}
		}
		if len(after) != len(before[name]) {
			t.Errorf("%s: %d entries before, %d after", name, len(before[name]), len(after))
		}
	}
}
