package fact

import (
	"fmt"
	"time"
)

// SchemaVersion is the version of the Snapshot this build writes. A different
// minor version is evaluated with a Gap, a different major version refused.
const SchemaVersion = "1.0"

// Snapshot is one host at one moment: what is true of the machine as a whole,
// and of every network namespace that could be entered.
type Snapshot struct {
	SchemaVersion string      `json:"schemaVersion"`
	Host          Host        `json:"host"`
	Namespaces    []Namespace `json:"namespaces"`
	// Gaps are unknowns that belong to no single fact: namespaces over budget,
	// a subsystem that was not asked, a newer minor schema version.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Home is the network namespace that a question without a name is about: that of whoever
// took the Snapshot, else the initial one, else the first; nil when there is none.
func (s *Snapshot) Home() *Namespace {
	var home *Namespace
	for i := range s.Namespaces {
		switch n := &s.Namespaces[i]; {
		case n.IsSelf:
			return n
		case home == nil, n.IsInit && !home.IsInit:
			home = n
		}
	}
	return home
}

// Host holds the facts that are the same in every network namespace.
type Host struct {
	Mode        Mode                  `json:"mode"` // live, or root for a directory tree
	Hostname    Known[string]         `json:"hostname,omitzero"`
	CollectedAt time.Time             `json:"collectedAt,omitzero"` // wall clock, UTC
	OS          Known[OSRelease]      `json:"os,omitzero"`
	Kernel      Known[Kernel]         `json:"kernel,omitzero"`
	ByteOrder   string                `json:"byteOrder,omitempty"` // little | big: how raw kernel messages are laid out
	WordSize    int                   `json:"wordSize,omitempty"`  // bits of a C long on the collecting host
	Privilege   Privilege             `json:"privilege"`
	Files       Files                 `json:"files"`
	Modules     Modules               `json:"modules"`
	Boot        Boot                  `json:"boot"`
	Managers    Known[[]Manager]      `json:"managers,omitzero"`
	Processes   Known[[]Process]      `json:"processes,omitzero"`
	Runtimes    Runtimes              `json:"runtimes"`
	Apps        Apps                  `json:"apps"`
	BPF         BPF                   `json:"bpf"`
	Orphans     Known[[]OrphanSocket] `json:"orphanSockets,omitzero"`
	UserNS      UserNamespaces        `json:"userNamespaces"`
}

// Mode tells what a Snapshot was taken of.
type Mode string

// The modes of a Snapshot.
const (
	ModeLive Mode = "live" // a running kernel
	ModeRoot Mode = "root" // a directory tree (image, chroot): the disk half only
)

// OSRelease is the part of os-release(5) that decides paths and advice.
type OSRelease struct {
	ID        string   `json:"id"`                  // debian, ubuntu, rhel …
	IDLike    []string `json:"idLike,omitempty"`    // families, nearest first
	VersionID string   `json:"versionId,omitempty"` // 12, 24.04, 9.4
	Name      string   `json:"name,omitempty"`      // PRETTY_NAME, for people
}

// Kernel is uname(2).
type Kernel struct {
	Release string `json:"release"` // 6.18.44-…
	Machine string `json:"machine"` // x86_64
}

// Privilege tells with what rights the Snapshot was taken.
type Privilege struct {
	UID           uint32   `json:"uid"`
	Capabilities  []string `json:"capabilities,omitempty"` // effective while collecting, e.g. cap_net_admin
	InitialUserNS bool     `json:"initialUserNS"`
	InitialPIDNS  bool     `json:"initialPIDNS"` // false inside a container: host processes are invisible
	InitialNetNS  bool     `json:"initialNetNS"`
	Container     string   `json:"container,omitempty"` // docker, podman, lxc, kubernetes …, empty when none was recognised
}

// UserNamespaces says what an unprivileged user may create (TUN-11).
type UserNamespaces struct {
	Unprivileged Known[bool]   `json:"unprivileged,omitzero"`       // kernel.unprivileged_userns_clone (Debian); absent elsewhere
	Max          Known[int64]  `json:"max,omitzero"`                // user.max_user_namespaces
	AppArmor     Known[bool]   `json:"apparmorRestricted,omitzero"` // kernel.apparmor_restrict_unprivileged_userns (Ubuntu)
	TunMode      Known[uint32] `json:"tunMode,omitzero"`            // permission bits of /dev/net/tun
}

// Boot is what the boot loader and firmware decided.
type Boot struct {
	Parameters Known[map[string]string] `json:"parameters,omitzero"` // only the allow-listed names: ipv6.*, ipv6.disable…, module_blacklist, modprobe.blacklist, net.ifnames
	// IPv6Module holds /sys/module/ipv6/parameters/{disable,disable_ipv6,autoconf}.
	IPv6Module Known[map[string]string] `json:"ipv6Module,omitzero"`
	// ModulesDisabled is kernel.modules_disabled: 1 means none can be loaded any more.
	ModulesDisabled Known[bool] `json:"modulesDisabled,omitzero"`
}

// BPF lists what may see or change packets outside netfilter.
type BPF struct {
	// NetfilterLinks are BPF programs attached to netfilter hooks (kernel 6.4+).
	NetfilterLinks Known[[]NetfilterLink] `json:"netfilterLinks,omitzero"`
}

// NetfilterLink is a BPF program on a netfilter hook (BPF_LINK_TYPE_NETFILTER).
type NetfilterLink struct {
	ID       uint32 `json:"id"`
	Family   uint8  `json:"family"` // NFPROTO_*
	Hook     uint32 `json:"hook"`   // NF_INET_*
	Priority int32  `json:"priority"`
	NetNS    uint64 `json:"netns,omitempty"` // inode of the namespace, 0 when the kernel does not say
}

// Seconds is a number of seconds for people, rounded down: "540 seconds", "10 minutes".
func Seconds(s int64) string {
	switch {
	case s < 600:
		return fmt.Sprintf("%d seconds", s)
	case s < 7200:
		return fmt.Sprintf("%d minutes", s/60)
	case s < 172800:
		return fmt.Sprintf("%d hours", s/3600)
	}
	return fmt.Sprintf("%d days", s/86400)
}
