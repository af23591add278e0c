# what: lxc-net's bridge with NAT for IPv4 and IPv6, as LXC's own script sets it up
# tool: lxc
# packages: lxc dnsmasq-base nftables iptables
version() { lxc-info --version | sed 's/^/lxc /'; }
recipe() {
	forwarding
	cat >/etc/default/lxc-net <<-'F'
		USE_LXC_BRIDGE="true"
		LXC_IPV6_ADDR="fd00:1c::1"
		LXC_IPV6_MASK="64"
		LXC_IPV6_NETWORK="fd00:1c::/64"
		LXC_IPV6_NAT="true"
	F
	"$(find /usr/lib /usr/libexec -name lxc-net -type f | head -1)" start
}
