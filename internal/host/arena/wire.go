package arena

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
)

// wire is the far end of an interface.
type wire struct {
	fd   int
	far  int // its index
	mac  [6]byte
	from ndisc.MAC
	// plain: there are packets on it, without a header of Ethernet.
	plain bool
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func openWire(name string) (*wire, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("find far end of %s: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: i.Index}); err != nil {
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	w := &wire{fd: fd, far: i.Index}
	copy(w.from[:], i.HardwareAddr)
	return w, nil
}

func (w *wire) send(f []byte, deadline time.Time) error {
	if w.plain {
		f = f[min(14, len(f)):]
	}
	for {
		_, err := unix.Write(w.fd, f)
		switch {
		case err == nil:
			return nil
		case (errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) && time.Now().Before(deadline):
			time.Sleep(time.Millisecond)
		default:
			return fmt.Errorf("send frame: %w", err)
		}
	}
}

// witness sees what comes through every rule, by the flow label or the identification,
// and counts what arrived at all, before every rule.
const witness = `table inet sixfence_witness {
	set six { typeof ip6 flowlabel; size 65535; flags dynamic; }
	set four { typeof ip id; size 65535; flags dynamic; }
	counter last { }
	chain first { type filter hook prerouting priority -2147483648; policy accept; ip id 65535 ip protocol 253 counter name last drop; }
	chain here { type filter hook input priority 2147483000; policy accept; iifname "lo" accept; meta nfproto ipv6 add @six { ip6 flowlabel }; meta nfproto ipv4 add @four { ip id }; }
	chain past { type filter hook forward priority 2147483000; policy accept; meta nfproto ipv6 add @six { ip6 flowlabel }; meta nfproto ipv4 add @four { ip id }; }
}
`

const witnessTable = "sixfence_witness"

// watch loads the witness, with nothing seen yet.
func (h *helper) watch() error {
	see := witness
	for name := range h.guest {
		// What a bridge hands to a guest is shown to the rules of IP, too (br_netfilter), and
		// has not come past the host.
		see += fmt.Sprintf("insert rule inet %s past iifname %q oifname %q ether daddr != %s return\n", witnessTable, name, name, ndisc.MAC(h.wires[name].mac))
	}
	err := h.load("destroy table inet " + witnessTable + "\n" + see)
	if err != nil {
		// Before nft 1.0.9 there is no destroy.
		err = h.load("table inet " + witnessTable + "\ndelete table inet " + witnessTable + "\n" + see)
	}
	return err
}

// fire sends frames, waits until the last of them was handled, and says what came
// through.
func (h *helper) fire(f *fire) (six []uint32, four []uint16, err error) {
	w := h.wires[f.Link]
	if w == nil || len(f.Frames) > maxFrames {
		return nil, nil, fmt.Errorf("fire at %s: no such interface, or too much at once", f.Link)
	}
	if err := h.watch(); err != nil {
		return nil, nil, err
	}
	deadline := time.Now().Add(20 * time.Second)
	// What comes last has found everything before it handled: one queue, one processor.
	last := w.last()
	err = h.there(func() error {
		for _, b := range f.Frames {
			if err := w.send(b, deadline); err != nil {
				return err
			}
		}
		return w.send(last, deadline)
	})
	if err != nil {
		return nil, nil, err
	}
	if err := arrived(1, f.Link, deadline); err != nil {
		return nil, nil, err
	}
	if six, err = labels(); err != nil {
		return nil, nil, err
	}
	keys, err := elements(witnessTable, "four")
	if err != nil {
		return nil, nil, err
	}
	for _, k := range keys {
		if len(k) >= 2 {
			four = append(four, binary.BigEndian.Uint16(k))
		}
	}
	return six, four, nil
}

// marker is the Ethernet type of a frame that is no packet (local experimental).
const marker = 0x88b5

// pass sends frames through a bridge, and says what came out at the other side.
func (h *helper) pass(f *fire) (six []uint32, four []uint16, err error) {
	in, out := h.wires[f.Link], h.guest[f.Link]
	if f.From {
		in, out = out, in
	}
	if in == nil || out == nil || len(f.Frames) > maxFrames {
		return nil, nil, fmt.Errorf("pass through %s: no such bridge, or too much at once", f.Link)
	}
	out.drain(nil)
	deadline := time.Now().Add(settle)
	last := append(append(append([]byte{}, out.from[:]...), in.from[:]...), marker>>8, marker&0xff)
	last = append(last, make([]byte, 46)...)
	err = h.there(func() error {
		for _, b := range append(slices.Clone(f.Frames), last) {
			if err := in.send(b, deadline); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for done := false; !done; {
		out.drain(func(b []byte) {
			switch {
			case len(b) < 20:
			case binary.BigEndian.Uint16(b[12:]) == marker:
				done = true
			case binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_IPV6:
				six = append(six, binary.BigEndian.Uint32(b[14:])&0xfffff)
			case binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_IP:
				four = append(four, binary.BigEndian.Uint16(b[18:]))
			}
		})
		if time.Now().After(deadline) {
			return nil, nil, fmt.Errorf("nothing of what was sent through %s arrived", f.Link)
		}
		time.Sleep(time.Millisecond)
	}
	return six, four, nil
}

// send sends from the host itself, and looks for each packet on every wire.
func (h *helper) send(list []Packet) ([]Sent, error) {
	var out []Sent
	for n, p := range list {
		h.drain(nil)
		tag := fmt.Sprintf("sixfence%08d", n)
		s := Sent{}
		if err := p.send(tag); err != nil {
			s.Refused = err.Error()
			out = append(out, s)
			continue
		}
		for end := time.Now().Add(time.Second); s.Link == "" && time.Now().Before(end); {
			h.drain(func(link string, f []byte) {
				if len(f) > len(tag) && string(f[len(f)-len(tag):]) == tag {
					s.Link = link
				}
			})
			if s.Link == "" {
				time.Sleep(time.Millisecond)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// drain reads what the host has sent.
func (h *helper) drain(f func(link string, frame []byte)) {
	for name, w := range h.wires {
		w.drain(func(b []byte) {
			if f != nil {
				f(name, b)
			}
		})
	}
}

// drain reads what has come to a far end.
func (w *wire) drain(f func(frame []byte)) {
	buf := make([]byte, 65536)
	for range 100_000 {
		var n int
		var from unix.Sockaddr
		var err error
		if w.plain {
			n, err = unix.Read(w.fd, buf)
		} else {
			n, from, err = unix.Recvfrom(w.fd, buf, 0)
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if f != nil {
			f(buf[:n])
		}
	}
}

func (p *Packet) send(tag string) error {
	if p.Proto == unix.IPPROTO_UDP {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.Dst))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(tag))
		return err
	}
	fam, sa := unix.AF_INET, unix.Sockaddr(nil)
	if a := p.Dst.Addr(); a.Is4() {
		sa = &unix.SockaddrInet4{Addr: a.As4()}
	} else {
		fam, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: a.As16()}
	}
	fd, err := unix.Socket(fam, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(p.Proto))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, append(append([]byte{}, p.Body...), tag...), 0, sa)
}

// nft makes one request of nf_tables.
func nft(typ uint16, flags netlink.HeaderFlags, list ...netlink.Attribute) ([]netlink.Message, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: 256 << 10})
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(settle))
	b, err := netlink.MarshalAttributes(list)
	if err != nil {
		return nil, fmt.Errorf("ask nf_tables: %w", err)
	}
	return c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ), Flags: netlink.Request | flags},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, b...),
	})
}

func text(typ uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: typ, Data: append([]byte(s), 0)}
}

// nested decodes attributes; nil when they are none.
func nested(b []byte) []netlink.Attribute {
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil
	}
	for i := range list {
		list[i].Type &= 0x3fff
	}
	return list
}

func value(list []netlink.Attribute, typ uint16) []byte {
	for _, a := range list {
		if a.Type == typ {
			return a.Data
		}
	}
	return nil
}

// elements are the keys in a set.
func elements(table, set string) ([][]byte, error) {
	ms, err := nft(unix.NFT_MSG_GETSETELEM, netlink.Dump, text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, set))
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", set, err)
	}
	var out [][]byte
	for _, m := range ms {
		if len(m.Data) < 4 {
			continue
		}
		for _, e := range nested(value(nested(m.Data[4:]), unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			if k := value(nested(value(nested(e.Data), unix.NFTA_SET_ELEM_KEY)), unix.NFTA_DATA_VALUE); k != nil {
				out = append(out, k)
			}
		}
	}
	return out, nil
}

// counted is what a counter of the witness has counted.
func counted(name string) (uint64, error) {
	ms, err := nft(unix.NFT_MSG_GETOBJ, 0, text(unix.NFTA_OBJ_TABLE, witnessTable), text(unix.NFTA_OBJ_NAME, name),
		netlink.Attribute{Type: unix.NFTA_OBJ_TYPE, Data: []byte{0, 0, 0, 1}})
	if err != nil {
		return 0, fmt.Errorf("read counter: %w", err)
	}
	for _, m := range ms {
		if len(m.Data) >= 4 {
			if v := value(nested(value(nested(m.Data[4:]), unix.NFTA_OBJ_DATA)), unix.NFTA_COUNTER_PACKETS); len(v) == 8 {
				return binary.BigEndian.Uint64(v), nil
			}
		}
	}
	return 0, errors.New("read counter: no answer")
}
