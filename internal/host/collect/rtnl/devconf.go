package rtnl

import (
	"encoding/binary"
)

// devconf names the entries of IFLA_INET6_CONF by the file below
// /proc/sys/net/ipv6/conf/IF that shows the same setting, in the order of
// include/uapi/linux/ipv6.h (DEVCONF_*). An empty name is an entry the kernel
// does not fill in: the stable secret is a secret.
var devconf = [...]string{
	"forwarding",
	"hop_limit",
	"mtu",
	"accept_ra",
	"accept_redirects",
	"autoconf",
	"dad_transmits",
	"router_solicitations",
	"router_solicitation_interval",
	"router_solicitation_delay",
	"use_tempaddr",
	"temp_valid_lft",
	"temp_prefered_lft",
	"regen_max_retry",
	"max_desync_factor",
	"max_addresses",
	"force_mld_version",
	"accept_ra_defrtr",
	"accept_ra_pinfo",
	"accept_ra_rtr_pref",
	"router_probe_interval",
	"accept_ra_rt_info_max_plen",
	"proxy_ndp",
	"optimistic_dad",
	"accept_source_route",
	"mc_forwarding",
	"disable_ipv6",
	"accept_dad",
	"force_tllao",
	"ndisc_notify",
	"mldv1_unsolicited_report_interval",
	"mldv2_unsolicited_report_interval",
	"suppress_frag_ndisc",
	"accept_ra_from_local",
	"use_optimistic",
	"accept_ra_mtu",
	"", // stable_secret
	"use_oif_addrs_only",
	"accept_ra_min_hop_limit",
	"ignore_routes_with_linkdown",
	"drop_unicast_in_l2_multicast",
	"drop_unsolicited_na",
	"keep_addr_on_down",
	"router_solicitation_max_interval",
	"seg6_enabled",
	"seg6_require_hmac",
	"enhanced_dad",
	"addr_gen_mode",
	"disable_policy",
	"accept_ra_rt_info_min_plen",
	"ndisc_tclass",
	"rpl_seg_enabled",
	"ra_defrtr_metric",
	"ioam6_enabled",
	"ioam6_id",
	"ioam6_id_wide",
	"ndisc_evict_nocarrier",
	"accept_untracked_na",
	"accept_ra_min_lft",
	"force_forwarding",
}

// milliseconds are the entries that netlink gives in milliseconds
// (ipv6_store_devconf, net/ipv6/addrconf.c) and the file in seconds.
var milliseconds = map[string]bool{
	"router_solicitation_interval":     true,
	"router_solicitation_delay":        true,
	"router_solicitation_max_interval": true,
	"router_probe_interval":            true,
}

// decodeDevconf decodes IFLA_INET6_CONF. Older kernels send fewer entries;
// entries that this build has no name for are left out.
func decodeDevconf(b []byte) map[string]int32 {
	m := make(map[string]int32, len(devconf))
	for i, name := range devconf {
		if len(b) < 4*(i+1) {
			break
		}
		if name == "" {
			continue
		}
		v := int32(binary.NativeEndian.Uint32(b[4*i:]))
		if milliseconds[name] {
			v /= 1000
		}
		m[name] = v
	}
	return m
}
