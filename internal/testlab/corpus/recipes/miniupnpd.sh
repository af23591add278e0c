# what: miniupnpd's nftables chains in a router's ruleset, with a port mapped by a client
# tool: miniupnpd
# packages: miniupnpd-nftables nftables
version() { dpkg-query -W -f 'miniupnpd-nftables ${Version}' miniupnpd-nftables; }
recipe() {
	forwarding
	nft -f - <<-'N'
		table inet router {
			chain input {
				type filter hook input priority 0; policy drop;
				ct state established,related accept
				iifname { "lo", "eth1" } accept
				icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, packet-too-big, echo-request } accept
			}
		}
	N
	sed -i "s,^NFT=.*,NFT=/usr/sbin/nft," /etc/miniupnpd/miniupnpd_functions.sh
	sh /etc/miniupnpd/nft_init.sh
	cat >/run/upnp.conf <<-'F'
		ext_ifname=eth0
		ext_ip=203.0.113.10
		listening_ip=eth1
		ipv6_listening_ip=fd00:20::1
		enable_pcp_pmp=yes
		enable_upnp=yes
		secure_mode=no
		ext_allow_private_ipv4=yes
		allow 1024-65535 0.0.0.0/0 1024-65535
	F
	/usr/sbin/miniupnpd -d -f /run/upnp.conf >/run/upnp.log 2>&1 &
	sleep 2
	# PCP (RFC 6887) by hand from a LAN client: map tcp/8443 → 443, and NAT-PMP for udp.
	ip -n lan addr add 10.20.0.5/24 dev peth1
	ip -n lan addr add fd00:20::5/64 dev peth1 nodad
	ip netns exec lan python3 -I - <<-'P' || cat /run/upnp.log >&2
		import socket, struct
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		s.settimeout(3)
		s.bind(("10.20.0.5", 0))
		for op, inside, outside in ((2, 4443, 8443), (1, 5353, 5353)):
		    s.sendto(struct.pack("!BBHHHI", 0, op, 0, inside, outside, 3600), ("10.20.0.1", 5351))
		    print(s.recv(64))
	P
	cat /run/upnp.log >&2
}
