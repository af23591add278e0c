# what: the iptables rules that hardening roles and cloud images install (hand-written), saved and restored for both families
# tool: hand-written
# packages: iptables
version() { iptables --version; }
recipe() {
	for f in 4 6; do
		if [ $f = 4 ]; then r=iptables-restore icmp='-p icmp --icmp-type echo-request' lo=127.0.0.0/8 admin=198.51.100.0/24 rej=icmp-port-unreachable; else r=ip6tables-restore icmp='-p ipv6-icmp' lo=::1 admin=2001:db8:5::/48 rej=icmp6-port-unreachable; fi
		$r <<-R
			*filter
			:INPUT DROP [0:0]
			:FORWARD DROP [0:0]
			:OUTPUT ACCEPT [0:0]
			:LOGDROP - [0:0]
			:SSH - [0:0]
			-A INPUT -i lo -j ACCEPT
			-A INPUT -s $lo ! -i lo -j DROP
			-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			-A INPUT -m conntrack --ctstate INVALID -j DROP
			-A INPUT -p tcp ! --syn -m conntrack --ctstate NEW -j DROP
			-A INPUT -p tcp --tcp-flags ALL NONE -j DROP
			-A INPUT -p tcp --tcp-flags ALL ALL -j DROP
			-A INPUT $icmp -m limit --limit 5/sec --limit-burst 20 -j ACCEPT
			-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j SSH
			-A SSH -s $admin -j ACCEPT
			-A SSH -m recent --name ssh --set
			-A SSH -m recent --name ssh --update --seconds 60 --hitcount 6 -j LOGDROP
			-A SSH -j ACCEPT
			-A INPUT -p tcp -m multiport --dports 80,443 -m connlimit --connlimit-above 100 --connlimit-mask 32 -j REJECT --reject-with tcp-reset
			-A INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT
			-A INPUT -p udp --dport 443 -m hashlimit --hashlimit-upto 100/sec --hashlimit-burst 200 --hashlimit-mode srcip --hashlimit-name quic -j ACCEPT
			-A INPUT -j LOGDROP
			-A LOGDROP -m limit --limit 5/min -j LOG --log-prefix "drop: "
			-A LOGDROP -p udp -j REJECT --reject-with $rej
			-A LOGDROP -j DROP
			COMMIT
		R
	done
}
