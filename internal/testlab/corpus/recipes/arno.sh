# what: arno-iptables-firewall on a gateway with open ports for both families and NAT
# tool: arno-iptables-firewall
# packages: arno-iptables-firewall iptables
version() { dpkg-query -W -f 'arno-iptables-firewall ${Version}' arno-iptables-firewall; }
recipe() {
	cat >/etc/arno-iptables-firewall/conf.d/50-corpus.conf <<-'F'
		EXT_IF="eth0"
		INT_IF="eth1"
		INTERNAL_NET="10.20.0.0/24 fd00:20::/64"
		NAT=1
		NAT_INTERNAL_NET="10.20.0.0/24"
		IPV6_SUPPORT=1
		OPEN_ICMP=1
		OPEN_TCP="80 443"
		OPEN_UDP="443"
		HOST_OPEN_TCP="198.51.100.0/24~22 2001:db8:5::/48~22"
		NAT_FORWARD_TCP="8443>10.20.0.5~443"
		IPV6_FORWARD=1
	F
	touch /var/log/arno
	arno-iptables-firewall start || [ -n "$(iptables-save)" ]
}
