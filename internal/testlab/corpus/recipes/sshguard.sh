# what: sshguard's nftables and ipset back-ends with attackers blocked, both families
# tool: sshguard
# packages: sshguard nftables
version() { sshguard -v 2>&1 | head -1; }
recipe() {
	fw=$(find /usr -name 'sshg-fw-nft-sets' | head -1)
	export SSHGUARD_BLACKLIST=
	printf 'block 198.51.100.7 4 32\nblock 2001:db8:bad::7 6 128\nblock 203.0.113.0 4 24\nblock 2001:db8:bad:1:: 6 64\n' >/run/fw.in
	(cat /run/fw.in; sleep 100) | "$fw" &
	sleep 2
}
