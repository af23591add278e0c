# what: fail2ban with its nftables actions (multiport and allports) and banned addresses of both families
# tool: fail2ban
# packages: fail2ban nftables
. /run/recipes/fail2ban.sh
version() { fail2ban-client --version | head -1; }
recipe() {
	fail2ban_up nftables-multiport nftables-allports
}
