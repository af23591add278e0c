# what: Docker as Debian installs it (iptables for IPv4 only) with ports published on the default bridge and a user network
# tool: docker
# packages: docker.io busybox-static iptables
. /run/recipes/docker.sh
version() { docker version -f 'docker {{.Server.Version}}'; }
recipe() {
	docker_up
	docker network create --subnet 172.30.0.0/16 app
	container -p 8088:80 -p 127.0.0.1:8081:81 --name web
	container -p 192.0.2.10:8443:443 -p 5300:53/udp --network app --name api
}
