package probe

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
	model "github.com/sixfence/sixfence/internal/model/probe"
)

// Kinds of ICMPv6 that a soak hears.
const (
	mldQuery   = 130
	mldReport  = 131
	mldReport2 = 143
	ndSolicit  = 135
	ndAdvert   = 136
)

const (
	sizeEthernet = 14
	sizeARP      = 28
)

// soakFilter keeps ARP, and ICMPv6 as neighbour discovery and MLD carry it: bare, or behind
// a hop-by-hop header.
func soakFilter() []unix.SockFilter {
	const (
		ldH = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		ldB = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		jeq = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jge = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret = unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		{Code: ldH, K: 12},
		{Code: jeq, K: unix.ETH_P_ARP, Jt: 9},
		{Code: jeq, K: unix.ETH_P_IPV6, Jf: 9},
		{Code: ldB, K: sizeEthernet + 6},
		{Code: jeq, K: protoICMPv6, Jf: 3},
		{Code: ldB, K: sizeEthernet + sizeIPv6},
		{Code: jge, K: ndSolicit, Jf: 5},
		{Code: jge, K: ndAdvert + 1, Jt: 4, Jf: 3},
		{Code: jeq, K: 0, Jf: 3},
		{Code: ldB, K: sizeEthernet + sizeIPv6},
		{Code: jeq, K: protoICMPv6, Jf: 1},
		{Code: ret, K: 2048},
		{Code: ret, K: 0},
	}
}

func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// hear takes a frame. It says whether it is an answer of the address to somebody here, and
// whether the question went to his MAC address: an answer to the group must bring the MAC
// address along (RFC 4861 §7.2.4), one to a host that has it need not.
func (s *Soaker) hear(b []byte, ours bool) (direct, answer bool) {
	if len(b) < sizeEthernet+sizeARP {
		return false, false
	}
	if binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_ARP {
		return s.hearARP(b, ours)
	}
	if len(b) < sizeEthernet+sizeIPv6+sizeICMP || s.addr.Is4() {
		return false, false
	}
	ip := b[sizeEthernet:]
	n := int(binary.BigEndian.Uint16(ip[4:]))
	body := ip[sizeIPv6:]
	if n < len(body) {
		body = body[:n]
	}
	if ip[6] == 0 {
		s.hearMLD(b, ip, body, ours)
		return false, false
	}
	if len(body) < 24 || ip[7] != 255 || body[1] != 0 || netip.AddrFrom16([16]byte(body[8:24])) != s.addr {
		return false, false
	}
	switch {
	case body[0] == ndSolicit && ours: // the kernel of this host asks as well
		if b[0]&1 == 0 {
			s.direct = time.Now()
		}
	case body[0] == ndAdvert && !ours && body[4]&ndisc.NASolicited != 0:
		mac, with := option(body[24:], 2)
		direct = !with || !s.direct.IsZero() && time.Since(s.direct) < soakQuiet
		if !with {
			mac = ndisc.MAC(b[6:12])
		}
		s.his, s.direct = mac, time.Time{}
		return direct, true
	}
	return false, false
}

// option finds a link-layer address option.
func option(b []byte, typ byte) (ndisc.MAC, bool) {
	for len(b) >= 8 && b[1] > 0 && int(b[1])*8 <= len(b) {
		if b[0] == typ && b[1] == 1 {
			return ndisc.MAC(b[2:8]), true
		}
		b = b[int(b[1])*8:]
	}
	return ndisc.MAC{}, false
}

// hearMLD takes a query, or a report of the target.
func (s *Soaker) hearMLD(frame, ip, body []byte, ours bool) {
	if len(body) < 8 || body[0] != protoICMPv6 {
		return
	}
	skip := 8 * (1 + int(body[1]))
	if len(body) < skip+sizeICMP {
		return
	}
	m := body[skip:]
	src := netip.AddrFrom16([16]byte(ip[8:24]))
	switch m[0] {
	case mldQuery:
		// One that is not of this link, or for one group, expires nothing (RFC 3810 §5.1).
		if len(m) < 24 || ip[7] != 1 || !src.IsLinkLocalUnicast() || netip.AddrFrom16([16]byte(m[8:24])) != netip.IPv6Unspecified() {
			return
		}
		s.queried(src, m, time.Now())
	case mldReport:
		if !ours && len(m) >= 24 && ndisc.MAC(frame[6:12]) == s.his && netip.AddrFrom16([16]byte(m[8:24])) == solicitedNode(s.addr) {
			s.set(func(f *model.Soak) { f.Reports++ })
		}
	case mldReport2:
		if ours || ndisc.MAC(frame[6:12]) != s.his {
			return
		}
		for r := m[8:]; len(r) >= 20; {
			// What it leaves is a record, too: INCLUDE of nothing.
			left := (r[0] == 1 || r[0] == 3) && r[2] == 0 && r[3] == 0
			if netip.AddrFrom16([16]byte(r[4:20])) == solicitedNode(s.addr) && !left {
				s.set(func(f *model.Soak) { f.Reports++ })
			}
			n := 20 + 16*int(binary.BigEndian.Uint16(r[2:])) + 4*int(r[1])
			r = r[min(n, len(r)):]
		}
	}
}

// queried takes a general query, and the numbers in it (RFC 3810 §5.1, RFC 2710 §3).
func (s *Soaker) queried(src netip.Addr, m []byte, now time.Time) {
	code := binary.BigEndian.Uint16(m[4:])
	s.respond = time.Duration(code) * time.Millisecond
	if !s.last.IsZero() {
		s.longest = max(s.longest, now.Sub(s.last))
	}
	s.last = now
	version := 1
	n := 0
	s.set(func(f *model.Soak) {
		f.Queries++
		n = f.Queries
	})
	if len(m) >= 28 {
		version = 2
		if code >= 1<<15 {
			s.respond = time.Duration(uint32(code&0xfff|0x1000)<<(code>>12&7+3)) * time.Millisecond
		}
		s.robust, s.query = defaultRobustness, defaultQuery
		if r := int(m[24] & 7); r > 0 {
			s.robust = r
		}
		if q := uint32(m[25]); q >= 128 {
			s.query = time.Duration((q&0xf|0x10)<<(q>>4&7+3)) * time.Second
		} else if q > 0 {
			s.query = time.Duration(q) * time.Second
		}
	} else if n > 3 {
		// The old form does not say how often it comes. The first ones come faster.
		s.query = s.longest.Round(time.Second / 10)
	}
	// RFC 3810 §9.4: how long a group lives without a report.
	lives := time.Duration(s.robust)*s.query + s.respond
	s.set(func(f *model.Soak) { f.Querier, f.QuerierVersion, f.Interval = src, version, lives.Seconds() })
}

// arp asks as neighbours of IPv4 do (RFC 826).
func (s *Soaker) arp(group bool, to ndisc.MAC) []byte {
	if group {
		to = ndisc.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	b := append(append(make([]byte, 0, 60), to[:]...), s.mac[:]...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	b = append(b, s.mac[:]...)
	b = append(b, s.src.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = append(b, s.addr.AsSlice()...)
	return append(b, make([]byte, 60-len(b))...)
}

func (s *Soaker) hearARP(b []byte, ours bool) (direct, answer bool) {
	a := b[sizeEthernet:]
	if !s.addr.Is4() || binary.BigEndian.Uint16(a[2:]) != unix.ETH_P_IP || a[4] != 6 || a[5] != 4 {
		return false, false
	}
	from, to := netip.AddrFrom4([4]byte(a[14:18])), netip.AddrFrom4([4]byte(a[24:28]))
	switch op := binary.BigEndian.Uint16(a[6:]); {
	case op == 1 && ours && to == s.addr && b[0]&1 == 0:
		s.direct = time.Now()
	case op == 2 && !ours && from == s.addr:
		direct = !s.direct.IsZero() && time.Since(s.direct) < soakQuiet
		s.his, s.direct = ndisc.MAC(a[8:14]), time.Time{}
		return direct, true
	}
	return false, false
}

// hardware is the link-layer address that the kernel has of a neighbour.
func hardware(a netip.Addr, index int) (ndisc.MAC, bool) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return ndisc.MAC{}, false
	}
	defer func() { _ = c.Close() }()
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.NDA_DST, a.AsSlice())
	attrs, err := ae.Encode()
	if err != nil {
		return ndisc.MAC{}, false
	}
	head := make([]byte, unix.SizeofNdMsg)
	head[0] = byte(domain(a))
	binary.NativeEndian.PutUint32(head[4:], uint32(index))
	msgs, err := c.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request}, Data: append(head, attrs...)})
	if err != nil {
		return ndisc.MAC{}, false
	}
	for _, m := range msgs {
		if len(m.Data) < unix.SizeofNdMsg {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofNdMsg:])
		if err != nil {
			continue
		}
		for ad.Next() {
			if ad.Type() == unix.NDA_LLADDR && len(ad.Bytes()) == 6 {
				return ndisc.MAC(ad.Bytes()), true
			}
		}
	}
	return ndisc.MAC{}, false
}
