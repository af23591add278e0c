# what: firewalld with zone drop as default, strict IPv6_rpfilter, ICMP blocks, a zone of sources, limited and dated rich rules
# tool: firewalld
# packages: firewalld dbus
. /run/recipes/firewalld.sh
version() { firewall-cmd --version | sed 's/^/firewalld /'; }
recipe() {
	sed -i -e 's/^DefaultZone=.*/DefaultZone=drop/' -e 's/^IPv6_rpfilter=.*/IPv6_rpfilter=yes/' -e 's/^LogDenied=.*/LogDenied=unicast/' /etc/firewalld/firewalld.conf
	firewalld_up
	firewall-cmd --permanent --zone=drop --add-protocol=ipv6-icmp
	firewall-cmd --permanent --zone=drop --add-rich-rule='rule service name=ssh accept limit value=10/m'
	firewall-cmd --permanent --zone=drop --add-rich-rule='rule priority=-10 family=ipv6 source address=2001:db8:bad::/48 reject type=icmp6-adm-prohibited'
	firewall-cmd --permanent --zone=drop --add-rich-rule='rule priority=10 family=ipv4 source address=192.0.2.0/24 port port=443 protocol=tcp mark set=7'
	firewall-cmd --permanent --zone=drop --add-rich-rule='rule priority=20 port port=443 protocol=tcp accept'
	firewall-cmd --permanent --zone=trusted --add-source=2001:db8:0:1::a/128
	firewall-cmd --permanent --zone=work --add-source=fd00:20::/64
	firewall-cmd --permanent --zone=work --add-source=10.20.0.0/24
	firewall-cmd --permanent --zone=work --add-icmp-block=echo-request
	firewall-cmd --permanent --zone=work --add-port=9000-9200/tcp
	firewall-cmd --permanent --zone=work --add-source-port=5000/udp
	firewall-cmd --reload
}
