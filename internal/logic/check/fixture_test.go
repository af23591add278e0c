package check

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// state is one state of a host and what a control must say about it.
type state struct {
	name string
	edit func(*fact.Snapshot) // of the hardened host(); nil leaves it as it is
	role string               // as given with --role; empty: inferred
	// want is the verdict that counts: the effective one, unless the control is
	// about a benchmark only. fail: at least one subject fails. pass: at
	// least one passes and none fails or is unknown. unknown: at least one is and
	// none fails. not-applicable: all are.
	want       finding.Status
	compliance finding.Status   // of the results that have the effective verdict; empty: not looked at
	subject    finding.Subject  // only results whose fields equal the non-empty ones here
	severity   finding.Severity // of the results that have the effective verdict; empty: not looked at
}

// families of states, by control ID. Each lives beside its controls' tests.
func allStates() map[string][]state {
	out := map[string][]state{}
	for _, m := range []map[string][]state{
		inventoryStates(), raStates(), stackStates(),
		ndpStates(), routerStates(), listenStates(), tunnelStates(), firewallStates(),
	} {
		for id, ss := range m {
			out[id] = append(out[id], ss...)
		}
	}
	return out
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// host is a fully known, hardened dual-stack Debian server: static addresses, a
// static default route through a pinned gateway, no packet filter, one sshd.
func host() *fact.Snapshot {
	s := &fact.Snapshot{SchemaVersion: fact.SchemaVersion}
	h := &s.Host
	h.Mode = fact.ModeLive
	h.Hostname = fact.Value("host.example")
	h.CollectedAt = now
	h.OS = fact.Value(fact.OSRelease{ID: "debian", VersionID: "12", Name: "Debian GNU/Linux 12 (bookworm)"})
	h.Kernel = fact.Value(fact.Kernel{Release: "6.18.44", Machine: "x86_64"})
	h.ByteOrder, h.WordSize = "little", 64
	h.Privilege = fact.Privilege{Capabilities: []string{"cap_net_admin", "cap_sys_admin"}, InitialUserNS: true, InitialPIDNS: true, InitialNetNS: true}
	h.Files = fact.Files{
		Sysctl:      fact.Value(bootSettings()),
		Modprobe:    fact.Value([]fact.ModprobeDirective{}),
		ModulesLoad: fact.Value([]fact.ModprobeDirective{}),
		Hosts: fact.Value([]fact.HostsEntry{
			{Address: "127.0.0.1", Names: []string{"localhost"}, Origin: fact.Origin{File: "/etc/hosts", Line: 1}},
			{Address: "::1", Names: []string{"localhost", "ip6-localhost", "ip6-loopback"}, Origin: fact.Origin{File: "/etc/hosts", Line: 2}},
		}),
		Resolver: fact.Value(fact.Resolver{Nameservers: []string{"2001:db8:1::53"}}),
		GaiConf:  fact.Value(false),
		NSSHosts: fact.Value([]string{"files", "dns"}),
		UFW:      fact.Absent[fact.UFW](),
		Units:    fact.Value([]fact.Unit{{Name: "ssh.service", Path: "/lib/systemd/system/ssh.service", Enabled: true, Origin: fact.Origin{File: "/lib/systemd/system/ssh.service"}}}),
	}
	h.Modules = fact.Modules{
		Supported: fact.Value(true),
		Loaded:    fact.Value([]string{"veth"}),
		Builtin:   fact.Value([]string{"ipv6"}),
		Loadable:  fact.Value(map[string]string{}),
		Depends:   fact.Value(map[string][]string{}),
	}
	h.Boot = fact.Boot{
		Parameters:      fact.Value(map[string]string{}),
		IPv6Module:      fact.Value(map[string]string{"disable": "0", "disable_ipv6": "0", "autoconf": "1"}),
		ModulesDisabled: fact.Value(false),
	}
	h.Managers = fact.Value([]fact.Manager{{
		Name: "ifupdown", Running: fact.Value(false), Enabled: fact.Value(true), NetNS: initNS,
		Interfaces: []fact.ManagedInterface{{
			Names: []string{"eth0"}, AcceptRA: fact.Value(false), AcceptRASet: true,
			DHCPv6: fact.Value(false), LinkLocal: fact.Value(true),
			Addresses: []netip.Prefix{netip.MustParsePrefix("2001:db8:1:0:8c1f:6e5f:93d1:4a7b/64")},
			Gateways:  []netip.Addr{netip.MustParseAddr("fe80::1")},
			Sysctls:   map[string]string{"accept_ra": "0"},
			Origin:    fact.Origin{File: "/etc/network/interfaces", Line: 10},
		}},
	}})
	h.Processes = fact.Value([]fact.Process{{
		PID: 812, Exe: fact.Value("/usr/sbin/sshd"), Comm: "sshd", Cgroup: "/system.slice/ssh.service",
		Unit: "ssh.service", NetNS: fact.Value(initNS),
	}})
	h.Runtimes = fact.Runtimes{Docker: fact.Absent[fact.Docker](), Libvirt: fact.Absent[fact.Libvirt](), Kubelet: fact.Absent[fact.Kubelet]()}
	h.Apps = fact.Apps{
		SSHD:       fact.Value(fact.SSHD{AddressFamily: "any", Ports: []uint16{22}, Origin: fact.Origin{File: "/etc/ssh/sshd_config"}}),
		Postgres:   fact.Absent[[]fact.Postgres](),
		Fail2ban:   fact.Absent[fact.Fail2ban](),
		SourceACLs: fact.Value([]fact.SourceACL{}),
	}
	h.BPF = fact.BPF{NetfilterLinks: fact.Value([]fact.NetfilterLink{})}
	h.Orphans = fact.Value([]fact.OrphanSocket{})
	h.UserNS = fact.UserNamespaces{
		Unprivileged: fact.Value(false), Max: fact.Value[int64](0),
		AppArmor: fact.Absent[bool](), TunMode: fact.Value[uint32](0o600),
	}
	s.Namespaces = []fact.Namespace{namespace("init", initNS)}
	n := &s.Namespaces[0]
	n.IsInit, n.IsSelf, n.Users = true, true, 120
	return s
}

var initNS = fact.NamespaceID{Dev: 4, Inode: 4026531840}

// namespace is a fully known network namespace like the fixture's first one.
func namespace(name string, id fact.NamespaceID) fact.Namespace {
	n := fact.Namespace{ID: id, Name: name, Users: 3}
	n.Owner = fact.Value(fact.UserNS{Inode: 4026531837, Initial: true})
	n.IPv6 = fact.Value(true)
	n.Links = fact.Value([]fact.Link{
		{
			Index: 1, Name: "lo", Type: 772, Flags: 0x10049, OperState: 0, MTU: 65536, MAC: "00:00:00:00:00:00",
			Inet6: fact.Value(conf6(nil)), AddrGenMode: fact.Value[uint8](0), Token: fact.Absent[netip.Addr](), XDP: fact.Value[uint8](0), TCIngress: fact.Value(false),
		},
		ethernet(2, "eth0"),
	})
	n.Addresses = fact.Value([]fact.Address{
		address(1, "127.0.0.1/8"), address(1, "::1/128"),
		address(2, "192.0.2.10/24"), address(2, "2001:db8:1:0:8c1f:6e5f:93d1:4a7b/64"), address(2, "fe80::8a3e:51ff:2b60:7c19/64"),
	})
	sys := fact.Sysctls{Values: map[string]string{}, Gaps: map[string]fact.Gap{}, Complete: []string{"net/ipv6", "net/ipv4", "net/core", "net/netfilter"}}
	for _, f := range []string{"all", "default", "lo", "eth0"} {
		for k, v := range hardened {
			sys.Values["net/ipv6/conf/"+f+"/"+k] = v
		}
	}
	maps.Copy(sys.Values, perNetNS)
	for _, f := range []string{"default", "lo", "eth0"} {
		for k, v := range map[string]string{"base_reachable_time_ms": "30000", "retrans_time_ms": "1000", "unres_qlen_bytes": "212992", "app_solicit": "0", "mcast_solicit": "3", "ucast_solicit": "3"} {
			sys.Values["net/ipv6/neigh/"+f+"/"+k] = v
		}
	}
	n.Sysctls = fact.Value(sys)
	n.Routes = fact.Value([]fact.Route{
		{Family: "ipv4", Dst: netip.MustParsePrefix("0.0.0.0/0"), Table: 254, Protocol: fact.ProtoBoot, Type: 1, Expires: fact.Absent[int64](), NextHops: []fact.NextHop{{Via: netip.MustParseAddr("192.0.2.1"), Index: 2}}},
		route("::/0", "fe80::1", 2, fact.ProtoStatic),
		route("2001:db8:1::/64", "", 2, fact.ProtoKernel),
		route("fe80::/64", "", 2, fact.ProtoKernel),
	})
	n.Rules = fact.Value([]fact.Rule{
		{Family: "ipv6", Priority: 0, Table: 255, Action: 1},
		{Family: "ipv6", Priority: 32766, Table: 254, Action: 1},
	})
	n.Neighbours = fact.Value([]fact.Neighbour{
		{Index: 2, Address: netip.MustParseAddr("fe80::1"), MAC: "52:54:00:00:00:01", State: fact.NUDPermanent, Flags: fact.NeighRouter},
	})
	n.ProxyNeighbours = fact.Value([]fact.Neighbour{})
	n.NeighbourTable = fact.Value(fact.NeighbourTable{
		GCThresh1: 128, GCThresh2: 1024, GCThresh3: 4096, Entries: 4, GCInterval: 30000,
		Allocs: 40, Destroys: 36, Lookups: 1000, Hits: 990, TableFulls: fact.Value[uint64](0),
		Parms: []fact.NeighbourParms{
			{Index: 0, BaseReachableMs: 30000, RetransMs: 1000, QueueBytes: 212992},
			{Index: 1, BaseReachableMs: 30000, RetransMs: 1000, QueueBytes: 212992},
			{Index: 2, BaseReachableMs: 30000, RetransMs: 1000, QueueBytes: 212992},
		},
	})
	n.Multicast = fact.Value([]fact.Membership{
		{Index: 1, Group: netip.MustParseAddr("ff02::1"), Users: 1},
		{Index: 2, Group: netip.MustParseAddr("ff02::1"), Users: 1},
		{Index: 2, Group: netip.MustParseAddr("ff02::1:ffd1:4a7b"), Users: 1},
	})
	n.Sockets = fact.Value([]fact.Socket{{
		Family: "ipv6", Protocol: "tcp", State: "listen", Local: netip.IPv6Unspecified(), Port: 22,
		V6Only: fact.Value(false), Inode: 4711, Owners: fact.Value([]int{812}), Source: "inet_diag",
	}})
	n.PacketFilter = fact.PacketFilter{
		NFTables: fact.Absent[fact.NFTables](), Legacy: fact.Absent[[]fact.LegacyTable](),
		EBTables: fact.Value(false), BridgeNFCall: fact.Unsupported[string](),
	}
	return n
}

// ethernet is a plain NIC that is up.
func ethernet(index int, name string) fact.Link {
	return fact.Link{
		Index: index, Name: name, Type: 1, Flags: 0x11043, OperState: 6, MTU: 1500, MAC: "52:54:00:00:00:" + hex2(index),
		Inet6: fact.Value(conf6(nil)), AddrGenMode: fact.Value[uint8](3), Token: fact.Absent[netip.Addr](), XDP: fact.Value[uint8](0), TCIngress: fact.Value(false),
	}
}

func hex2(n int) string { return strconv.FormatInt(int64(n&0xff)|0x100, 16)[1:] }

func address(index int, p string) fact.Address {
	a := fact.Address{Index: index, Prefix: netip.MustParsePrefix(p), Flags: fact.AddrPermanent, Preferred: fact.Forever, Valid: fact.Forever}
	switch {
	case a.Prefix.Addr().IsLoopback():
		a.Scope, a.Protocol = 254, 1
	case a.Prefix.Addr().IsLinkLocalUnicast():
		a.Scope, a.Protocol = 253, 3
	}
	return a
}

func route(dst, via string, index int, proto uint8) fact.Route {
	r := fact.Route{Family: "ipv6", Dst: netip.MustParsePrefix(dst), Table: 254, Protocol: proto, Type: 1, Priority: 1024, Expires: fact.Absent[int64](), NextHops: []fact.NextHop{{Index: index}}}
	if via != "" {
		r.NextHops[0].Via = netip.MustParseAddr(via)
	}
	return r
}

// hardened is net.ipv6.conf.IF of an interface with static addresses.
var hardened = map[string]string{
	"accept_dad": "1", "accept_ra": "0", "accept_ra_defrtr": "0", "accept_ra_from_local": "0",
	"accept_ra_min_hop_limit": "64", "accept_ra_min_lft": "180", "accept_ra_mtu": "0", "accept_ra_pinfo": "0",
	"accept_ra_rt_info_max_plen": "0", "accept_ra_rt_info_min_plen": "0", "accept_ra_rtr_pref": "0",
	"accept_redirects": "0", "accept_source_route": "-1", "accept_untracked_na": "0", "addr_gen_mode": "3",
	"autoconf": "0", "dad_transmits": "1", "disable_ipv6": "0", "disable_policy": "0",
	"drop_unicast_in_l2_multicast": "1", "drop_unsolicited_na": "1", "enhanced_dad": "1", "force_forwarding": "0",
	"force_mld_version": "0", "force_tllao": "0", "forwarding": "0", "hop_limit": "64",
	"ignore_routes_with_linkdown": "0", "ioam6_enabled": "0", "keep_addr_on_down": "0", "max_addresses": "16",
	"mc_forwarding": "0", "mtu": "1500", "ndisc_evict_nocarrier": "1", "ndisc_notify": "0", "ndisc_tclass": "0",
	"optimistic_dad": "0", "proxy_ndp": "0", "ra_defrtr_metric": "1024", "ra_honor_pio_life": "0",
	"ra_honor_pio_pflag": "0", "router_solicitations": "0", "rpl_seg_enabled": "0", "seg6_enabled": "0",
	"seg6_require_hmac": "0", "suppress_frag_ndisc": "1", "use_oif_addrs_only": "0", "use_optimistic": "0", "use_tempaddr": "0",
}

// perNetNS are the settings outside conf/.
var perNetNS = map[string]string{
	"net/ipv6/anycast_src_echo_reply": "0", "net/ipv6/bindv6only": "0", "net/ipv6/fwmark_reflect": "0",
	"net/ipv6/ip6frag_high_thresh": "4194304", "net/ipv6/ip6frag_low_thresh": "3145728", "net/ipv6/ip6frag_time": "60",
	"net/ipv6/ip_nonlocal_bind": "0", "net/ipv6/max_dst_opts_length": "256", "net/ipv6/max_dst_opts_number": "8",
	"net/ipv6/max_hbh_length": "256", "net/ipv6/max_hbh_opts_number": "8",
	"net/ipv6/icmp/echo_ignore_all": "0", "net/ipv6/icmp/echo_ignore_anycast": "1", "net/ipv6/icmp/echo_ignore_multicast": "1",
	"net/ipv6/icmp/ratelimit": "1000", "net/ipv6/icmp/ratemask": "0-1,3-127",
	"net/ipv6/neigh/default/gc_thresh1": "128", "net/ipv6/neigh/default/gc_thresh2": "1024", "net/ipv6/neigh/default/gc_thresh3": "4096",
	"net/ipv6/neigh/default/gc_interval": "30", "net/ipv6/route/max_size": "2147483647",
	"net/ipv4/ip_forward": "0", "net/ipv4/tcp_mtu_probing": "1",
	"net/core/devconf_inherit_init_net": "0", "net/core/fb_tunnels_only_for_init_net": "1",
	"net/netfilter/nf_log_all_netns": "0", "net/netfilter/nf_conntrack_frag6_timeout": "60",
	"net/netfilter/nf_conntrack_frag6_high_thresh": "4194304", "net/netfilter/nf_conntrack_frag6_low_thresh": "3145728",
}

// bootSettings is a drop-in that brings the fixture's settings back at boot.
func bootSettings() []fact.SysctlSetting {
	var out []fact.SysctlSetting
	add := func(key, value string, glob bool) {
		out = append(out, fact.SysctlSetting{
			Key: key, Value: value, Glob: glob, By: "systemd-sysctl",
			Origin: fact.Origin{File: "/etc/sysctl.d/60-sixfence.conf", Line: len(out) + 1},
		})
	}
	for _, k := range slices.Sorted(maps.Keys(hardened)) {
		switch k {
		case "mtu", "mc_forwarding": // not an administrator's setting, read-only
			continue
		}
		add("net/ipv6/conf/*/"+k, hardened[k], true)
	}
	for _, k := range slices.Sorted(maps.Keys(perNetNS)) {
		add(k, perNetNS[k], false)
	}
	return out
}

func conf6(edit map[string]int32) map[string]int32 {
	out := map[string]int32{}
	for k, v := range hardened {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			panic(err)
		}
		out[k] = int32(n)
	}
	maps.Copy(out, edit)
	return out
}

// must returns a fact's value: fixtures edit what is there.
func must[T any](k fact.Known[T]) T {
	v, ok := k.Get()
	if !ok {
		panic("fixture: no value")
	}
	return v
}

// edits joins edits into one.
func edits(es ...func(*fact.Snapshot)) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		for _, e := range es {
			e(s)
		}
	}
}

// setSysctl sets a value below /proc/sys in the first namespace, and in the
// interface's IFLA_INET6_CONF when there is one.
func setSysctl(s *fact.Snapshot, path, value string) { setSysctlIn(&s.Namespaces[0], path, value) }

func setSysctlIn(n *fact.Namespace, path, value string) {
	must(n.Sysctls).Values[path] = value
	rest, ok := strings.CutPrefix(path, "net/ipv6/conf/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return
	}
	for _, l := range must(n.Links) {
		if m, ok := l.Inet6.Get(); ok && l.Name == rest[:i] {
			if v, err := strconv.ParseInt(value, 10, 32); err == nil {
				m[rest[i+1:]] = int32(v)
			} else {
				delete(m, rest[i+1:])
			}
		}
	}
}

// sysctls is an edit that sets several values: path, value, path, value …
func sysctls(kv ...string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		for i := 0; i+1 < len(kv); i += 2 {
			setSysctl(s, kv[i], kv[i+1])
		}
	}
}

// confs is an edit of net/ipv6/conf/IF: key, value, key, value …
func confs(ifname string, kv ...string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		for i := 0; i+1 < len(kv); i += 2 {
			setSysctl(s, "net/ipv6/conf/"+ifname+"/"+kv[i], kv[i+1])
		}
	}
}

// dropSysctl makes a setting one that this kernel does not have.
func dropSysctl(s *fact.Snapshot, path string) { delete(must(s.Namespaces[0].Sysctls).Values, path) }

// gapSysctl makes a setting unreadable, in /proc/sys and in netlink.
func gapSysctl(s *fact.Snapshot, path string) {
	t := must(s.Namespaces[0].Sysctls)
	delete(t.Values, path)
	t.Gaps[path] = fact.Gap{Reason: fact.Permission, What: "/proc/sys/" + path}
	rest, ok := strings.CutPrefix(path, "net/ipv6/conf/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return
	}
	for _, l := range must(s.Namespaces[0].Links) {
		if m, ok := l.Inet6.Get(); ok && l.Name == rest[:i] {
			delete(m, rest[i+1:])
		}
	}
}

// gapped is an edit with gapSysctl.
func gapped(paths ...string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		for _, p := range paths {
			gapSysctl(s, p)
		}
	}
}

// addLink adds an interface to the first namespace, with hardened settings, and
// returns it for further edits.
func addLink(s *fact.Snapshot, name string) *fact.Link { return addLinkIn(&s.Namespaces[0], name) }

func addLinkIn(n *fact.Namespace, name string) *fact.Link {
	ls := must(n.Links)
	ls = append(ls, ethernet(len(ls)+1, name))
	n.Links = fact.Value(ls)
	for k, v := range hardened {
		must(n.Sysctls).Values["net/ipv6/conf/"+name+"/"+k] = v
	}
	return &ls[len(ls)-1]
}

// editLink changes an interface of the first namespace.
func editLink(name string, f func(*fact.Link)) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		ls := must(s.Namespaces[0].Links)
		for i := range ls {
			if ls[i].Name == name {
				f(&ls[i])
				return
			}
		}
		panic("fixture: no link " + name)
	}
}

func addSocket(s *fact.Snapshot, k fact.Socket) { addSocketIn(&s.Namespaces[0], k) }

func addSocketIn(n *fact.Namespace, k fact.Socket) {
	n.Sockets = fact.Value(append(must(n.Sockets), k))
}

func addRoute(s *fact.Snapshot, r fact.Route) {
	s.Namespaces[0].Routes = fact.Value(append(must(s.Namespaces[0].Routes), r))
}

// dropRoutes removes the routes of the first namespace that f picks.
func dropRoutes(s *fact.Snapshot, f func(fact.Route) bool) {
	s.Namespaces[0].Routes = fact.Value(slices.DeleteFunc(must(s.Namespaces[0].Routes), f))
}

func isDefault6(r fact.Route) bool { return r.Family == "ipv6" && r.Dst.Bits() == 0 }

func addAddress(s *fact.Snapshot, a fact.Address) {
	s.Namespaces[0].Addresses = fact.Value(append(must(s.Namespaces[0].Addresses), a))
}

func dropAddresses(s *fact.Snapshot, f func(fact.Address) bool) {
	s.Namespaces[0].Addresses = fact.Value(slices.DeleteFunc(must(s.Namespaces[0].Addresses), f))
}

func addNeighbour(s *fact.Snapshot, n fact.Neighbour) {
	s.Namespaces[0].Neighbours = fact.Value(append(must(s.Namespaces[0].Neighbours), n))
}

// addProcess adds a process in the first namespace.
func addProcess(s *fact.Snapshot, pid int, exe string) {
	s.Host.Processes = fact.Value(append(must(s.Host.Processes), fact.Process{PID: pid, Exe: fact.Value(exe), NetNS: fact.Value(s.Namespaces[0].ID)}))
}

func addManager(s *fact.Snapshot, m fact.Manager) {
	s.Host.Managers = fact.Value(append(must(s.Host.Managers), m))
}

// addNamespace adds a second namespace like the first and returns it.
func addNamespace(s *fact.Snapshot, name string) *fact.Namespace {
	s.Namespaces = append(s.Namespaces, namespace(name, fact.NamespaceID{Dev: 4, Inode: 4026532000 + uint64(len(s.Namespaces))}))
	return &s.Namespaces[len(s.Namespaces)-1]
}

// slaac turns eth0 into an interface that lives by router advertisements: no
// static address or route, accept_ra=1, one RA route and one RA address.
func slaac(s *fact.Snapshot) {
	dropRoutes(s, func(r fact.Route) bool { return isDefault6(r) })
	dropAddresses(s, func(a fact.Address) bool {
		return a.Index == 2 && a.Prefix.Addr().Is6() && a.Prefix.Addr().IsGlobalUnicast()
	})
	r := route("::/0", "fe80::1", 2, fact.ProtoRA)
	r.Expires = fact.Value[int64](1500)
	addRoute(s, r)
	a := address(2, "2001:db8:1:0:5054:aaff:fe00:2/64")
	a.Flags, a.Protocol, a.Valid, a.Preferred = fact.AddrManageTemp, 2, 86000, 14000
	addAddress(s, a)
	confs("eth0", "accept_ra", "1", "autoconf", "1", "accept_ra_pinfo", "1", "accept_ra_defrtr", "1", "router_solicitations", "-1")(s)
}

// legacyFilter gives the first namespace an ip6_tables filter table: whatever
// it may drop was not read.
func legacyFilter(s *fact.Snapshot) {
	s.Namespaces[0].PacketFilter.Legacy = fact.Value([]fact.LegacyTable{{Family: "ipv6", Name: "filter", Hooks: 0b01110, Entries: 4}})
}

// noIPv6 is a host that booted with ipv6.disable=1.
func noIPv6(s *fact.Snapshot) {
	n := &s.Namespaces[0]
	n.IPv6 = fact.Value(false)
	t := must(n.Sysctls)
	maps.DeleteFunc(t.Values, func(k, _ string) bool { return strings.HasPrefix(k, "net/ipv6/") })
	t.Complete = []string{"net"}
	n.Sysctls = fact.Value(t)
	ls := must(n.Links)
	for i := range ls {
		ls[i].Inet6 = fact.Absent[map[string]int32]()
		ls[i].AddrGenMode = fact.Absent[uint8]()
	}
	is6 := func(a netip.Addr) bool { return a.Is6() }
	dropAddresses(s, func(a fact.Address) bool { return is6(a.Prefix.Addr()) })
	dropRoutes(s, func(r fact.Route) bool { return r.Family == "ipv6" })
	n.Rules = fact.Value([]fact.Rule{})
	n.Neighbours = fact.Value([]fact.Neighbour{})
	n.NeighbourTable = fact.Absent[fact.NeighbourTable]()
	n.Multicast = fact.Value([]fact.Membership{})
	n.Sockets = fact.Value([]fact.Socket{{Family: "ipv4", Protocol: "tcp", State: "listen", Local: netip.IPv4Unspecified(), Port: 22, V6Only: fact.Absent[bool](), Inode: 4711, Owners: fact.Value([]int{812}), Source: "inet_diag"}})
	s.Host.Boot.Parameters = fact.Value(map[string]string{"ipv6.disable": "1"})
	s.Host.Boot.IPv6Module = fact.Value(map[string]string{"disable": "1", "disable_ipv6": "0", "autoconf": "1"})
}

// with builds an edited host.
func with(e func(*fact.Snapshot)) *fact.Snapshot {
	s := host()
	if e != nil {
		e(s)
	}
	return s
}

// asJSON is the Snapshot as a tree that tests can cut.
func asJSON(t testing.TB, s *fact.Snapshot) map[string]any {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func fromJSON(t testing.TB, m map[string]any) *fact.Snapshot {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	s := new(fact.Snapshot)
	if err := json.Unmarshal(b, s); err != nil {
		t.Fatal(err)
	}
	return s
}
