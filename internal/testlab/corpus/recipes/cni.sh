# what: the CNI plugins bridge (ipMasq), portmap and firewall with a dual-stack pod, called as a runtime does
# tool: containernetworking-plugins
# packages: containernetworking-plugins iptables
version() { dpkg-query -W -f 'containernetworking-plugins ${Version}' containernetworking-plugins; }
recipe() {
	forwarding
	ip netns add pod
	export CNI_COMMAND=ADD CNI_CONTAINERID=pod1 CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni
	printf '{"cniVersion":"0.4.0","name":"lab","type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}],[{"subnet":"fd00:88::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}' | /usr/lib/cni/bridge >/run/prev.json
	prev=$(cat /run/prev.json)
	printf '{"cniVersion":"0.4.0","name":"lab","type":"portmap","capabilities":{"portMappings":true},"runtimeConfig":{"portMappings":[{"hostPort":8088,"containerPort":80,"protocol":"tcp"},{"hostPort":5300,"containerPort":53,"protocol":"udp","hostIP":"192.0.2.10"}]},"prevResult":%s}' "$prev" | /usr/lib/cni/portmap >/run/x
	printf '{"cniVersion":"0.4.0","name":"lab","type":"firewall","backend":"iptables","ingressPolicy":"same-bridge","prevResult":%s}' "$prev" | /usr/lib/cni/firewall >/run/x
}
