# what: FireHOL with one policy for both families, a protected interface, a router and NAT
# tool: firehol
# packages: firehol iptables
version() { dpkg-query -W -f 'FireHOL ${Version}' firehol; }
recipe() {
	forwarding
	cat >/etc/firehol/firehol.conf <<-'F'
		version 6
		ipv4 dnat to 10.20.0.5:443 inface eth0 proto tcp dport 8443
		ipv4 masquerade eth0
		interface46 eth0 internet
		    policy drop
		    protection strong 10/sec 10
		    ipv6 server ipv6neigh accept
		    ipv6 server ipv6router accept
		    server "http https" accept
		    ipv4 server ssh accept src 198.51.100.0/24
		    ipv6 server ssh accept src 2001:db8:5::/48
		    server icmp accept
		    client all accept
		interface46 eth1 lan
		    policy reject
		    ipv6 server ipv6neigh accept
		    server "dns ssh" accept
		    client all accept
		router46 lan2internet inface eth1 outface eth0
		    route all accept
		router46 internet2lan inface eth0 outface eth1
		    ipv4 route https accept dst 10.20.0.5
		    ipv6 route https accept dst fd00:20::5
	F
	sed -i s/^START_FIREHOL=.*/START_FIREHOL=YES/ /etc/default/firehol
	firehol start
}
