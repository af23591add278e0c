# what: ufw on a router: route rules, NAT and a published port in before.rules, outgoing denied
# tool: ufw
# packages: ufw
version() { ufw version | head -1; }
recipe() {
	forwarding
	sed -i 's/^DEFAULT_OUTPUT_POLICY=.*/DEFAULT_OUTPUT_POLICY="REJECT"/' /etc/default/ufw
	cat - /etc/ufw/before.rules >/run/before.rules <<'R'
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp --dport 8443 -j DNAT --to-destination 10.20.0.5:443
-A POSTROUTING -s 10.20.0.0/24 -o eth0 -j MASQUERADE
COMMIT
R
	cat /run/before.rules >/etc/ufw/before.rules
	cat - /etc/ufw/before6.rules >/run/before6.rules <<'R'
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp --dport 8443 -j DNAT --to-destination [fd00:20::5]:443
COMMIT
R
	cat /run/before6.rules >/etc/ufw/before6.rules
	ufw --force enable
	ufw allow in on eth0 to any port 22 proto tcp
	ufw allow in on eth1
	ufw allow out 53
	ufw allow out on eth0 to any port 443 proto tcp
	ufw route allow in on eth1 out on eth0
	ufw route allow in on eth0 out on eth1 to 10.20.0.5 port 443 proto tcp
	ufw route allow in on eth0 out on eth1 to fd00:20::5 port 443 proto tcp
	ufw route deny in on eth0 out on eth1 from 2001:db8:bad::/48
	ufw limit log 9100/tcp
}
