package packetfilter

import (
	"errors"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// include/uapi/linux/netfilter/nfnetlink.h, ipset/ip_set.h.
const (
	subsysIPSet    = 6
	cmdList        = 7
	attrProtocol   = 1
	protocol       = 7 // since Linux 4.20; it shows the number of a set
	protocolBefore = 6
)

// readIPSets lists the sets of the ipset subsystem with their elements.
func readIPSets(a *ask.Asker, b *ask.Budget) fact.Known[[][]byte] {
	for _, m := range []string{"nfnetlink", "ip_set"} {
		if a.Present(m) {
			continue
		}
		if g := a.Doubt(m); g != nil {
			return fact.Missing[[][]byte](*g)
		}
		return fact.Absent[[][]byte]()
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: answerMax})
	if err != nil {
		return fact.Missing[[][]byte](gapOf(err, "ipset"))
	}
	defer c.Close()
	_ = c.SetDeadline(b.Deadline())
	for _, p := range []uint8{protocol, protocolBefore} {
		msgs, g, err := listIPSets(c, a, b, p)
		switch {
		case g != nil:
			return fact.Missing[[][]byte](*g)
		case err == nil && len(msgs) == 0:
			return fact.Absent[[][]byte]()
		case err == nil:
			return fact.Value(msgs)
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL) && p == protocolBefore:
			return fact.Absent[[][]byte]() // nfnetlink knows no such subsystem
		case !errors.Is(err, unix.EPROTO) && !errors.Is(err, unix.EINVAL):
			return fact.Missing[[][]byte](gapOf(err, "ipset"))
		}
	}
	return fact.Missing[[][]byte](fact.Gap{Reason: fact.UnsupportedGap, What: "ipset: unknown protocol version"})
}

func listIPSets(c *netlink.Conn, a *ask.Asker, b *ask.Budget, version uint8) ([][]byte, *fact.Gap, error) {
	a.Note("netlink", "IPSET_CMD_LIST")
	ae := netlink.NewAttributeEncoder()
	ae.Uint8(attrProtocol, version)
	attrs, err := ae.Encode()
	if err != nil {
		return nil, nil, err
	}
	return listAll(c, b, subsysIPSet<<8|cmdList, append([]byte{unix.AF_INET, 0, 0, 0}, attrs...))
}

// listAll sends a request for a dump and keeps the answers as they come.
func listAll(c *netlink.Conn, b *ask.Budget, typ uint16, data []byte) ([][]byte, *fact.Gap, error) {
	sent, err := c.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Dump},
		Data:   data,
	})
	if err != nil {
		return nil, nil, err
	}
	var out [][]byte
	for m, err := range c.ReceiveIter() {
		if err != nil {
			return nil, nil, err
		}
		if m.Header.Sequence != sent.Header.Sequence || len(m.Data) < 4 {
			continue
		}
		if g := b.Take("packet filter", 1, len(m.Data)); g != nil {
			return nil, g, nil
		}
		out = append(out, m.Data)
	}
	return out, nil, nil
}
