# what: the ts-* chains of Tailscale's nftables mode (hand-written) beside ufw
# tool: hand-written
# packages: nftables ufw
version() { nft --version; }
recipe() {
	forwarding
	ip tuntap add dev tailscale0 mode tun
	ip link set tailscale0 up
	ip addr add 100.64.1.1/32 dev tailscale0
	ip addr add fd7a:115c:a1e0::1/128 dev tailscale0 nodad
	ip route add 100.64.0.0/10 dev tailscale0
	ip -6 route add fd7a:115c:a1e0::/48 dev tailscale0
	ufw --force enable
	ufw allow 22/tcp
	for f in ip ip6; do
		if [ $f = ip ]; then own=100.64.1.1 range=100.64.0.0/10; else own=fd7a:115c:a1e0::1 range=fd7a:115c:a1e0::/48; fi
		nft -f - <<-N
			table $f tailscale {
				chain ts-input {
					type filter hook input priority -5; policy accept;
					iifname "lo" $f saddr $own counter accept
					iifname != "tailscale0" $f saddr $range counter drop
					iifname "tailscale0" counter accept
					udp dport 41641 counter accept
				}
				chain ts-forward {
					type filter hook forward priority -5; policy accept;
					iifname "tailscale0" counter meta mark set meta mark & 0xffff04ff ^ 0x00000400
					meta mark & 0x0000ff00 == 0x00000400 counter accept
					oifname "tailscale0" $f saddr $range counter drop
					oifname "tailscale0" counter accept
				}
				chain ts-postrouting {
					type nat hook postrouting priority 100; policy accept;
					meta mark & 0x0000ff00 == 0x00000400 counter masquerade
				}
			}
		N
	done
}
