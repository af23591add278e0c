# fail2ban_up ACTION ACTION2: two jails and some bans.
fail2ban_up() {
	cat >/etc/fail2ban/jail.local <<-J
		[DEFAULT]
		backend = polling
		logtarget = /run/f2b.log
		[sshd]
		enabled = true
		logpath = /run/auth.log
		banaction = $1
		[nginx-http-auth]
		enabled = true
		logpath = /run/web.log
		port = http,https
		banaction = $2
	J
	rm -f /etc/fail2ban/jail.d/*
	touch /run/auth.log /run/web.log
	mkdir -p /run/fail2ban
	fail2ban-client start
	until_true 20 fail2ban-client status nginx-http-auth
	for ip in 198.51.100.7 203.0.113.9 2001:db8:bad::7 2001:db8:bad::9; do
		fail2ban-client set sshd banip "$ip"
		fail2ban-client set nginx-http-auth banip "$ip"
	done
	sleep 2
}
