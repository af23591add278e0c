# dockerd of its own, with a network of both families and containers that publish ports.
docker_up() { # DAEMON OPTIONS…
	forwarding
	mkdir -p /run/docker-image /run/img
	dockerd --data-root /run/docker-data --exec-root /run/docker-exec --storage-driver vfs --fixed-cidr-v6 fd00:d0c::/64 --ipv6 --experimental "$@" >/run/dockerd.log 2>&1 &
	until_true 40 docker info || { tail -5 /run/dockerd.log >&2; return 1; }
	# An image of one static program that waits.
	cp /bin/busybox /run/img/busybox
	tar -C /run/img -c busybox | docker import - wait:1 >/dev/null
}
container() { docker run -d --oom-score-adj 500 --security-opt seccomp=unconfined "$@" wait:1 /busybox sleep 1000; }
