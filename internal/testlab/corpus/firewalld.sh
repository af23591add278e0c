# firewalld with a message bus of its own.
firewalld_up() {
	mkdir -p /run/dbus
	dbus-daemon --system --fork --nopidfile
	firewalld --nofork --nopid &
	until_true 30 firewall-cmd --state
}
