# what: netavark, Podman's network program, with a dual-stack bridge and published ports, called as Podman does
# tool: netavark
# packages: netavark iptables aardvark-dns
version() { dpkg-query -W -f 'netavark ${Version}' netavark; }
recipe() {
	forwarding
	ip netns add box
	cat >/run/nv.json <<-'J'
		{"container_id":"c1","container_name":"web","networks":{"podman":{"interface_name":"eth0","static_ips":["10.88.0.5","fd00:88::5"]}},
		"port_mappings":[{"container_port":80,"host_ip":"","host_port":8088,"protocol":"tcp","range":1},{"container_port":53,"host_ip":"192.0.2.10","host_port":5300,"protocol":"udp","range":1},{"container_port":7000,"host_ip":"","host_port":7000,"protocol":"tcp","range":3}],
		"network_info":{"podman":{"name":"podman","id":"2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9","driver":"bridge","network_interface":"podman0",
		"subnets":[{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"},{"subnet":"fd00:88::/64","gateway":"fd00:88::1"}],"ipv6_enabled":true,"internal":false,"dns_enabled":false,"ipam_options":{"driver":"host-local"}}}}
	J
	/usr/lib/podman/netavark --config /run/nvrun setup /run/netns/box </run/nv.json
}
