# what: Calico-like node in its nftables form (hand-written): verdict maps for dispatch, marks, fib reverse path, both families
# tool: hand-written
# packages: nftables
version() { nft --version; }
recipe() {
	forwarding
	for i in 1 2; do
		ip link add cali$i type veth peer name wep$i netns lan
		ip link set cali$i up
		ip route add 10.65.0.$((i + 1)) dev cali$i
		ip -6 route add fd00:65::$((i + 1)) dev cali$i
	done
	for f in ip ip6; do
		if [ $f = ip ]; then t=ipv4_addr all=10.65.0.0/16 peers='10.20.0.5, 10.65.0.3' pod=10.65.0.2 icmp=icmp; else t=ipv6_addr all=fd00:65::/64 peers='fd00:20::5, fd00:65::3' pod=fd00:65::2 icmp=icmpv6; fi
		nft -f - <<-N
			table $f calico {
				set all-pools { type $t; flags interval; elements = { $all } }
				set front { type $t; flags interval; elements = { $peers } }
				set ports { type $t . inet_proto . inet_service; elements = { $pod . tcp . 8080 } }
				map from-wl { type ifname : verdict; elements = { "cali1" : goto fw-cali1, "cali2" : goto fw-cali2 } }
				map to-wl { type ifname : verdict; elements = { "cali1" : goto tw-cali1, "cali2" : goto tw-cali2 } }
				chain pri-kns { meta mark set meta mark or 0x10000; meta mark & 0x10000 == 0x10000 return; }
				chain pi-front {
					$f saddr @front $f daddr . meta l4proto . th dport @ports counter meta mark set meta mark or 0x10000
					meta mark & 0x10000 == 0x10000 counter return
				}
				chain fw-cali1 {
					ct state established,related counter accept
					ct state invalid counter drop
					meta mark set meta mark and 0xfffeffff
					udp dport 4789 counter drop
					counter jump pri-kns
					meta mark & 0x10000 == 0x10000 return
					counter drop
				}
				chain fw-cali2 { ct state established,related accept; counter drop; }
				chain tw-cali1 {
					ct state established,related counter accept
					ct state invalid counter drop
					meta mark set meta mark and 0xfffeffff
					meta mark set meta mark and 0xfffdffff
					meta mark & 0x20000 == 0 counter jump pi-front
					meta mark & 0x10000 == 0x10000 return
					meta mark & 0x20000 == 0 counter drop
				}
				chain tw-cali2 { ct state established,related accept; counter drop; }
				chain from-dispatch { iifname vmap @from-wl; counter drop; }
				chain to-dispatch { oifname vmap @to-wl; counter drop; }
				chain raw-PREROUTING {
					type filter hook prerouting priority raw; policy accept;
					meta mark set meta mark and 0xfff0ffff
					iifname "cali*" meta mark set meta mark or 0x40000
					meta mark & 0x40000 == 0x40000 fib saddr . mark . iif oif 0 counter drop
				}
				chain filter-INPUT {
					type filter hook input priority filter; policy accept;
					iifname "cali*" goto wl-to-host
					meta mark & 0x10000 == 0x10000 accept
					iifname "eth0" goto from-host
				}
				chain wl-to-host { meta l4proto $icmp accept; udp dport 53 accept; jump from-dispatch; counter drop; }
				chain from-host {
					ct state established,related accept
					meta l4proto $icmp accept
					tcp dport { 22, 179, 443, 10250 } meta mark set meta mark or 0x10000 accept
					counter drop
				}
				chain filter-FORWARD {
					type filter hook forward priority filter; policy accept;
					meta mark set meta mark and 0xfff1ffff
					iifname "cali*" counter jump from-dispatch
					oifname "cali*" counter jump to-dispatch
					meta mark & 0x10000 == 0x10000 counter accept
				}
				chain nat-POSTROUTING {
					type nat hook postrouting priority srcnat; policy accept;
					$f saddr @all-pools $f daddr != @all-pools counter masquerade
				}
			}
		N
	done
}
