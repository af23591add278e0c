# what: firewalld on a gateway: zones external and internal, masquerade, published ports, policies, rich rules, ipsets
# tool: firewalld
# packages: firewalld dbus
. /run/recipes/firewalld.sh
version() { firewall-cmd --version | sed 's/^/firewalld /'; }
recipe() {
	forwarding
	firewalld_up
	firewall-cmd --zone=external --change-interface=eth0
	firewall-cmd --zone=internal --change-interface=eth1
	firewall-cmd --zone=external --add-service=https
	firewall-cmd --zone=external --add-forward-port=port=8443:proto=tcp:toport=443:toaddr=10.20.0.5
	firewall-cmd --zone=external --add-rich-rule='rule family=ipv6 forward-port port=8443 protocol=tcp to-port=443 to-addr=fd00:20::5'
	firewall-cmd --zone=external --add-forward-port=port=2222:proto=tcp:toport=22
	firewall-cmd --zone=external --add-rich-rule='rule family=ipv4 source address=198.51.100.0/24 service name=ssh log prefix=ssh4 level=info limit value=3/m accept'
	firewall-cmd --zone=external --add-rich-rule='rule family=ipv6 source address=2001:db8:5::/48 port port=9100 protocol=tcp accept'
	firewall-cmd --zone=external --add-rich-rule='rule family=ipv6 source NOT address=2001:db8:7::/48 port port=5353 protocol=udp reject'
	firewall-cmd --zone=internal --add-service=dns
	firewall-cmd --zone=internal --add-port=8080/tcp
	firewall-cmd --permanent --new-ipset=bad4 --type=hash:net
	firewall-cmd --permanent --new-ipset=bad6 --type=hash:net --option=family=inet6
	firewall-cmd --permanent --ipset=bad4 --add-entry=203.0.113.0/24
	firewall-cmd --permanent --ipset=bad6 --add-entry=2001:db8:bad::/48
	firewall-cmd --permanent --zone=drop --add-source=ipset:bad4
	firewall-cmd --permanent --zone=drop --add-source=ipset:bad6
	firewall-cmd --permanent --new-policy=lan-out
	firewall-cmd --permanent --policy=lan-out --add-ingress-zone=internal
	firewall-cmd --permanent --policy=lan-out --add-egress-zone=external
	firewall-cmd --permanent --policy=lan-out --set-target=ACCEPT
	firewall-cmd --permanent --new-policy=in-web
	firewall-cmd --permanent --policy=in-web --add-ingress-zone=external
	firewall-cmd --permanent --policy=in-web --add-egress-zone=internal
	firewall-cmd --permanent --policy=in-web --add-rich-rule='rule family=ipv6 destination address=fd00:20::5 service name=https accept'
	firewall-cmd --permanent --policy=in-web --set-target=REJECT
	firewall-cmd --runtime-to-permanent
	firewall-cmd --reload
}
