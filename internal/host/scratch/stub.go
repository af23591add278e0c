package scratch

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/kmod"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
)

// kinds are the interfaces that can stand in for another, the cheapest first.
var kinds = []string{"dummy", "ifb", "bridge", "veth"}

// present are those that can be made without a module being loaded: the rules do not need
// them (docs/adr/0005). Whether a kernel without modules has them is found out by asking.
func present() (out []string, err error) {
	t, err := tree.Host()
	if err != nil {
		return nil, fmt.Errorf("read which modules are loaded: %w", err)
	}
	defer t.Close()
	return presentOf(kmod.Read(t).Present), nil
}

func presentOf(is func(module string) bool) (out []string) {
	for _, k := range kinds {
		if is(k) {
			out = append(out, k)
		}
	}
	return out
}

// stub makes an interface with this name, and this index unless it is 0, and returns
// its index. It is down: no packet will ever meet the rules.
func (l *loader) stub(name string, index uint32) (uint32, error) {
	c := l.link
	if i, err := indexOf(c, name); err == nil {
		return i, nil // lo, and fallback tunnels
	}
	last := fmt.Errorf("those are modules that are not loaded (modprobe %s)", kinds[len(kinds)-1])
	for len(l.r.Kinds) > 0 {
		err := newLink(c, l.r.Kinds[0], name, index)
		if err == nil {
			return indexOf(c, name)
		}
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EPERM) {
			return 0, fmt.Errorf("make interface %s: %w", name, err)
		}
		last, l.r.Kinds = err, l.r.Kinds[1:]
	}
	return 0, fmt.Errorf("make interface %s: this kernel makes none of dummy, ifb, bridge, veth: %w", name, last)
}

func linkMessage(index uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	return b
}

func newLink(c *netlink.Conn, kind, name string, index uint32) error {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.IFLA_IFNAME, name)
	ae.Nested(unix.IFLA_LINKINFO, func(n *netlink.AttributeEncoder) error {
		n.String(unix.IFLA_INFO_KIND, kind)
		return nil
	})
	attrs, err := ae.Encode()
	if err != nil {
		return fmt.Errorf("encode interface: %w", err)
	}
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWLINK, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl},
		Data:   append(linkMessage(index), attrs...),
	})
	return err
}

// indexOf asks for an interface by name.
func indexOf(c *netlink.Conn, name string) (uint32, error) {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.IFLA_IFNAME, name)
	attrs, err := ae.Encode()
	if err != nil {
		return 0, fmt.Errorf("encode name: %w", err)
	}
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request},
		Data:   append(linkMessage(0), attrs...),
	})
	if err != nil {
		return 0, fmt.Errorf("ask for interface %s: %w", name, err)
	}
	for _, m := range msgs {
		if len(m.Data) >= unix.SizeofIfInfomsg {
			return binary.NativeEndian.Uint32(m.Data[4:]), nil
		}
	}
	return 0, fmt.Errorf("ask for interface %s: no answer", name)
}
