# what: kube-proxy in nftables mode, dual-stack: ClusterIP, NodePort, LoadBalancer with source ranges, externalTrafficPolicy Local, session affinity, no endpoints
# tool: kube-proxy
# packages: etcd-server curl openssl nftables
# builds: kube-proxy
. /run/recipes/kubernetes.sh
version() { /run/corpus/kube-proxy --version; }
recipe() {
	cluster_up
	proxy_up nftables nft list ruleset
}
