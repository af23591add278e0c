// Package feature asks the running kernel what the audit can rely on: which
// netlink attributes it sends, which system calls it has. A version number says
// little (vendors backport, sandboxes forbid), so each feature is probed.
//
// An answer is yes, no, or untested: the kernel did not let us find out, or the
// question would have loaded a module. No probe changes anything: none writes,
// none loads a module, and what is opened is closed again.
package feature

import "fmt"

// Answer is what a probe found.
type Answer string

// The three answers.
const (
	Yes      Answer = "yes"
	No       Answer = "no"
	Untested Answer = "untested"
)

// Result is the answer to one feature and, where there is more to say, how it is known.
type Result struct {
	Name   string `json:"name"`
	Answer Answer `json:"answer"`
	Detail string `json:"detail,omitempty"` // why untested, or a version
}

// Feature is something of the kernel that a part of the audit depends on.
type Feature struct {
	Name  string // stable, kebab-case
	What  string // what the audit uses it for, and what is missing without it
	Since string // first mainline release that has it, from the kernel's history, not from our runs
	probe func(*Prober) (Answer, string)
}

// Prober runs probes.
type Prober struct {
	// Present tells whether a kernel subsystem is loaded or built in
	// (kmod.Dump.Present). What is not present is not asked.
	Present func(subsystem string) bool
}

// All lists the features in the order in which they are shown.
func All() []Feature {
	return []Feature{
		{"inet-diag", "sockets with their owner's uid by netlink; without it /proc/net is read", "2.6.14", (*Prober).inetDiag},
		{"inet-diag-v6only", "tells [::] for both families from [::] for IPv6 alone; without it LISTEN-* is unknown", "4.1", (*Prober).skV6Only},
		{"udp-diag", "UDP sockets by netlink; without it /proc/net is read", "3.3", subsystem("udp_diag")},
		{"raw-diag", "raw sockets by netlink; without it /proc/net/raw and raw6 are read", "4.10", subsystem("raw_diag")},
		{"packet-diag", "packet sockets by netlink; without it /proc/net/packet is read", "3.7", subsystem("packet_diag")},
		{"sctp-diag", "SCTP listeners; without it they are unknown where SCTP is loaded", "4.7", subsystem("sctp_diag")},
		{"inet6-conf", "IFLA_INET6_CONF: the IPv6 settings of every interface in one dump, without /proc", "2.6.13", (*Prober).inet6Conf},
		{"ifa-proto", "IFA_PROTO: tells addresses from router advertisements from others; without it the flags decide", "5.18", (*Prober).ifaProto},
		{"neighbour-table-fulls", "NDTA_STATS table_fulls: neighbour-table overflow, seen from any namespace", "4.3", (*Prober).tableFulls},
		{"netlink-strict", "NETLINK_GET_STRICT_CHK: dumps of one table or interface", "4.20", (*Prober).strict},
		{"netns-of-socket", "SIOCGSKNS: finds namespaces that only a socket keeps alive", "4.10", (*Prober).siocgskns},
		{"netns-owner", "NS_GET_USERNS: tells the host's namespaces from those any user made", "4.9", (*Prober).nsOwner},
		{"pidfd-getfd", "pidfd_getfd: looks at a socket that is in no namespace we can name", "5.6", (*Prober).pidfdGetfd},
		{"openat2", "openat2 RESOLVE_IN_ROOT: --root is resolved by the kernel; without it by hand", "5.6", (*Prober).openat2},
		{"landlock", "Landlock: the sealed stage may open nothing; without it capabilities and no_new_privs remain", "5.13", (*Prober).landlock},
		{"force-forwarding", "the sysctl force_forwarding: SYSCTL-FWD-03", "6.17", sysctlKey("force_forwarding")},
		{"accept-ra-min-lft", "the sysctl accept_ra_min_lft: SYSCTL-RA-11", "6.6", sysctlKey("accept_ra_min_lft")},
		{"accept-untracked-na", "the sysctl accept_untracked_na: SYSCTL-ND-03", "5.19", sysctlKey("accept_untracked_na")},
		{"nf-tables", "the packet filter's ruleset by netlink", "3.13", subsystem("nf_tables")},
		{"bpf-link-list", "BPF_LINK_GET_NEXT_ID: lists programs attached to netfilter hooks", "5.8", (*Prober).bpfLinks},
		{"bpf-netfilter-link", "BPF programs as netfilter hooks can exist at all", "6.4", (*Prober).bpfNetfilter},
		{"tcx", "BPF_PROG_QUERY of TCX programs on an interface", "6.6", (*Prober).tcx},
	}
}

// Probe asks for every feature.
func (p *Prober) Probe() []Result {
	var out []Result
	for _, f := range All() {
		a, detail := f.probe(p)
		out = append(out, Result{f.Name, a, detail})
	}
	return out
}

func (p *Prober) present(name string) bool { return p.Present != nil && p.Present(name) }

func subsystem(name string) func(*Prober) (Answer, string) {
	return func(p *Prober) (Answer, string) {
		if p.present(name) {
			return subsystemAnswers(name)
		}
		return Untested, fmt.Sprintf("%s is not loaded, and asking would load it", name)
	}
}
