package feature

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// failed turns an error of a probe into an answer: refused is not absent.
func failed(err error, absent ...error) (Answer, string) {
	for _, a := range absent {
		if errors.Is(err, a) {
			return No, ""
		}
	}
	return Untested, err.Error()
}

func dump(family int, req netlink.Message) ([]netlink.Message, error) {
	c, err := netlink.Dial(family, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer c.Close()
	req.Header.Flags |= netlink.Request | netlink.Dump
	return c.Execute(req)
}

// diag dumps sockets of a family and protocol by SOCK_DIAG_BY_FAMILY (linux/inet_diag.h,
// struct inet_diag_req_v2: family, protocol, ext, pad, states, id).
func diag(family, proto byte, size int) ([]netlink.Message, error) {
	b := make([]byte, size)
	b[0], b[1] = family, proto
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0))
	return dump(unix.NETLINK_SOCK_DIAG, netlink.Message{Header: netlink.Header{Type: 20}, Data: b})
}

const inetDiagReqSize = 56

func (p *Prober) inetDiag() (Answer, string) {
	if !p.present("inet_diag") || !p.present("tcp_diag") {
		return Untested, "tcp_diag is not loaded, and asking would load it"
	}
	if _, err := diag(unix.AF_INET6, unix.IPPROTO_TCP, inetDiagReqSize); err != nil {
		return failed(err, unix.ENOENT, unix.EPROTONOSUPPORT)
	}
	return Yes, ""
}

// skV6Only looks for INET_DIAG_SKV6ONLY (11) on any IPv6 socket; the kernel sends
// it with every one that has IPV6_V6ONLY semantics.
func (p *Prober) skV6Only() (Answer, string) {
	const skV6Only, msgSize = 11, 72
	seen := false
	for proto, module := range map[byte]string{unix.IPPROTO_TCP: "tcp_diag", unix.IPPROTO_UDP: "udp_diag"} {
		if !p.present("inet_diag") || !p.present(module) {
			continue
		}
		ms, err := diag(unix.AF_INET6, proto, inetDiagReqSize)
		if err != nil {
			continue
		}
		for _, m := range ms {
			if len(m.Data) < msgSize || m.Data[0] != unix.AF_INET6 {
				continue
			}
			seen = true
			if has(m.Data[msgSize:], skV6Only) != nil {
				return Yes, ""
			}
		}
	}
	if seen {
		return No, ""
	}
	return Untested, "there is no IPv6 socket to look at"
}

// subsystemAnswers asks a diag family that is known to be loaded.
func subsystemAnswers(name string) (Answer, string) {
	var err error
	switch name {
	case "udp_diag":
		_, err = diag(unix.AF_INET6, unix.IPPROTO_UDP, inetDiagReqSize)
	case "raw_diag":
		_, err = diag(unix.AF_INET6, unix.IPPROTO_RAW, inetDiagReqSize)
	case "sctp_diag":
		_, err = diag(unix.AF_INET6, unix.IPPROTO_SCTP, inetDiagReqSize)
	case "packet_diag": // struct packet_diag_req: family, protocol, pad, ino, show, cookie
		_, err = diag(unix.AF_PACKET, 0, 20)
	case "nf_tables": // NFT_MSG_GETGEN, struct nfgenmsg
		var c *netlink.Conn
		if c, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err == nil {
			defer c.Close()
			_, err = c.Execute(netlink.Message{Header: netlink.Header{Type: 10<<8 | 16, Flags: netlink.Request}, Data: make([]byte, 4)})
		}
	}
	if err != nil {
		return failed(err, unix.ENOENT, unix.EPROTONOSUPPORT, unix.EINVAL)
	}
	return Yes, ""
}

// has returns the payload of an attribute; nil when it is not there.
func has(b []byte, typ uint16) []byte {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil
	}
	for ad.Next() {
		if ad.Type()&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == typ {
			return append([]byte{}, ad.Bytes()...)
		}
	}
	return nil
}

func (p *Prober) inet6Conf() (Answer, string) {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return Untested, "this network namespace has no IPv6"
	}
	ms, err := dump(unix.NETLINK_ROUTE, netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK}, Data: make([]byte, unix.SizeofIfInfomsg)})
	if err != nil {
		return failed(err)
	}
	for _, m := range ms {
		if len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		inet6 := has(has(m.Data[unix.SizeofIfInfomsg:], unix.IFLA_AF_SPEC), unix.AF_INET6)
		if conf := has(inet6, 2); len(conf) > 0 { // IFLA_INET6_CONF
			return Yes, fmt.Sprintf("%d settings", len(conf)/4)
		}
	}
	return No, ""
}

// ifaProto looks at addresses that the kernel itself made: from 5.18 on it says so.
func (p *Prober) ifaProto() (Answer, string) {
	const ifaProto = 11
	ms, err := dump(unix.NETLINK_ROUTE, netlink.Message{Header: netlink.Header{Type: unix.RTM_GETADDR}, Data: []byte{unix.AF_INET6, 0, 0, 0, 0, 0, 0, 0}})
	if err != nil {
		return failed(err)
	}
	own := false
	for _, m := range ms {
		if len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		attrs := m.Data[unix.SizeofIfAddrmsg:]
		if has(attrs, ifaProto) != nil {
			return Yes, ""
		}
		if a := has(attrs, unix.IFA_ADDRESS); len(a) == 16 && [16]byte(a) == [16]byte{15: 1} {
			own = true
		}
	}
	if own {
		return No, ""
	}
	return Untested, "there is no address that the kernel made itself"
}

func (p *Prober) tableFulls() (Answer, string) {
	const ndtaStats, ndtaName, upTo = 7, 1, 11 * 8 // NDTA_STATS, NDTA_NAME; eleven counters, table_fulls last
	ms, err := dump(unix.NETLINK_ROUTE, netlink.Message{Header: netlink.Header{Type: unix.RTM_GETNEIGHTBL}, Data: []byte{unix.AF_INET6, 0, 0, 0}})
	if err != nil {
		return failed(err)
	}
	for _, m := range ms {
		if len(m.Data) < 4 || !bytes.HasPrefix(has(m.Data[4:], ndtaName), []byte("ndisc_cache")) {
			continue
		}
		if s := has(m.Data[4:], ndtaStats); len(s) > 0 {
			if len(s) >= upTo {
				return Yes, ""
			}
			return No, ""
		}
	}
	return Untested, "the kernel has no IPv6 neighbour table"
}

func (p *Prober) strict() (Answer, string) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	if err := c.SetOption(netlink.GetStrictCheck, true); err != nil {
		return failed(err, unix.ENOPROTOOPT)
	}
	return Yes, ""
}

func (p *Prober) siocgskns() (Answer, string) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(s)
	fd, err := unix.IoctlRetInt(s, unix.SIOCGSKNS)
	if err != nil {
		return failed(err, unix.ENOTTY, unix.EINVAL)
	}
	unix.Close(fd)
	return Yes, ""
}

func (p *Prober) nsOwner() (Answer, string) {
	const nsGetUserNS = 0xb701
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return failed(err)
	}
	defer f.Close()
	fd, err := unix.IoctlRetInt(int(f.Fd()), nsGetUserNS)
	if err != nil {
		return failed(err, unix.ENOTTY)
	}
	unix.Close(fd)
	return Yes, ""
}

func (p *Prober) pidfdGetfd() (Answer, string) {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return failed(err, unix.ENOSYS)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, pidfd, 0)
	if err != nil {
		return failed(err, unix.ENOSYS)
	}
	unix.Close(fd)
	return Yes, ""
}

func (p *Prober) openat2() (Answer, string) {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return failed(err, unix.ENOSYS)
	}
	unix.Close(fd)
	return Yes, ""
}

func (p *Prober) landlock() (Answer, string) {
	const createRulesetVersion = 1
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, createRulesetVersion)
	if e != 0 {
		return failed(e, unix.ENOSYS, unix.EOPNOTSUPP)
	}
	return Yes, fmt.Sprintf("ABI %d", v)
}

func sysctlKey(key string) func(*Prober) (Answer, string) {
	return func(*Prober) (Answer, string) {
		if _, err := os.Stat("/proc/sys/net/ipv6/conf/all"); err != nil {
			return Untested, "this network namespace has no IPv6"
		}
		if _, err := os.Stat("/proc/sys/net/ipv6/conf/all/" + key); errors.Is(err, os.ErrNotExist) {
			return No, ""
		} else if err != nil {
			return failed(err)
		}
		return Yes, ""
	}
}

func bpf(cmd uintptr, attr []byte) error {
	if _, _, e := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr))); e != 0 {
		return e
	}
	return nil
}

func (p *Prober) bpfLinks() (Answer, string) {
	switch err := bpf(unix.BPF_LINK_GET_NEXT_ID, make([]byte, 12)); {
	case err == nil, errors.Is(err, unix.ENOENT):
		return Yes, ""
	default:
		return failed(err, unix.ENOSYS, unix.EINVAL)
	}
}

// tcx asks for the programs on the loopback interface's ingress.
func (p *Prober) tcx() (Answer, string) {
	const tcxIngress, loopback = 46, 1
	attr := make([]byte, 64) // bpf_attr.query: target_ifindex, attach_type, …
	binary.NativeEndian.PutUint32(attr[0:], loopback)
	binary.NativeEndian.PutUint32(attr[4:], tcxIngress)
	switch err := bpf(unix.BPF_PROG_QUERY, attr); {
	case err == nil, errors.Is(err, unix.ENOENT):
		return Yes, ""
	default:
		return failed(err, unix.ENOSYS, unix.EINVAL)
	}
}

// bpfNetfilter searches the kernel's own type information, so that no program has to be loaded.
func (p *Prober) bpfNetfilter() (Answer, string) {
	f, err := os.Open("/sys/kernel/btf/vmlinux")
	if err != nil {
		return Untested, "the kernel publishes no type information"
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<20))
	if err != nil {
		return failed(err)
	}
	if bytes.Contains(b, []byte("\x00bpf_nf_link\x00")) {
		return Yes, ""
	}
	return No, ""
}
