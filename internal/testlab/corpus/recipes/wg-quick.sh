# what: wg-quick's own rules for a full tunnel (nft table wg-quick-wg0) beside a small nftables firewall
# tool: wg-quick
# packages: wireguard-tools nftables
# builds: wireguard-go
version() { wg --version | cut -d' ' -f1,2; }
recipe() {
	nft -f - <<-'N'
		table inet filter {
			chain input {
				type filter hook input priority filter; policy drop;
				ct state vmap { established : accept, related : accept, invalid : drop }
				iif lo accept
				udp dport 51820 accept
				iifname "wg0" tcp dport { 22, 9100 } accept
				meta l4proto { icmp, ipv6-icmp } accept
			}
		}
	N
	mkdir -p /etc/wireguard
	cat >/etc/wireguard/wg0.conf <<-F
		[Interface]
		PrivateKey = $(wg genkey)
		Address = 10.99.0.2/32, fd00:99::2/128
		ListenPort = 51820
		[Peer]
		PublicKey = $(wg genkey | wg pubkey)
		AllowedIPs = 0.0.0.0/0, ::/0
		Endpoint = 192.0.2.99:51820
	F
	ln -sf /run/corpus/wireguard-go /usr/local/bin/wireguard-go
	mkdir -p /dev/net
	WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go wg-quick up wg0
}
