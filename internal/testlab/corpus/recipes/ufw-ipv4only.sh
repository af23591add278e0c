# what: ufw with IPV6=no: IPv6 is closed but for loopback
# tool: ufw
# packages: ufw
version() { ufw version | head -1; }
recipe() {
	sed -i 's/^IPV6=.*/IPV6=no/' /etc/default/ufw
	ufw --force enable
	ufw allow OpenSSH || ufw allow 22/tcp
	ufw allow 80,443/tcp
	ufw allow from 198.51.100.0/24 to 192.0.2.10 port 9100 proto tcp
}
