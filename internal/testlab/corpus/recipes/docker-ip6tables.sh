# what: Docker with ip6tables and IPv6 networks, ports published for both families, no userland proxy, one internal network
# tool: docker
# packages: docker.io busybox-static iptables
. /run/recipes/docker.sh
version() { docker version -f 'docker {{.Server.Version}}'; }
recipe() {
	docker_up --ip6tables --userland-proxy=false
	docker network create --ipv6 --subnet 172.30.0.0/16 --subnet fd00:d0c:30::/64 app
	docker network create --internal --subnet 172.31.0.0/16 closed
	container -p 8088:80 --name web
	container -p 8443:443 -p 5300:53/udp -p 9000-9002:9000-9002 --network app --name api
	container -p '[2001:db8:0:1::10]:2525:25' --network app --name mail
	container --network closed --name db
	iptables -I DOCKER-USER -i eth0 -p tcp --dport 443 ! -s 198.51.100.0/24 -j DROP
}
