# what: firewalld with its iptables backend (iptables-nft, ipset), gateway zones and a direct rule
# tool: firewalld
# packages: firewalld dbus iptables ipset
. /run/recipes/firewalld.sh
version() { firewall-cmd --version | sed 's/^/firewalld /'; }
recipe() {
	forwarding
	sed -i -e 's/^FirewallBackend=.*/FirewallBackend=iptables/' /etc/firewalld/firewalld.conf
	firewalld_up
	firewall-cmd --permanent --new-ipset=bad6 --type=hash:net --option=family=inet6
	firewall-cmd --permanent --ipset=bad6 --add-entry=2001:db8:bad::/48
	firewall-cmd --permanent --zone=drop --add-source=ipset:bad6
	firewall-cmd --permanent --zone=external --change-interface=eth0
	firewall-cmd --permanent --zone=internal --change-interface=eth1
	firewall-cmd --permanent --zone=external --add-service=https
	firewall-cmd --permanent --zone=external --add-forward-port=port=8443:proto=tcp:toport=443:toaddr=10.20.0.5
	firewall-cmd --permanent --zone=external --add-rich-rule='rule family=ipv6 source address=2001:db8:5::/48 port port=9100 protocol=tcp accept'
	firewall-cmd --permanent --zone=internal --add-service=dns
	firewall-cmd --permanent --direct --add-rule ipv6 filter INPUT 0 -p tcp --dport 9100 -s 2001:db8:6::/48 -j ACCEPT
	firewall-cmd --reload
}
