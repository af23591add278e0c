# What every recipe starts from: a host with an uplink and a LAN, both families,
# and services that listen. Sourced inside the private namespaces of make.sh.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C LANG=C HOME=/root

ip link set lo up
ip netns add lan
sysctl -qw net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.accept_ra=0 net.ipv6.conf.default.accept_dad=0 \
	net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
i=1
for dev in eth0 eth1; do
	ip link add "$dev" address 02:00:00:00:00:0$i type veth peer name "p$dev" netns lan
	ip -n lan link set "p$dev" up
	ip link set "$dev" up
	i=$((i + 1))
done
ip addr add 192.0.2.10/24 dev eth0
ip addr add 2001:db8:0:1::10/64 dev eth0 nodad
ip addr add 10.20.0.1/24 dev eth1
ip addr add fd00:20::1/64 dev eth1 nodad
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8:0:1::1

# listen FAMILY PROTOCOL ADDRESS PORT: a socket that receives, for as long as the lab lives.
cat >/run/listen.py <<'P'
import signal, socket, sys
held = []
for line in sys.stdin:
    family, proto, address, port = line.split()
    s = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == "6":
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((address, int(port)))
    if proto == "tcp":
        s.listen()
    held.append(s)
print("listening", flush=True)
signal.pause()
P
services() {
	python3 -I /run/listen.py >/run/listening </run/services &
	until grep -q listening /run/listening; do
		kill -0 $! || return 1
		sleep 0.05
	done
}
cat >/run/services <<'L'
4 tcp 0.0.0.0 22
6 tcp :: 22
4 tcp 0.0.0.0 80
6 tcp :: 80
4 tcp 0.0.0.0 443
6 tcp :: 443
4 udp 0.0.0.0 443
6 udp :: 443
4 tcp 127.0.0.1 5432
6 tcp ::1 5432
4 tcp 10.20.0.1 8080
6 tcp fd00:20::1 8080
4 tcp 0.0.0.0 9100
6 tcp :: 9100
4 udp 0.0.0.0 53
6 udp :: 53
6 udp :: 546
4 udp 0.0.0.0 5353
6 udp :: 5353
L

forwarding() { sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; }

# backend nft|legacy: which of the two the iptables commands speak to.
backend() {
	for c in iptables ip6tables iptables-save ip6tables-save iptables-restore ip6tables-restore; do
		ln -sf "/usr/sbin/xtables-$1-multi" "/usr/sbin/$c"
	done
}
backend nft

# until_true SECONDS COMMAND…: waits for a daemon.
until_true() {
	local n=$(($1 * 10))
	shift
	until "$@" >/dev/null 2>&1; do
		n=$((n - 1))
		[ "$n" -gt 0 ] || { echo "waited in vain: $*" >&2; return 1; }
		sleep 0.1
	done
}
