package oracle

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// madePriority marks the packets that emit makes for the recorder (0:4d): answers of the
// kernel pass the same hooks.
const madePriority = 0x4d

// maxMade is how many packets of a family can be told apart by identification.
const maxMade = 65000

// emit sends packets from the host itself by raw sockets, and marks those that
// came to the recorder. It runs in the namespace. The hooks run in the call, so that
// nothing is lost.
func (l *Lab) emit(shapes []Shape, probes []Probe, ids []int, accepted []bool) error {
	if len(ids) == 0 {
		return nil
	}
	if len(probes) > maxMade {
		return fmt.Errorf("%d packets cannot be told apart", len(probes))
	}
	fds := map[bool]int{}
	for _, v6 := range []bool{false, true} {
		domain, level, opt := unix.AF_INET, unix.IPPROTO_IP, unix.IP_HDRINCL
		if v6 {
			domain, level, opt = unix.AF_INET6, unix.IPPROTO_IPV6, ipv6HdrIncl
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("open raw socket: %w", err)
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.SetsockoptInt(fd, level, opt, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, madePriority)); err != nil {
			return fmt.Errorf("prepare raw socket: %w", err)
		}
		fds[v6] = fd
	}
	for _, id := range ids {
		s := &shapes[probes[id].Shape]
		var to unix.Sockaddr
		if s.IPv6 {
			to = &unix.SockaddrInet6{Addr: s.Dst.As16()}
		} else {
			to = &unix.SockaddrInet4{Addr: s.Dst.As4()}
		}
		err := unix.Sendto(fds[s.IPv6], s.packet(probes[id].Src, uint32(id)), 0, to)
		// A packet that a rule drops is EPERM, one that is rejected may be another error.
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EHOSTUNREACH) {
			return fmt.Errorf("send from the host: %w", err)
		}
	}
	for _, set := range []string{"made4", "made6"} {
		out, err := exec.Command(l.nft, "-nn", "list", "set", "inet", recorderTable, set).CombinedOutput()
		if err != nil {
			return fmt.Errorf("read recorder: %w\n%s", err, out)
		}
		_, elements, _ := strings.Cut(string(out), "elements = {")
		for _, f := range strings.FieldsFunc(elements, func(r rune) bool { return strings.ContainsRune("{}, \t\n", r) }) {
			v, err := strconv.ParseUint(f, 0, 32)
			if err != nil || v == 0 || int(v) > len(accepted) {
				continue
			}
			id := int(v) - 1
			if s := &shapes[probes[id].Shape]; s.Output && s.IPv6 == (set == "made6") {
				accepted[id] = true
			}
		}
	}
	return nil
}

// ipv6HdrIncl is IPV6_HDRINCL (include/uapi/linux/in6.h).
const ipv6HdrIncl = 36
