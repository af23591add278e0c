#!/usr/bin/env python3
"""Writes links.txt: RTM_NEWLINK messages of kinds that the test kernel lacks.

Assembled by hand from the kernel's headers, little endian: struct nlmsghdr
(uapi/linux/netlink.h), struct ifinfomsg (uapi/linux/rtnetlink.h), IFLA_* and
IFLA_INFO_* (uapi/linux/if_link.h), IFLA_IPTUN_*, IFLA_GRE_*, IFLA_VTI_*
(uapi/linux/if_tunnel.h), with the attributes and byte orders that the drivers'
fill_info functions use (net/ipv6/sit.c, net/ipv6/ip6_tunnel.c, net/ipv4/ipip.c,
net/ipv4/ip_gre.c, net/ipv6/ip6_gre.c, net/ipv4/ip_vti.c, drivers/net/geneve.c,
net/8021q/vlan_netlink.c). A test gives the same bytes to ip(8), which must read
the same out of them.
"""
import ipaddress
import struct

ip = lambda s: ipaddress.ip_address(s).packed
u8 = lambda v: struct.pack("<B", v)
u16 = lambda v: struct.pack("<H", v)
u32 = lambda v: struct.pack("<I", v)
be16 = lambda v: struct.pack(">H", v)
be32 = lambda v: struct.pack(">I", v)


def attr(typ, data):
    n = 4 + len(data)
    return struct.pack("<HH", n, typ) + data + b"\0" * (-n % 4)


def message(index, name, arphrd, kind, data, parent=0, master_kind=None):
    flags = 0x1 | 0x80  # IFF_UP, IFF_NOARP
    body = struct.pack("<BxHiII", 0, arphrd, index, flags, 0)
    body += attr(3, name.encode() + b"\0")  # IFLA_IFNAME
    body += attr(4, u32(1480))  # IFLA_MTU
    body += attr(16, u8(0))  # IFLA_OPERSTATE
    if parent:
        body += attr(5, u32(parent))  # IFLA_LINK
    info = attr(1, kind.encode() + b"\0")  # IFLA_INFO_KIND
    if data is not None:
        info += attr(2, b"".join(data))  # IFLA_INFO_DATA
    body += attr(18, info)  # IFLA_LINKINFO
    return struct.pack("<IHHII", 16 + len(body), 16, 2, 1, 4711) + body


def sit(local, remote, flags=0, prefix="2002::", plen=16, relay="0.0.0.0", rlen=0):
    return [
        attr(1, u32(0)), attr(2, ip(local)), attr(3, ip(remote)), attr(4, u8(64)), attr(5, u8(0)), attr(10, u8(1)),
        attr(9, u8(41)), attr(8, u16(flags)),
        attr(11, ip(prefix)), attr(12, ip(relay)), attr(13, u16(plen)), attr(14, u16(rlen)),
        attr(15, u16(0)), attr(17, be16(0)), attr(18, be16(0)), attr(16, u16(0)), attr(20, u32(0)),
    ]


def ip6tnl(local, remote, proto):
    return [
        attr(1, u32(0)), attr(2, ip(local)), attr(3, ip(remote)), attr(4, u8(64)), attr(6, u8(4)), attr(7, be32(0)),
        attr(8, u32(0x30000)), attr(9, u8(proto)), attr(20, u32(0)),
        attr(15, u16(0)), attr(17, be16(0)), attr(18, be16(0)), attr(16, u16(0)),
    ]


def gre(local, remote):
    return [
        attr(1, u32(0)), attr(2, be16(0)), attr(3, be16(0)), attr(4, be32(0)), attr(5, be32(0)),
        attr(6, ip(local)), attr(7, ip(remote)), attr(8, u8(255)), attr(9, u8(0)), attr(10, u8(1)), attr(20, u32(0)),
        attr(14, u16(0)), attr(16, be16(0)), attr(17, be16(0)), attr(15, u16(0)),
    ]


SIT, TUNNEL, TUNNEL6, GRE, GRE6, ETHER, NONE = 776, 768, 769, 778, 823, 1, 65534
LINKS = [
    ("sit, remote any (6to4): anybody's protocol 41 comes in", message(10, "sit1", SIT, "sit", sit("192.0.2.1", "0.0.0.0"))),
    ("sit with SIT_ISATAP", message(11, "is0", SIT, "sit", sit("192.0.2.1", "0.0.0.0", flags=1))),
    ("sit with a 6rd prefix and relay prefix", message(12, "rd6", SIT, "sit", sit("10.1.2.3", "0.0.0.0", 0, "2001:db8::", 32, "10.0.0.0", 8))),
    ("sit, one remote", message(13, "he6", SIT, "sit", sit("192.0.2.1", "198.51.100.7"))),
    ("fallback device of sit", message(14, "sit0", SIT, "sit", sit("0.0.0.0", "0.0.0.0"))),
    ("ip6tnl, any protocol", message(15, "tn6", TUNNEL6, "ip6tnl", ip6tnl("2001:db8::1", "2001:db8::2", 0))),
    ("ip6tnl, collect metadata", message(16, "tn6x", TUNNEL6, "ip6tnl", ip6tnl("::", "::", 41) + [attr(19, b"")])),
    ("ipip inside FOU, UDP port 5555", message(17, "fou0", TUNNEL, "ipip", [
        attr(1, u32(0)), attr(2, ip("192.0.2.1")), attr(3, ip("198.51.100.7")), attr(4, u8(0)), attr(5, u8(0)), attr(9, u8(4)), attr(10, u8(1)),
        attr(15, u16(1)), attr(17, be16(1111)), attr(18, be16(5555)), attr(16, u16(0))])),
    ("gre", message(18, "gre1", GRE, "gre", gre("192.0.2.1", "198.51.100.7"))),
    ("fallback device of gretap", message(19, "gretap0", ETHER, "gretap", gre("0.0.0.0", "0.0.0.0"))),
    ("ip6gre", message(20, "g6", GRE6, "ip6gre", [
        attr(1, u32(0)), attr(2, be16(0)), attr(3, be16(0)), attr(4, be32(0)), attr(5, be32(0)),
        attr(6, ip("2001:db8::1")), attr(7, ip("2001:db8::2")), attr(8, u8(64)), attr(11, u8(4)), attr(12, be32(0)), attr(13, u32(0)), attr(20, u32(0)),
        attr(14, u16(0)), attr(16, be16(0)), attr(17, be16(0)), attr(15, u16(0))])),
    ("vti6", message(21, "vt6", TUNNEL6, "vti6", [
        attr(1, u32(0)), attr(4, ip("2001:db8::1")), attr(5, ip("2001:db8::2")), attr(2, be32(1)), attr(3, be32(1)), attr(6, u32(0))])),
    ("VLAN with a dotted name", message(22, "eth0.100", ETHER, "vlan", [
        attr(5, be16(0x8100)), attr(1, u16(100)), attr(2, struct.pack("<II", 1, 0xFFFFFFFF))], parent=2)),
    ("wireguard: no attributes, its peers are asked for by generic netlink", message(23, "wg0", NONE, "wireguard", None)),
    ("geneve", message(24, "gnv0", ETHER, "geneve", [
        attr(1, u32(77)), attr(7, ip("2001:db8::2")), attr(3, u8(0)), attr(4, u8(0)), attr(11, be32(0)), attr(5, be16(6081))])),
    ("sit from a kernel that knows better: the remote address has three bytes", message(25, "odd6", SIT, "sit", [
        attr(2, ip("192.0.2.1")), attr(3, b"\1\2\3"), attr(9, u8(41))])),
]

if __name__ == "__main__":
    with open("links.txt", "w", encoding="ascii") as f:
        f.write("# RTM_NEWLINK messages assembled by links.py, which says from what. One a paragraph: little endian, nlmsghdr first.\n")
        for title, b in LINKS:
            f.write("\n# " + title + "\n")
            for i in range(0, len(b), 32):
                f.write(b[i : i + 32].hex(" ", 4) + "\n")
