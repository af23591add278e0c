# what: uruk with services per interface and both families
# tool: uruk
# packages: uruk iptables
version() { dpkg-query -W -f 'uruk ${Version}' uruk; }
recipe() {
	cat >/etc/uruk/rc <<-'F'
		version=20190121
		interfaces="eth0 eth1"
		ips_eth0="a"
		ip_eth0_a=192.0.2.10
		net_eth0_a=192.0.2.0/24
		ip6_eth0_a=2001:db8:0:1::10
		net6_eth0_a=2001:db8:0:1::/64
		ips_eth1="a"
		ip_eth1_a=10.20.0.1
		net_eth1_a=10.20.0.0/24
		ip6_eth1_a=fd00:20::1
		net6_eth1_a=fd00:20::/64
		services_eth0_a_tcp="ssh http https"
		sources_eth0_a_tcp_ssh="198.51.100.0/24"
		sources6_eth0_a_tcp_ssh="2001:db8:5::/48"
		sources_eth0_a_tcp_http="0.0.0.0/0"
		sources6_eth0_a_tcp_http="::/0"
		sources_eth0_a_tcp_https="0.0.0.0/0"
		sources6_eth0_a_tcp_https="::/0"
		services_eth1_a_tcp="ssh"
		sources_eth1_a_tcp_ssh="10.20.0.0/24"
		sources6_eth1_a_tcp_ssh="fd00:20::/64"
		services_eth1_a_udp="domain"
		sources_eth1_a_udp_domain="10.20.0.0/24"
		sources6_eth1_a_udp_domain="fd00:20::/64"
		allow_unspecified=
	F
	mkdir -p /var/lib/uruk /etc/uruk
	uruk || urukctl start || /usr/sbin/uruk
}
