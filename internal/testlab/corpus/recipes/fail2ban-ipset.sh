# what: fail2ban with iptables-ipset-proto6 and iptables-multiport actions beside a hand-made iptables firewall
# tool: fail2ban
# packages: fail2ban iptables ipset
. /run/recipes/fail2ban.sh
version() { fail2ban-client --version | head -1; }
recipe() {
	for c in iptables ip6tables; do
		$c -P INPUT DROP
		$c -A INPUT -i lo -j ACCEPT
		$c -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
		$c -A INPUT -p tcp -m multiport --dports 22,80,443 -m conntrack --ctstate NEW -j ACCEPT
	done
	iptables -A INPUT -p icmp -j ACCEPT
	ip6tables -A INPUT -p icmpv6 -j ACCEPT
	fail2ban_up iptables-ipset-proto6 iptables-multiport
}
