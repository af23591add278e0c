package fact

// Origin is a line of a file.
type Origin struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
}

// Files are configuration files of the host, parsed key by key from an
// allow-list. No file is copied.
type Files struct {
	// Sysctl holds every assignment of a net.* (and a few kernel.*, user.*) key,
	// in the order in which boot applies them.
	Sysctl Known[[]SysctlSetting] `json:"sysctl,omitzero"`
	// Modprobe holds the directives of modprobe.d in the order modprobe reads them.
	Modprobe Known[[]ModprobeDirective] `json:"modprobe,omitzero"`
	// ModulesLoad are the names in modules-load.d and /etc/modules.
	ModulesLoad Known[[]ModprobeDirective] `json:"modulesLoad,omitzero"`
	Hosts       Known[[]HostsEntry]        `json:"hosts,omitzero"` // /etc/hosts lines that name localhost or this host
	Resolver    Known[Resolver]            `json:"resolver,omitzero"`
	GaiConf     Known[bool]                `json:"gaiConf,omitzero"`  // /etc/gai.conf has an active precedence or label line
	NSSHosts    Known[[]string]            `json:"nssHosts,omitzero"` // nsswitch.conf hosts: services, in order
	// UFW is /etc/default/ufw and its sysctl file.
	UFW Known[UFW] `json:"ufw,omitzero"`
	// Firewalls are the configured host firewall managers and whether their unit is enabled.
	Units Known[[]Unit] `json:"units,omitzero"`

	// SysctlGaps are boot-time sysctl files that could not be read and lines that
	// could not be understood: while there are any, "no line sets this key" is not known.
	SysctlGaps []Gap `json:"sysctlGaps,omitempty"`
	// Gaps are the same for every other file read here.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Unit is a systemd unit that matters here (firewalls, managers, tunnel
// daemons, sockets), found on disk.
type Unit struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Enabled bool   `json:"enabled"` // a *.wants or *.requires link, or an alias, points to it
	Masked  bool   `json:"masked,omitempty"`
	// Listen and BindIPv6Only are set for .socket units.
	Listen       []string `json:"listen,omitempty"`
	BindIPv6Only string   `json:"bindIPv6Only,omitempty"` // default | both | ipv6-only
	Origin       Origin   `json:"origin"`
}

// SysctlSetting is one assignment in a boot-time file.
type SysctlSetting struct {
	// Key is the path below /proc/sys; glob characters are kept.
	Key string `json:"key"`
	// Value is kept when it is made of numbers or is one short word; of secret keys
	// (stable_secret, tcp_fastopen_key) only "set" is kept, of other text "(text)".
	Value  string `json:"value"`
	Glob   bool   `json:"glob,omitempty"`
	Ignore bool   `json:"ignoreErrors,omitempty"` // leading "-"
	// Exclude is a "-key" line without a value: it takes the key out of later globs.
	Exclude bool `json:"exclude,omitempty"`
	// By is who applies it: systemd-sysctl | procps | ufw | nobody (the file is
	// there, e.g. /etc/sysctl.conf without its link in sysctl.d, and no boot reads it).
	By     string `json:"by"`
	Origin Origin `json:"origin"`
}

// ModprobeDirective is one line of modprobe.d (or modules-load.d, with verb "load").
type ModprobeDirective struct {
	Verb   string `json:"verb"` // install | blacklist | alias | options | softdep | remove | load
	Module string `json:"module"`
	Args   string `json:"args,omitempty"` // of install, alias, softdep; options are not kept
	Origin Origin `json:"origin"`
}

// HostsEntry is a line of /etc/hosts that names localhost or a variant.
type HostsEntry struct {
	Address string   `json:"address"`
	Names   []string `json:"names"`
	Origin  Origin   `json:"origin"`
}

// Resolver is what resolv.conf and systemd-resolved say.
type Resolver struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Target      string   `json:"target,omitempty"` // where /etc/resolv.conf points when it is a link
	// Links are the per-interface servers known to systemd-resolved or networkd
	// (/run/systemd/netif/links/N): ifindex → servers learned, by source.
	Links []ResolverLink `json:"links,omitempty"`
}

// ResolverLink are the DNS servers of one interface.
type ResolverLink struct {
	Index   int      `json:"index"`
	Servers []string `json:"servers"`
	Source  string   `json:"source"` // file they were read from
}

// UFW is ufw's configuration that decides about IPv6.
type UFW struct {
	Enabled    Known[bool]   `json:"enabled,omitzero"`    // /etc/ufw/ufw.conf ENABLED
	IPv6       Known[bool]   `json:"ipv6,omitzero"`       // /etc/default/ufw IPV6
	SysctlFile Known[string] `json:"sysctlFile,omitzero"` // IPT_SYSCTL
	Origin     Origin        `json:"origin"`
}

// Modules is the kernel's module state.
type Modules struct {
	// Supported is false when the kernel has no loadable modules at all.
	Supported Known[bool]     `json:"supported,omitzero"`
	Loaded    Known[[]string] `json:"loaded,omitzero"`  // /proc/modules, underscores
	Builtin   Known[[]string] `json:"builtin,omitzero"` // modules.builtin, and the kernel config where it can be read
	// Loadable maps the modules of interest that exist as files for the running
	// kernel to their path below /lib/modules/RELEASE; Aliases their aliases.
	Loadable Known[map[string]string]   `json:"loadable,omitzero"`
	Depends  Known[map[string][]string] `json:"depends,omitzero"` // modules.dep of the modules of interest: module → needs
	Aliases  Known[map[string][]string] `json:"aliases,omitzero"` // modules.alias of the modules of interest: module → aliases that load it (rtnl-link-sit …)
	// Release is the kernel whose files Loadable, Depends and Aliases come from:
	// the running one, or the newest found in a directory tree.
	Release string `json:"release,omitempty"`
}
