# what: kube-proxy in iptables mode, dual-stack, the same Services
# tool: kube-proxy
# packages: etcd-server curl openssl iptables conntrack
# builds: kube-proxy
. /run/recipes/kubernetes.sh
version() { /run/corpus/kube-proxy --version; }
recipe() {
	cluster_up
	proxy_up iptables ip6tables-save
}
