// Package intent holds what an operator wants a host to be: one file, written by a
// person, from which everything else (sysctls, module blocks, a packet filter, the
// settings of the network manager) follows.
//
// An Intent says what, never how. It is merged, checked and whole when it reaches
// this type: surface/config reads it strictly, with defaults filled in by nobody.
// What a field left out means is said at the field and decided by logic/plan.
package intent

import (
	"cmp"
	"encoding/json"
	"net/netip"
)

// Version is the only apiVersion of this release.
const Version = "sixfence/v1"

// Intent is the merged content of the intent file and its drop-ins.
type Intent struct {
	APIVersion string   `json:"apiVersion"`
	Role       Role     `json:"role"`
	Families   Families `json:"families,omitempty"` // DualStack when left out
	Firewall   Firewall `json:"firewall,omitzero"`
	// Files says who brings the files of this intent to the host.
	Files Files `json:"files,omitzero"`
	// Interfaces are keyed by a name of the operator's choice. Without Match, the key
	// itself is the name or glob that selects.
	Interfaces map[string]Interface `json:"interfaces,omitempty"`
	// Services are what this host accepts. What is not listed is not accepted, except
	// loopback, established flows, and the ICMPv6, ND, MLD and DHCPv6 that the
	// addressing needs.
	Services   []Service  `json:"services,omitempty"`
	Forwarding Forwarding `json:"forwarding,omitzero"`
	Egress     Egress     `json:"egress,omitzero"`
	Tunnels    Tunnels    `json:"tunnels,omitzero"`
	Limits     Limits     `json:"limits,omitzero"`
	Logging    Logging    `json:"logging,omitzero"`
	// Checks must answer before and after a change, as URLs; see ParseCheck. No family
	// is tried in the place of another.
	Checks []string `json:"checks,omitempty"`
	// Drift says what is done when somebody undoes what was kept: DriftReport when left out.
	Drift   Drift    `json:"drift,omitempty"`
	Waivers []Waiver `json:"waivers,omitempty"`
	// Sysctls are further keys, by the name below /proc/sys with slashes or dots, that
	// win over what the role implies.
	Sysctls  map[string]string `json:"sysctls,omitempty"`
	Decision Decision          `json:"decision,omitzero"`
}

// Role is what the host is for. A role never opens a port.
type Role string

// The roles.
const (
	RoleServer         Role = "server"
	RoleRouter         Role = "router"
	RoleKubernetesNode Role = "kubernetes-node"
	RoleHypervisor     Role = "hypervisor"
	RoleWorkstation    Role = "workstation"
)

// Families says which IP versions the host speaks.
type Families string

// The choices of Families.
const (
	DualStack Families = "dual-stack"
	IPv6Only  Families = "ipv6-only"
	// Disabled takes IPv6 from every interface, loopback too.
	Disabled Families = "disabled"
	// DisabledKeepLoopback keeps ::1 for the services that bind it.
	DisabledKeepLoopback Families = "disabled-keep-loopback"
)

// Drift says what is done when somebody undoes what was kept.
type Drift string

// The choices of Drift.
const (
	// DriftReport leaves it; `harden status` names it, and who it was.
	DriftReport Drift = "report"
	// DriftRestore brings our rules and values back, within seconds, unless somebody keeps
	// undoing them.
	DriftRestore Drift = "restore"
)

// Firewall says which rules are ours to write.
type Firewall struct {
	// Manage is ManageBoth when left out.
	Manage Manage `json:"manage,omitempty"`
}

// Files says who brings the files of an intent to the host.
type Files struct {
	// Owner is configuration management that writes them, in its own words. Then
	// sixfence changes nothing: plan and status compare, and apply names the owner.
	Owner string `json:"owner,omitempty"`
}

// Manage is a choice of Firewall.
type Manage string

// The choices of Manage.
const (
	ManageBoth Manage = "both"
	// ManageIPv6 writes no rule that matches an IPv4 packet.
	ManageIPv6 Manage = "ipv6"
	ManageNone Manage = "none"
)

// Interface is what holds for the interfaces it selects.
type Interface struct {
	Match      Match      `json:"match,omitzero"`
	Addressing Addressing `json:"addressing"`
	// Routers are the only senders of Router Advertisements that are believed.
	Routers       []Router       `json:"routers,omitempty"`
	DHCPv6Servers []DHCPv6Server `json:"dhcpv6Servers,omitempty"`
	// LearnOnce accepts the routers seen when the plan is first applied, without a
	// person: for images. A rogue present at that moment is believed for good.
	LearnOnce bool `json:"learnOnce,omitempty"`
	// PinGateway keeps the router's MAC as a permanent neighbour.
	PinGateway bool `json:"pinGateway,omitempty"`
	// GuardBridged applies the guards to frames of bridged guests too.
	GuardBridged bool `json:"guardBridged,omitempty"`
	// AsymmetricRouting says that packets may come in by this interface although the
	// way back is by another: their sources are then not held to the routes.
	AsymmetricRouting bool `json:"asymmetricRouting,omitempty"`
}

// Match selects interfaces. Every member given must match; globs are those of
// path.Match.
type Match struct {
	Name   string `json:"name,omitempty"`
	Driver string `json:"driver,omitempty"`
	MAC    string `json:"mac,omitempty"`
	// Role is "default-route": the interfaces that carry a default route of either
	// family.
	Role string `json:"role,omitempty"`
}

// DefaultRoute is the only Role of a Match.
const DefaultRoute = "default-route"

// Addressing says how an interface gets its IPv6 addresses.
type Addressing string

// The choices of Addressing.
const (
	// Static takes addresses and routes from configuration only: no RA is believed.
	Static Addressing = "static"
	// SLAAC takes prefixes and the default route from the Routers' RAs.
	SLAAC Addressing = "slaac"
	// DHCPv6 takes addresses from DHCPv6 and the default route from the Routers' RAs.
	DHCPv6 Addressing = "dhcpv6"
	// NoIPv6 is an interface without IPv6.
	NoIPv6 Addressing = "none"
)

// Router is a sender of RAs that a person accepted.
type Router struct {
	Address  netip.Addr     `json:"address"`       // link-local, without a zone
	MAC      string         `json:"mac,omitempty"` // of the Ethernet source; any when empty
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	// Accepted is false only in a file that `harden init` wrote and nobody has read:
	// plan refuses while one is. Left out, it is true.
	Accepted *bool `json:"accepted,omitempty"`
}

// DHCPv6Server is a server or relay whose answers are taken.
type DHCPv6Server struct {
	Address netip.Addr `json:"address"` // link-local of the server or relay on the link
}

// Service is something the host accepts.
type Service struct {
	Name  string   `json:"name"`
	Ports []string `json:"ports"` // "tcp/22", "udp/1000-2000", "sctp/…", or a protocol alone: "esp", "vrrp", "proto/112"; see ParsePort
	// From lists the sources. Nil means any, in both families; otherwise a family
	// without a prefix here is closed.
	From []netip.Prefix `json:"from,omitempty"`
	// Families narrows to "ipv4" or "ipv6". Nil means both.
	Families []string `json:"families,omitempty"`
	// Interfaces narrows to keys of Intent.Interfaces. Nil means any.
	Interfaces []string `json:"interfaces,omitempty"`
	// To narrows to destination addresses of this host. Nil means any.
	To []netip.Prefix `json:"to,omitempty"`
	// Administers marks the service through which people reach the host (ssh, when
	// left out): plan proves that it stays, confirm asks for a new connection to it.
	Administers *bool `json:"administers,omitempty"`
	// Reason says why it is open.
	Reason string `json:"reason,omitempty"`
}

// Forwarding says what may pass through the host.
type Forwarding struct {
	// IPv4 and IPv6 turn forwarding on. Nil leaves the sysctl as the role has it:
	// router on, server off, the others untouched.
	IPv4 *bool `json:"ipv4,omitempty"`
	IPv6 *bool `json:"ipv6,omitempty"`
	// Allow lists flows that may pass. With a role that forwards, what is not listed
	// is not forwarded; published container ports obey Services.
	Allow []Flow `json:"allow,omitempty"`
	// Unmanaged leaves the forward hook alone: other managers (Docker, kube-proxy,
	// libvirt) decide it.
	Unmanaged bool `json:"unmanaged,omitempty"`
}

// Flow is forwarded traffic that is allowed, with its answers.
type Flow struct {
	From []netip.Prefix `json:"from,omitempty"`
	To   []netip.Prefix `json:"to,omitempty"`
	// InInterface and OutInterface are keys of Intent.Interfaces, or names or globs of
	// interfaces themselves.
	InInterface  string   `json:"inInterface,omitempty"`
	OutInterface string   `json:"outInterface,omitempty"`
	Ports        []string `json:"ports,omitempty"`
	Families     []string `json:"families,omitempty"`
}

// Egress says what the host may send, per family.
type Egress struct {
	IPv4 EgressFamily `json:"ipv4,omitzero"`
	IPv6 EgressFamily `json:"ipv6,omitzero"`
	// Metadata of the cloud (169.254.169.254, fd00:ec2::254, fd20:ce::254 and their
	// kin): "root" lets root alone ask, "deny" nobody, "allow" (left out) anybody.
	Metadata string `json:"metadata,omitempty"`
}

// EgressFamily is one family of Egress.
type EgressFamily struct {
	Default string        `json:"default,omitempty"` // "allow" (left out) or "deny"
	Allow   []Destination `json:"allow,omitempty"`   // with deny
}

// Destination is what may be sent to.
type Destination struct {
	To    []netip.Prefix `json:"to,omitempty"`
	Ports []string       `json:"ports,omitempty"`
}

// Tunnels says which tunnels may be used. In the file, and in JSON, it is "deny",
// "allow", or a list.
type Tunnels struct {
	Policy string   // "deny" (left out, as ""), "allow", "list"
	List   []Tunnel // with "list"
}

// The policies of Tunnels.
const (
	TunnelsDeny  = "deny"
	TunnelsAllow = "allow"
	TunnelsList  = "list"
)

// MarshalJSON writes the form of the file.
func (t Tunnels) MarshalJSON() ([]byte, error) {
	if t.Policy != TunnelsList {
		return json.Marshal(cmp.Or(t.Policy, TunnelsDeny))
	}
	if t.List == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(t.List)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (t *Tunnels) UnmarshalJSON(b []byte) error {
	*t = Tunnels{}
	if len(b) > 0 && b[0] == '[' {
		t.Policy = TunnelsList
		return json.Unmarshal(b, &t.List)
	}
	return json.Unmarshal(b, &t.Policy)
}

// Tunnel is a tunnel that may be used.
type Tunnel struct {
	Mechanism string `json:"mechanism"` // one of Mechanisms
	// Peer is where the other end may be; an address is a prefix of full length. Zero
	// means anywhere.
	Peer netip.Prefix `json:"peer,omitzero"`
}

// Mechanisms are the tunnels that a Tunnel may name.
func Mechanisms() []string {
	return []string{"6in4", "6to4", "6rd", "isatap", "teredo", "gre", "ip6gre", "ipip", "ip6tnl", "vti", "vti6", "wireguard", "openvpn", "ipsec", "l2tp", "vxlan", "geneve", "fou", "gue"}
}

// The packet rates that hold where Limits leaves them out.
const (
	EchoPerSecond = 10
	NDPerSecond   = 50
)

// Limits are packet rates. Zero means the default above.
type Limits struct {
	EchoPerSecond uint32 `json:"echoPerSecond,omitempty"` // per source (IPv6: per /64)
	NDPerSecond   uint32 `json:"ndPerSecond,omitempty"`   // per sender's MAC
	// Exempt are sources (monitors) whose echo requests are never counted. Declared
	// routers and the sources of services that administer the host are exempt anyway.
	Exempt []netip.Prefix `json:"exempt,omitempty"`
}

// Logging says what is written to the kernel log, rate limited.
type Logging struct {
	Dropped bool   `json:"dropped,omitempty"` // packets that the policy drops
	Guards  *bool  `json:"guards,omitempty"`  // rogue RAs and the like; true when left out
	Prefix  string `json:"prefix,omitempty"`  // "sixfence" when left out
}

// Waiver accepts what a control of the audit finds for a time: all of it, or what it
// finds on one interface, port or address.
type Waiver struct {
	Control string `json:"control"`
	// Interface, Port (tcp/443) and Address narrow it; every one that is given must match.
	Interface string     `json:"interface,omitempty"`
	Port      string     `json:"port,omitempty"`
	Address   netip.Addr `json:"address,omitzero"`
	Reason    string     `json:"reason"`
	// Owner answers for it; Decision.Who when left out.
	Owner string `json:"owner,omitempty"`
	Until string `json:"until"` // YYYY-MM-DD
}

// Decision says who decided this intent, why, and until when it holds.
type Decision struct {
	Why   string `json:"why,omitempty"`
	Who   string `json:"who,omitempty"`
	Until string `json:"until,omitempty"` // YYYY-MM-DD: after it, status asks for a new look
}
