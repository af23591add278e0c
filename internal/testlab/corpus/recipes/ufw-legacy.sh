# what: ufw over the legacy x_tables back-end, for IPv4 and IPv6
# tool: ufw
# packages: ufw iptables
version() { echo "$(ufw version | head -1), iptables-legacy $(iptables --version | cut -d' ' -f2)"; }
recipe() {
	backend legacy
	ufw --force enable
	ufw limit 22/tcp
	ufw allow 443/tcp
	ufw allow proto udp from fd00:20::/64 to any port 5353
	ufw insert 1 deny from 203.0.113.0/24
}
