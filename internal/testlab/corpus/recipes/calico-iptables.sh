# what: Calico-like node (hand-written after its public documentation): cali-* chains, marks, ipsets and workload dispatch over iptables-nft, both families
# tool: hand-written
# packages: iptables ipset
version() { iptables --version; }
recipe() {
	forwarding
	for i in 1 2; do
		ip link add cali$i type veth peer name wep$i netns lan
		ip link set cali$i up
		ip route add 10.65.0.$((i + 1)) dev cali$i
		ip -6 route add fd00:65::$((i + 1)) dev cali$i
	done
	for f in 4 6; do
		if [ $f = 4 ]; then fam=inet r=iptables-restore set=cali40 all=10.65.0.0/16 pod1=10.65.0.2 pod2=10.65.0.3 peers='10.20.0.5 10.65.0.3' icmp='-p icmp' svc=10.96.0.1; else fam=inet6 r=ip6tables-restore set=cali60 all=fd00:65::/64 pod1=fd00:65::2 pod2=fd00:65::3 peers='fd00:20::5 fd00:65::3' icmp='-p ipv6-icmp' svc=fd00:10:96::1; fi
		ipset create ${set}all-ipam-pools hash:net family $fam
		ipset add ${set}all-ipam-pools $all
		ipset create ${set}masq-ipam-pools hash:net family $fam
		ipset add ${set}masq-ipam-pools $all
		ipset create ${set}s:front hash:net family $fam
		for p in $peers; do ipset add ${set}s:front "$p"; done
		ipset create ${set}ports hash:ip,port family $fam
		ipset add ${set}ports $pod1,tcp:8080
		$r <<-R
			*raw
			:PREROUTING ACCEPT
			:cali-PREROUTING -
			:cali-rpf-skip -
			-A PREROUTING -j cali-PREROUTING
			-A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000
			-A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000
			-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -j cali-rpf-skip
			-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
			-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
			COMMIT
			*nat
			:PREROUTING ACCEPT
			:POSTROUTING ACCEPT
			:cali-nat-outgoing -
			:cali-POSTROUTING -
			-A POSTROUTING -j cali-POSTROUTING
			-A cali-POSTROUTING -j cali-nat-outgoing
			-A cali-nat-outgoing -m set --match-set ${set}masq-ipam-pools src -m set ! --match-set ${set}all-ipam-pools dst -j MASQUERADE
			COMMIT
			*filter
			:INPUT ACCEPT
			:FORWARD ACCEPT
			:OUTPUT ACCEPT
			:cali-INPUT -
			:cali-FORWARD -
			:cali-from-wl-dispatch -
			:cali-to-wl-dispatch -
			:cali-from-host-endpoint -
			:cali-wl-to-host -
			:cali-tw-cali1 -
			:cali-fw-cali1 -
			:cali-tw-cali2 -
			:cali-fw-cali2 -
			:cali-pi-front -
			:cali-pro-kns -
			:cali-pri-kns -
			-A INPUT -j cali-INPUT
			-A FORWARD -j cali-FORWARD
			-A FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT
			-A FORWARD -j MARK --set-xmark 0x10000/0x10000
			-A cali-INPUT -i cali+ -g cali-wl-to-host
			-A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
			-A cali-INPUT -j MARK --set-xmark 0x0/0xf0000
			-A cali-INPUT -j cali-from-host-endpoint
			-A cali-from-host-endpoint -i eth0 -p tcp -m multiport --dports 22,179,443,10250 -j MARK --set-xmark 0x10000/0x10000
			-A cali-from-host-endpoint -m mark --mark 0x10000/0x10000 -j RETURN
			-A cali-from-host-endpoint -i eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			-A cali-from-host-endpoint -i eth0 $icmp -j ACCEPT
			-A cali-from-host-endpoint -i eth0 -j DROP
			-A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
			-A cali-wl-to-host $icmp -j ACCEPT
			-A cali-wl-to-host -p udp --dport 53 -j ACCEPT
			-A cali-wl-to-host -j cali-from-wl-dispatch
			-A cali-wl-to-host -m comment --comment "Configured DefaultEndpointToHostAction" -j DROP
			-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
			-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
			-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
			-A cali-from-wl-dispatch -i cali1 -g cali-fw-cali1
			-A cali-from-wl-dispatch -i cali2 -g cali-fw-cali2
			-A cali-from-wl-dispatch -j DROP
			-A cali-to-wl-dispatch -o cali1 -g cali-tw-cali1
			-A cali-to-wl-dispatch -o cali2 -g cali-tw-cali2
			-A cali-to-wl-dispatch -j DROP
			-A cali-tw-cali1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			-A cali-tw-cali1 -m conntrack --ctstate INVALID -j DROP
			-A cali-tw-cali1 -j MARK --set-xmark 0x0/0x10000
			-A cali-tw-cali1 -j MARK --set-xmark 0x0/0x20000
			-A cali-tw-cali1 -m mark --mark 0x0/0x20000 -j cali-pi-front
			-A cali-tw-cali1 -m mark --mark 0x10000/0x10000 -j RETURN
			-A cali-tw-cali1 -m mark --mark 0x0/0x20000 -j DROP
			-A cali-tw-cali1 -j cali-pri-kns
			-A cali-tw-cali1 -m mark --mark 0x10000/0x10000 -j RETURN
			-A cali-tw-cali1 -j DROP
			-A cali-pi-front -m set --match-set ${set}s:front src -m set --match-set ${set}ports dst,dst -j MARK --set-xmark 0x10000/0x10000
			-A cali-pi-front -m mark --mark 0x10000/0x10000 -j RETURN
			-A cali-pri-kns -j MARK --set-xmark 0x10000/0x10000
			-A cali-pri-kns -m mark --mark 0x10000/0x10000 -j RETURN
			-A cali-fw-cali1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			-A cali-fw-cali1 -m conntrack --ctstate INVALID -j DROP
			-A cali-fw-cali1 -j MARK --set-xmark 0x0/0x10000
			-A cali-fw-cali1 -p udp -m multiport --dports 4789 -j DROP
			-A cali-fw-cali1 -j cali-pro-kns
			-A cali-fw-cali1 -m mark --mark 0x10000/0x10000 -j RETURN
			-A cali-fw-cali1 -j DROP
			-A cali-pro-kns -j MARK --set-xmark 0x10000/0x10000
			-A cali-pro-kns -m mark --mark 0x10000/0x10000 -j RETURN
			-A cali-tw-cali2 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			-A cali-tw-cali2 -j DROP
			-A cali-fw-cali2 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			-A cali-fw-cali2 -d $svc -j ACCEPT
			-A cali-fw-cali2 -j DROP
			COMMIT
		R
	done
}
