# what: firewalld as Debian installs it: zone public, nftables, services ssh and dhcpv6-client, http added
# tool: firewalld
# packages: firewalld dbus
. /run/recipes/firewalld.sh
version() { firewall-cmd --version | sed 's/^/firewalld /'; }
recipe() {
	firewalld_up
	firewall-cmd --add-service=http
	firewall-cmd --add-port=443/udp
}
