# A Kubernetes API with Services of every kind, and kube-proxy over it.

api() { # METHOD PATH [JSON]
	curl -sfk --noproxy '*' -X "$1" -H 'Authorization: Bearer admin' -H "Content-Type: ${4:-application/json}" ${3:+-d "$3"} "https://127.0.0.1:16443$2" >/run/api.out || { echo "$1 $2 failed: $(cat /run/api.out)" >&2; curl -sk --noproxy '*' -X "$1" -H 'Authorization: Bearer admin' -H "Content-Type: ${4:-application/json}" ${3:+-d "$3"} "https://127.0.0.1:16443$2" >&2; return 1; }
}

cluster_up() {
	forwarding
	# The pods of this node, and a route to those of another.
	ip link add cni0 type bridge
	ip link set cni0 address 02:00:00:00:00:c0 up
	ip addr add 10.244.1.1/24 dev cni0
	ip addr add fd00:10:244:1::1/64 dev cni0 nodad
	ip link add pod1 type veth peer name eth0 netns lan
	ip link set pod1 master cni0 up
	ip route add 10.244.2.0/24 via 192.0.2.11
	ip -6 route add fd00:10:244:2::/64 via 2001:db8:0:1::11
	mkdir -p /run/etcd /run/kube
	echo 'admin,admin,admin,"system:masters"' >/run/kube/tokens
	openssl genrsa -out /run/kube/sa.key 2048 2>/dev/null
	etcd --name lab --data-dir /run/etcd --unsafe-no-fsync --listen-client-urls http://127.0.0.1:12379 --advertise-client-urls http://127.0.0.1:12379 \
		--listen-peer-urls http://127.0.0.1:12380 --initial-advertise-peer-urls http://127.0.0.1:12380 --initial-cluster lab=http://127.0.0.1:12380 >/run/kube/etcd.log 2>&1 &
	/run/corpus/kube-apiserver --etcd-servers=http://127.0.0.1:12379 --bind-address=127.0.0.1 --advertise-address=192.0.2.10 --secure-port=16443 \
		--cert-dir=/run/kube/certs --token-auth-file=/run/kube/tokens --authorization-mode=RBAC \
		--service-account-key-file=/run/kube/sa.key --service-account-signing-key-file=/run/kube/sa.key --service-account-issuer=https://127.0.0.1:16443 \
		--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112 --endpoint-reconciler-type=none --disable-admission-plugins=ServiceAccount >/run/kube/apiserver.log 2>&1 &
	until_true 60 api GET /readyz
	cat >/run/kube/config <<-'K'
		apiVersion: v1
		kind: Config
		clusters: [{name: lab, cluster: {server: "https://127.0.0.1:16443", insecure-skip-tls-verify: true}}]
		users: [{name: admin, user: {token: admin}}]
		contexts: [{name: lab, context: {cluster: lab, user: admin}}]
		current-context: lab
	K
	api POST /api/v1/nodes '{"metadata":{"name":"node1"},"spec":{"podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"],"podCIDR":"10.244.1.0/24"}}'
	api PATCH /api/v1/nodes/node1/status '{"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.10"},{"type":"InternalIP","address":"2001:db8:0:1::10"},{"type":"Hostname","address":"node1"}]}}' application/merge-patch+json
	until_true 10 api GET /api/v1/namespaces/default
	service web '"type":"ClusterIP"' 80 8080 local remote
	service shop '"type":"NodePort"' 80 8080 local remote 30080
	service near '"type":"NodePort","externalTrafficPolicy":"Local"' 443 8443 local - 30443
	service far '"type":"NodePort","externalTrafficPolicy":"Local"' 443 8443 - remote 30444
	service sticky '"type":"NodePort","sessionAffinity":"ClientIP"' 5000 5000 local remote 30500
	service empty '"type":"NodePort"' 9000 9000 - - 30900
	service balanced '"type":"LoadBalancer","loadBalancerSourceRanges":["198.51.100.0/24","2001:db8:5::/48"]' 443 8443 local remote 30445
	api PATCH /api/v1/namespaces/default/services/balanced/status '{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.80"},{"ip":"2001:db8:80::80"}]}}}' application/merge-patch+json
	service outside '"type":"ClusterIP","externalIPs":["203.0.113.81","2001:db8:80::81"]' 25 2525 local -
}

# service NAME SPEC PORT TARGET LOCAL REMOTE [NODEPORT]
service() {
	local name=$1 spec=$2 port=$3 target=$4 near=$5 far=$6 nodeport=${7:-} eps
	api POST /api/v1/namespaces/default/services "{\"metadata\":{\"name\":\"$name\"},\"spec\":{$spec,\"ipFamilyPolicy\":\"RequireDualStack\",\"ports\":[{\"name\":\"p\",\"protocol\":\"TCP\",\"port\":$port,\"targetPort\":$target${nodeport:+,\"nodePort\":$nodeport}}]}}"
	for f in IPv4 IPv6; do
		eps=
		[ "$near" = - ] || eps="{\"addresses\":[\"$([ $f = IPv4 ] && echo 10.244.1.10 || echo fd00:10:244:1::10)\"],\"conditions\":{\"ready\":true},\"nodeName\":\"node1\"}"
		[ "$far" = - ] || eps="${eps:+$eps,}{\"addresses\":[\"$([ $f = IPv4 ] && echo 10.244.2.10 || echo fd00:10:244:2::10)\"],\"conditions\":{\"ready\":true},\"nodeName\":\"node2\"}"
		api POST /apis/discovery.k8s.io/v1/namespaces/default/endpointslices "{\"metadata\":{\"name\":\"$name-${f,,}\",\"labels\":{\"kubernetes.io/service-name\":\"$name\"}},\"addressType\":\"$f\",\"ports\":[{\"name\":\"p\",\"protocol\":\"TCP\",\"port\":$target}],\"endpoints\":[$eps]}"
	done
}

proxy_up() { # MODE CHECK…
	local mode=$1
	shift
	/run/corpus/kube-proxy --kubeconfig=/run/kube/config --hostname-override=node1 --proxy-mode="$mode" --cluster-cidr=10.244.0.0/16,fd00:10:244::/48 \
		--conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 >/run/kube/proxy.log 2>&1 &
	until_true 30 sh -c "$* | grep -q 30445" || { tail -5 /run/kube/proxy.log >&2; return 1; }
	sleep 2
}
