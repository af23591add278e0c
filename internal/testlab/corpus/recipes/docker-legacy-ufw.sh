# what: Docker over ufw, both with the legacy x_tables back-end: what Docker publishes passes ufw
# tool: docker
# packages: docker.io busybox-static iptables ufw
. /run/recipes/docker.sh
version() { docker version -f 'docker {{.Server.Version}}'; }
recipe() {
	backend legacy
	ufw --force enable
	ufw allow 22/tcp
	docker_up
	container -p 8088:80 --name web
	container -p 127.0.0.1:9000:90 --name admin
}
