package proc

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// maxPath bounds a path kept from a process, in bytes.
const maxPath = 4096

// splitCgroup reads /proc/PID/cgroup ("hierarchy:controllers:path" a line,
// cgroups(7)) and returns the path, the systemd unit and the container id.
//
// The unified hierarchy counts where processes are placed in it; on a host of
// version 1 it is mounted and empty, and systemd's named hierarchy counts. Who
// may create cgroups below a delegated one chooses their names: unit and
// container are labels, the whole path is the identity.
func splitCgroup(raw []byte) (path, unit, container string) {
	rank := 0
	for line := range bytes.Lines(raw) {
		f := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(":"), 3)
		if len(f) != 3 || len(f[2]) == 0 || len(f[2]) > maxPath || !utf8.Valid(f[2]) {
			continue
		}
		r := 1
		switch {
		case string(f[2]) == "/":
		case string(f[0]) == "0" && len(f[1]) == 0:
			r = 4
		case string(f[1]) == "name=systemd":
			r = 3
		default:
			r = 2
		}
		if r > rank {
			rank, path = r, string(f[2])
		}
	}
	for seg := range strings.SplitSeq(path, "/") {
		if strings.HasSuffix(seg, ".service") || strings.HasSuffix(seg, ".scope") || strings.HasSuffix(seg, ".socket") {
			unit = seg
		}
		if id := containerID(seg); id != "" {
			container = id
		}
	}
	return path, unit, container
}

// containerID returns the 64 hexadecimal digits in one segment of a cgroup path:
//
//	docker-ID.scope, cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope   (systemd)
//	ID                                                       (cgroupfs: /docker/ID, /kubepods/…/podUID/ID)
//	kubepods-….slice:cri-containerd:ID                       (containerd without its systemd driver)
//
// A conmon scope holds the container's monitor, which lives outside.
func containerID(seg string) string {
	if strings.Contains(seg, "-conmon-") {
		return ""
	}
	seg = strings.TrimSuffix(seg, ".scope")
	if i := strings.LastIndexAny(seg, "-:"); i >= 0 {
		seg = seg[i+1:]
	}
	if len(seg) != 64 {
		return ""
	}
	for _, c := range []byte(seg) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return seg
}
