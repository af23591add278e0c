# what: ufw with its defaults: ssh limited, web allowed, a database for one network, both families
# tool: ufw
# packages: ufw
version() { ufw version | head -1; }
recipe() {
	ufw --force enable
	# Over IPv6 this port stays closed until the next reload: the user6.rules that ufw
	# 0.36.2 brings lack what ufw6-user-limit-accept accepts by.
	ufw limit 22/tcp
	ufw allow 'WWW Full' || ufw allow 80,443/tcp
	ufw allow from 10.20.0.0/24 to any port 9100 proto tcp
	ufw allow from fd00:20::/64 to any port 9100 proto tcp
	ufw deny from 2001:db8:bad::/48
	ufw reject 25/tcp
	ufw allow in on eth1 to any port 53
}
