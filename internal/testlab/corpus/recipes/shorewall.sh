# what: shorewall and shorewall6 with zones net and loc, policies, rules, DNAT and masquerade
# tool: shorewall
# packages: shorewall shorewall6 iptables
version() { echo "shorewall $(shorewall version)"; }
recipe() {
	forwarding
	for v in '' 6; do
		d=/etc/shorewall$v
		printf 'fw firewall\nnet ipv%s\nloc ipv%s\n' "${v:-4}" "${v:-4}" >$d/zones
		if [ -z "$v" ]; then o=tcpflags,nosmurfs,routefilter=0,logmartians=0; else o=tcpflags,forward=1; fi
		printf '?FORMAT 2\nnet eth0 %s\nloc eth1 tcpflags\n' "$o" >$d/interfaces
		printf 'loc net ACCEPT\n$FW net ACCEPT\n$FW loc ACCEPT\nnet all DROP $LOG\nall all REJECT\n' | sed 's/ \$LOG//' >$d/policy
	done
	cat >/etc/shorewall/rules <<-'R'
		?SECTION ALL
		?SECTION ESTABLISHED
		?SECTION RELATED
		?SECTION INVALID
		?SECTION UNTRACKED
		?SECTION NEW
		Invalid(DROP) net all tcp
		Ping(ACCEPT) net $FW
		SSH(ACCEPT) net:198.51.100.0/24 $FW
		SSH(ACCEPT) loc $FW
		Web(ACCEPT) net $FW
		DNS(ACCEPT) loc $FW
		ACCEPT net $FW tcp 9100 - - 6/min:10
		DNAT net loc:10.20.0.5:443 tcp 8443
	R
	echo 'MASQUERADE 10.20.0.0/24 eth0' >/etc/shorewall/snat
	cat >/etc/shorewall6/rules <<-'R'
		?SECTION ALL
		?SECTION ESTABLISHED
		?SECTION RELATED
		?SECTION INVALID
		?SECTION UNTRACKED
		?SECTION NEW
		Ping(ACCEPT) net $FW
		SSH(ACCEPT) net:2001:db8:5::/48 $FW
		SSH(ACCEPT) loc $FW
		Web(ACCEPT) net $FW
		DNS(ACCEPT) loc $FW
		ACCEPT net loc:fd00:20::5 tcp 443
	R
	shorewall start
	shorewall6 start
}
