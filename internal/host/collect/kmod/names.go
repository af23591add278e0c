package kmod

import (
	"maps"
	"slices"
)

// interest maps every module the catalogue speaks about to the CONFIG_ symbol
// that builds it (net/ipv4, net/ipv6, net/l2tp, net/xfrm and drivers/net
// Makefiles). The symbol is a hint, used only where modules.builtin is missing.
var interest = map[string]string{
	"ipv6": "IPV6",

	// Tunnels and transition mechanisms.
	"sit":             "IPV6_SIT",
	"ipip":            "NET_IPIP",
	"ip_tunnel":       "NET_IP_TUNNEL",
	"tunnel4":         "INET_TUNNEL",
	"tunnel6":         "INET6_TUNNEL",
	"ip6_tunnel":      "IPV6_TUNNEL",
	"gre":             "NET_IPGRE_DEMUX",
	"ip_gre":          "NET_IPGRE",
	"ip6_gre":         "IPV6_GRE",
	"ip_vti":          "NET_IPVTI",
	"ip6_vti":         "IPV6_VTI",
	"fou":             "NET_FOU",
	"fou6":            "IPV6_FOU",
	"udp_tunnel":      "NET_UDP_TUNNEL",
	"ip6_udp_tunnel":  "NET_UDP_TUNNEL",
	"vxlan":           "VXLAN",
	"geneve":          "GENEVE",
	"bareudp":         "BAREUDP",
	"amt":             "AMT",
	"gtp":             "GTP",
	"l2tp_core":       "L2TP",
	"l2tp_netlink":    "L2TP_V3",
	"l2tp_eth":        "L2TP_ETH",
	"l2tp_ip":         "L2TP_IP",
	"l2tp_ip6":        "L2TP_IP",
	"l2tp_ppp":        "PPPOL2TP",
	"tun":             "TUN",
	"wireguard":       "WIREGUARD",
	"ovpn":            "OVPN",
	"ppp_generic":     "PPP",
	"pppox":           "PPPOE",
	"pppoe":           "PPPOE",
	"pptp":            "PPTP",
	"mpls_router":     "MPLS_ROUTING",
	"mpls_iptunnel":   "MPLS_IPTUNNEL",
	"openvswitch":     "OPENVSWITCH",
	"ila":             "IPV6_ILA",
	"mip6":            "IPV6_MIP6",
	"batman_adv":      "BATMAN_ADV",
	"jool":            "", // out of tree
	"jool_siit":       "",
	"xfrm_interface":  "XFRM_INTERFACE",
	"xfrm4_tunnel":    "INET_XFRM_TUNNEL",
	"xfrm6_tunnel":    "INET6_XFRM_TUNNEL",
	"esp4":            "INET_ESP",
	"esp6":            "INET6_ESP",
	"ah4":             "INET_AH",
	"ah6":             "INET6_AH",
	"ipcomp":          "INET_IPCOMP",
	"ipcomp6":         "INET6_IPCOMP",
	"sctp":            "IP_SCTP",
	"dccp":            "IP_DCCP",
	"dccp_ipv6":       "IP_DCCP",
	"tipc":            "TIPC",
	"rds":             "RDS",
	"br_netfilter":    "BRIDGE_NETFILTER",
	"nf_conntrack":    "NF_CONNTRACK",
	"nfnetlink":       "NETFILTER_NETLINK",
	"nf_tables":       "NF_TABLES",
	"nfnetlink_hook":  "NETFILTER_NETLINK_HOOK",
	"x_tables":        "NETFILTER_XTABLES",
	"ip_tables":       "IP_NF_IPTABLES",
	"ip6_tables":      "IP6_NF_IPTABLES",
	"arp_tables":      "IP_NF_ARPTABLES",
	"ebtables":        "BRIDGE_NF_EBTABLES",
	"ebtable_filter":  "BRIDGE_EBT_T_FILTER",
	"ebtable_nat":     "BRIDGE_EBT_T_NAT",
	"ebtable_broute":  "BRIDGE_EBT_BROUTE",
	"ip_set":          "IP_SET",
	"inet_diag":       "INET_DIAG",
	"tcp_diag":        "INET_TCP_DIAG",
	"udp_diag":        "INET_UDP_DIAG",
	"raw_diag":        "INET_RAW_DIAG",
	"sctp_diag":       "INET_SCTP_DIAG",
	"mptcp_diag":      "INET_MPTCP_DIAG",
	"af_packet":       "PACKET",
	"af_packet_diag":  "PACKET_DIAG",
	"unix_diag":       "UNIX_DIAG",
	"netlink_diag":    "NETLINK_DIAG",
	"iptable_filter":  "IP_NF_FILTER",
	"ip6table_filter": "IP6_NF_FILTER",
}

// synonyms are names that collectors and people use for a module.
var synonyms = map[string]string{
	"packet_diag": "af_packet_diag",
	"ppp":         "ppp_generic",
}

// Interest lists the modules that Loadable, Depends and Aliases speak about, sorted.
func Interest() []string { return slices.Sorted(maps.Keys(interest)) }
