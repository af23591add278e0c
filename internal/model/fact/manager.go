package fact

import "net/netip"

// Manager is a network manager found on the host: its configuration, and its
// process when it runs.
type Manager struct {
	Name    string      `json:"name"` // systemd-networkd | dhcpcd | ifupdown | NetworkManager | netplan | connman | dhclient
	Running Known[bool] `json:"running,omitzero"`
	PID     int         `json:"pid,omitempty"`
	// NetNS is the namespace it manages: its process's, or the initial one for
	// configuration of a manager that does not run.
	NetNS NamespaceID `json:"netns,omitzero"`
	// ParsedNotRun marks managers whose files are read although their behaviour
	// was not verified by running them (NetworkManager, netplan).
	ParsedNotRun bool               `json:"parsedNotRun,omitempty"`
	Enabled      Known[bool]        `json:"enabled,omitzero"` // its unit is enabled
	Interfaces   []ManagedInterface `json:"interfaces,omitempty"`
	Gaps         []Gap              `json:"gaps,omitempty"`
}

// ManagedInterface is what a manager is told to do with one interface, or with
// every interface that Match covers.
type ManagedInterface struct {
	// Names are shell globs of interface names (["*"] = all). Empty means the
	// match could not be decided by name alone; see Match.
	Names []string `json:"names,omitempty"`
	// Match holds further conditions, e.g. "MACAddress=…", "Type=ether", "Driver=…".
	Match []string `json:"match,omitempty"`
	// Index is set when the running manager itself said which interface this is.
	Index int `json:"index,omitempty"`
	// File is what is told of the interface as a whole: the .network file that drop-ins
	// add to, the profile, the last file of netplan that names it.
	File string `json:"file,omitempty"`
	// Definition is netplan's name of it: "ethernets/eth0".
	Definition string `json:"definition,omitempty"`

	// AcceptRA: the manager (or, for ifupdown, the kernel on its behalf) takes RAs.
	// Effective default included; AcceptRASet tells whether a line says so.
	AcceptRA    Known[bool] `json:"acceptRA,omitzero"`
	AcceptRASet bool        `json:"acceptRASet,omitempty"`
	// InUserspace: the manager processes RAs itself, whatever the sysctl says.
	InUserspace         bool           `json:"inUserspace,omitempty"`
	RouterAllowList     []netip.Prefix `json:"routerAllowList,omitempty"`
	RouterDenyList      []netip.Prefix `json:"routerDenyList,omitempty"`
	PrefixAllowList     []netip.Prefix `json:"prefixAllowList,omitempty"`
	UseDNS              Known[bool]    `json:"useDNS,omitzero"`     // DNS servers from RAs
	UseGateway          Known[bool]    `json:"useGateway,omitzero"` // default route from RAs
	UseAutonomousPrefix Known[bool]    `json:"useAutonomousPrefix,omitzero"`
	SendRA              Known[bool]    `json:"sendRA,omitzero"`
	DHCPv6              Known[bool]    `json:"dhcpv6,omitzero"`
	Use6RD              Known[bool]    `json:"use6RD,omitzero"`      // DHCPv4 option 212
	LinkLocal           Known[bool]    `json:"linkLocal,omitzero"`   // IPv6 link-local addressing
	LinkLocal4          bool           `json:"linkLocal4,omitempty"` // IPv4 link-local addressing
	Forwarding          Known[bool]    `json:"forwarding,omitzero"`
	IPv6Disabled        bool           `json:"ipv6Disabled,omitempty"`
	Addresses           []netip.Prefix `json:"addresses,omitempty"` // static IPv6 addresses
	Gateways            []netip.Addr   `json:"gateways,omitempty"`  // static IPv6 gateways
	PrivacyExtensions   Known[string]  `json:"privacyExtensions,omitzero"`
	AddrGen             Known[string]  `json:"addrGen,omitzero"` // eui64 | stable-privacy …
	// Sysctls are the per-interface kernel settings the manager will write
	// (ifupdown accept_ra, autoconf, privext): key name → value.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	Origin  Origin            `json:"origin"`
}

// Runtimes are container and virtualisation runtimes, known from files,
// processes and cgroups; no daemon's socket is asked.
type Runtimes struct {
	Docker  Known[Docker]  `json:"docker,omitzero"`
	Libvirt Known[Libvirt] `json:"libvirt,omitzero"`
	Kubelet Known[Kubelet] `json:"kubelet,omitzero"`
	// Gaps are files and cgroup directories that could not be read.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Docker is /etc/docker/daemon.json and dockerd's flags.
type Docker struct {
	Running       bool        `json:"running"`
	IPv6          Known[bool] `json:"ipv6,omitzero"`
	IP6Tables     Known[bool] `json:"ip6tables,omitzero"`
	UserlandProxy Known[bool] `json:"userlandProxy,omitzero"`
	// FixedCIDRv6 is the IPv6 subnet of the default bridge.
	FixedCIDRv6 Known[netip.Prefix] `json:"fixedCIDRv6,omitzero"`
	Containers  int                 `json:"containers"` // docker cgroups seen
	Origin      Origin              `json:"origin"`
}

// Libvirt is what /etc/libvirt and running processes say.
type Libvirt struct {
	Running  bool     `json:"running"`
	Networks []string `json:"networks,omitempty"` // names of networks with an IPv6 <ip> element
	Guests   int      `json:"guests"`             // machine.slice cgroups seen
}

// Kubelet is what a kube node's files and processes say.
type Kubelet struct {
	Running       bool     `json:"running"`
	NodeIPs       []string `json:"nodeIPs,omitempty"`
	ClusterDomain string   `json:"-"`
	// BindAddress is what the kubelet's API listens on (address:), absent when the file does not say.
	BindAddress Known[netip.Addr] `json:"bindAddress,omitzero"`
	Pods        int               `json:"pods"` // kubepods cgroups seen
	ProxyMode   string            `json:"proxyMode,omitempty"`
	Origin      Origin            `json:"origin"`
}

// Apps are settings of applications that decide family or source.
type Apps struct {
	SSHD     Known[SSHD]       `json:"sshd,omitzero"`
	Postgres Known[[]Postgres] `json:"postgres,omitzero"`
	Fail2ban Known[Fail2ban]   `json:"fail2ban,omitzero"`
	// SourceACLs are host-based access lists found elsewhere (hosts.allow,
	// nginx allow/deny, apache Require ip …), one entry a file.
	SourceACLs Known[[]SourceACL] `json:"sourceACLs,omitzero"`
	// Gaps are files of applications that could not be read, and lines not understood.
	Gaps []Gap `json:"gaps,omitempty"`
}

// SSHD are the sshd_config keywords that decide family or source.
type SSHD struct {
	AddressFamily string   `json:"addressFamily"` // any | inet | inet6
	Listen        []string `json:"listen,omitempty"`
	Ports         []uint16 `json:"ports,omitempty"`
	// MatchAddresses are the patterns of Match Address lines and the from= hosts
	// of AllowUsers/DenyUsers, with their file and line.
	MatchAddresses []SourcePattern `json:"matchAddresses,omitempty"`
	Origin         Origin          `json:"origin"`
}

// SourcePattern is an address pattern that selects who may do something.
type SourcePattern struct {
	Keyword string `json:"keyword"` // Match Address, AllowUsers, host, hostssl …
	Pattern string `json:"pattern"`
	Action  string `json:"action,omitempty"` // allow | deny | the pg_hba method
	Origin  Origin `json:"origin"`
}

// Postgres is one cluster's listen_addresses and the address column of pg_hba.conf.
type Postgres struct {
	Listen []string        `json:"listen,omitempty"`
	Port   uint16          `json:"port,omitempty"`
	HBA    []SourcePattern `json:"hba,omitempty"`
	Origin Origin          `json:"origin"`
}

// Fail2ban is whether bans cover IPv6.
type Fail2ban struct {
	AllowIPv6 Known[string] `json:"allowIPv6,omitzero"` // auto | yes | no
	Action    Known[string] `json:"banaction,omitzero"`
	Origin    Origin        `json:"origin"`
}

// SourceACL is one application's source list.
type SourceACL struct {
	App      string          `json:"app"`
	Patterns []SourcePattern `json:"patterns"`
}
