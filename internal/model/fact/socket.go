package fact

import "net/netip"

// Socket is a socket that receives: a TCP or SCTP listener, a UDP or UDPLite
// socket, a raw or a packet socket.
type Socket struct {
	Family   string `json:"family"`   // ipv4 | ipv6 | packet: the socket's address family, not what it can receive
	Protocol string `json:"protocol"` // tcp | udp | udplite | sctp | raw | packet
	// Number is the IP protocol of a raw socket (58 = ICMPv6) or the ethertype
	// of a packet socket (0x0003 = all).
	Number uint16         `json:"number,omitempty"`
	State  string         `json:"state"`          // listen | unconnected | connected
	Local  netip.Addr     `json:"local,omitzero"` // unspecified = wildcard; ::ffff:a.b.c.d stays mapped
	Port   uint16         `json:"port,omitempty"`
	Remote netip.AddrPort `json:"remote,omitzero"` // of connected UDP and raw sockets
	// V6Only is IPV6_V6ONLY (INET_DIAG_SKV6ONLY). Absent for ipv4 and packet sockets.
	V6Only Known[bool] `json:"v6only,omitzero"`
	Index  int         `json:"index,omitempty"` // ifindex of SO_BINDTODEVICE, or of a packet socket; 0: none
	// IndexUnknown is set when the source could not tell whether the socket is
	// bound to an interface (/proc/net shows none); Index is then meaningless.
	IndexUnknown bool   `json:"indexUnknown,omitempty"`
	Inode        uint64 `json:"inode"`
	UID          uint32 `json:"uid"`
	// Owners are the processes that hold it. Absent: none does (a kernel
	// socket such as WireGuard's or vxlan's, or one whose holder is in another PID
	// namespace); a Gap: it could not be told.
	Owners Known[[]int] `json:"owners,omitzero"`
	// Source tells how it was found: inet_diag | packet_diag | proc.
	Source string `json:"source,omitempty"`
}

// Process is a process that holds a socket, or a daemon that decides about IPv6.
// It has no arguments and no environment.
type Process struct {
	PID int `json:"pid"`
	// Exe is the path of the executable's inode (/proc/PID/exe). It is what
	// waivers name; " (deleted)" is kept.
	Exe       Known[string]      `json:"exe,omitzero"`
	Comm      string             `json:"comm,omitempty"` // chosen by the process itself: for display only, never for a decision
	UID       uint32             `json:"uid"`            // real uid
	Cgroup    string             `json:"cgroup,omitempty"`
	Unit      string             `json:"unit,omitempty"`      // systemd unit, from the cgroup path
	Container string             `json:"container,omitempty"` // container id, from the cgroup path
	NetNS     Known[NamespaceID] `json:"netns,omitzero"`
	Root      bool               `json:"ownRoot,omitempty"` // its root directory or mount namespace differs from ours
	// Flags are allow-listed settings from the command line of known daemons
	// (dockerd, kubelet, kube-proxy): name → value. Never anything else.
	Flags map[string]string `json:"flags,omitempty"`
}

// OrphanSocket is a socket that a process holds and that lives in a network
// namespace nobody could enter: it listens where no audit looks.
type OrphanSocket struct {
	Inode     uint64      `json:"inode"`
	PID       int         `json:"pid"`
	Protocol  string      `json:"protocol"`        // what the kernel calls it: TCPv6, UDP, RAWv6 …
	NetNS     uint64      `json:"netns,omitempty"` // inode of its namespace, when the kernel told
	Listening Known[bool] `json:"listening,omitzero"`
}
