package reach

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Listener is a receiving socket, or several that differ in nothing that matters.
type Listener struct {
	NetNS   string     `json:"netns"`
	Proto   string     `json:"proto"`
	Port    uint16     `json:"port"`
	PortTo  uint16     `json:"portTo,omitempty"` // the last of a range of ports: only of a ruleset without a host
	Address string     `json:"address"`
	Device  string     `json:"device,omitempty"` // of SO_BINDTODEVICE
	Process string     `json:"process"`
	Unit    string     `json:"unit,omitempty"`
	PID     int        `json:"pid,omitempty"`
	IPv4    []V        `json:"ipv4"`
	IPv6    []V        `json:"ipv6"`
	local   netip.Addr // invalid: any
	takes   [2]bool    // IPv4, IPv6
	ifindex int
	unsure  []fact.Gap
}

var protoNumbers = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136}

// Listeners are the sockets of the namespace that take packets, without their
// answers.
func (sp *Space) Listeners() ([]Listener, *fact.Gap) {
	socks, ok := sp.Sockets.Get()
	if !ok {
		if g, gap := sp.Sockets.Gap(); gap {
			return nil, &g
		}
		return nil, nil
	}
	procs := map[int]*fact.Process{}
	if ps, ok := sp.host.Processes.Get(); ok {
		for i := range ps {
			procs[ps[i].PID] = &ps[i]
		}
	}
	var out []Listener
	seen := map[string]bool{}
	for i := range socks {
		k := &socks[i]
		if _, known := protoNumbers[k.Protocol]; !known || k.State == "connected" || k.Port == 0 {
			continue
		}
		l := Listener{NetNS: sp.Name, Proto: k.Protocol, Port: k.Port, IPv4: []V{}, IPv6: []V{}, ifindex: k.Index}
		local := k.Local.WithZone("")
		switch {
		case !local.IsValid() && k.Family == "ipv4":
			local = netip.IPv4Unspecified()
		case !local.IsValid():
			local = netip.IPv6Unspecified()
		}
		l.Address = local.String()
		four := local.Unmap()
		switch only, known := k.V6Only.Get(); {
		case four.Is4():
			l.takes[0] = true
			if !four.IsUnspecified() {
				l.local = four
			}
		case local.IsUnspecified():
			l.takes = [2]bool{!only, true}
			if !known {
				l.unsure = append(l.unsure, fact.Gap{Reason: fact.UnsupportedGap, What: "whether the socket takes IPv4 (IPV6_V6ONLY)"})
			}
		default:
			l.takes[1], l.local = true, local
		}
		if local.IsMulticast() && four.Is4() {
			l.unsure = append(l.unsure, fact.Gap{Reason: fact.NotCollected, What: "whether the host has joined " + four.String()})
		}
		if k.Index != 0 {
			l.Device = sp.Model.Set.Interfaces[uint32(k.Index)]
		}
		if k.IndexUnknown {
			l.unsure = append(l.unsure, fact.Gap{Reason: fact.UnsupportedGap, What: "whether the socket is bound to an interface"})
		}
		pids, _ := k.Owners.Get()
		for _, pid := range pids {
			if p := procs[pid]; p != nil && (l.PID == 0 || pid > 1 && pid < l.PID || l.PID == 1) {
				l.Process, l.Unit, l.PID = p.Exe.Or(""), p.Unit, pid
			}
		}
		key := fmt.Sprint(l.Proto, l.Port, l.Address, k.Index, l.Process, l.takes)
		if !seen[key] {
			seen[key] = true
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Process, b.Process))
	})
	return out, nil
}

// WildcardListener is a socket that nobody has opened yet, on every address of both
// families.
func WildcardListener(proto string, port uint16) Listener {
	return Listener{Proto: proto, Port: port, Address: "::", IPv4: []V{}, IPv6: []V{}, takes: [2]bool{true, true}}
}
