package collect

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/sixfence/sixfence/internal/host/collect/manager"
	"github.com/sixfence/sixfence/internal/host/collect/proc"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// userInitInode is PROC_USER_INIT_INO (include/linux/proc_ns.h): no other user
// namespace ever has it.
const userInitInode = 0xEFFFFFFD

// privilege tells with what rights this process collects.
func privilege(t *tree.Tree) fact.Privilege {
	p := fact.Privilege{UID: uint32(os.Geteuid()), InitialPIDNS: proc.InitialPIDNamespace(), Container: container(t)}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &st); err == nil {
		p.InitialUserNS = st.Ino == userInitInode
	}
	set := cap.GetProc()
	for v := cap.Value(0); v < cap.MaxBits(); v++ {
		if on, err := set.GetFlag(cap.Effective, v); err == nil && on {
			p.Capabilities = append(p.Capabilities, v.String())
		}
	}
	return p
}

// container recognises the usual runtimes by the files they leave for the
// programs inside; a container that hides itself is not recognised.
func container(t *tree.Tree) string {
	if b, ok := t.ReadFile("/run/systemd/container", 256).Get(); ok {
		if s := strings.TrimSpace(string(b)); s != "" && len(s) < 64 {
			return s
		}
	}
	exists := func(name string) bool { return t.Stat(name).State() == fact.StateValue }
	switch {
	case exists("/var/run/secrets/kubernetes.io/serviceaccount"), os.Getenv("KUBERNETES_SERVICE_HOST") != "":
		return "kubernetes"
	case exists("/run/.containerenv"):
		return "podman"
	case exists("/.dockerenv"):
		return "docker"
	case exists("/dev/lxd/sock"), exists("/dev/incus/sock"), exists("/dev/.lxc"):
		return "lxc"
	}
	return ""
}

// running names the daemons that manage networks or make namespaces; nil when
// none was seen and some may run out of sight.
func running(t *proc.Table) []manager.Process {
	var out []manager.Process
	if t.AllDaemons() {
		out = []manager.Process{}
	}
	for _, d := range t.Daemons() {
		ns, _ := d.NetNS.Get()
		out = append(out, manager.Process{PID: d.PID, Name: d.Name, NetNS: ns, OwnRoot: d.OwnRoot})
	}
	return out
}
