# what: libvirt's virtual networks default (NAT with IPv6), routed and isolated, as libvirtd sets them up with iptables
# tool: libvirt
# packages: libvirt-daemon-system libvirt-daemon libvirt-clients dnsmasq-base iptables
version() { libvirtd --version; }
recipe() {
	forwarding
	mkdir -p /run/libvirt /var/lib/libvirt/dnsmasq
	virtlogd -d || true
	libvirtd -d
	until_true 20 virsh -c network:///system net-list || until_true 10 virsh net-list
	for n in nat route open isolated; do
		i=$(($(printf '%d' "'$n") % 50 + 100))
		fw="<forward mode='$n'$([ $n = nat ] && echo " ><nat ipv6='yes'/></forward" || echo " /")>"
		[ $n != isolated ] || fw=
		cat >/run/$n.xml <<-X
			<network><name>$n</name>$fw<bridge name='vir$n' stp='off' delay='0'/>
			<ip address='192.168.$i.1' netmask='255.255.255.0'/><ip family='ipv6' address='fd00:$i::1' prefix='64'/></network>
		X
		virsh -c network:///system net-create /run/$n.xml || virsh net-create /run/$n.xml
	done
	ip link
}
