package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// question is a packet as the flags of trace, or a line of a batch, describe it.
// What is nil or empty is left open.
type question struct {
	ID         json.RawMessage `json:"id"`
	Family     string          `json:"family"`
	Hook       string          `json:"hook"`
	IIF        string          `json:"iif"`
	OIF        string          `json:"oif"`
	Saddr      string          `json:"saddr"`
	Daddr      string          `json:"daddr"`
	Proto      wordOrNumber    `json:"proto"`
	Sport      *int64          `json:"sport"`
	Dport      *int64          `json:"dport"`
	ICMPType   *int64          `json:"icmpType"`
	ICMPCode   *int64          `json:"icmpCode"`
	Ct         string          `json:"ct"`
	TCPFlags   words           `json:"tcpFlags"`
	Exthdr     words           `json:"exthdr"`
	HopLimit   *int64          `json:"hoplimit"`
	EtherSaddr string          `json:"etherSaddr"`
	Mark       *int64          `json:"mark"`
	UID        *int64          `json:"uid"`
	NetNS      string          `json:"netns"`
	OnlyHook   bool            `json:"onlyHook"`
}

// wordOrNumber is "tcp" or 6.
type wordOrNumber string

// UnmarshalJSON takes both.
func (w *wordOrNumber) UnmarshalJSON(b []byte) error {
	var s string
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return fmt.Errorf("read protocol: %w", err)
		}
		*w = wordOrNumber(s)
		return nil
	}
	var n uint8
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("read protocol: %w", err)
	}
	*w = wordOrNumber(fmt.Sprint(n))
	return nil
}

// words is a list, or its words separated by commas.
type words []string

// UnmarshalJSON takes both.
func (w *words) UnmarshalJSON(b []byte) error {
	var list []string
	if len(b) > 0 && b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return fmt.Errorf("read words: %w", err)
		}
		list = splitWords(s)
	} else if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("read words: %w", err)
	}
	*w = list
	return nil
}

func splitWords(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

var hookWords = map[string]rs.Hook{
	"prerouting": rs.Prerouting, "input": rs.Input, "forward": rs.Forward, "output": rs.Output, "postrouting": rs.Postrouting, "ingress": rs.Ingress,
}

var ctWords = map[string]uint32{
	"new": reach.CtNew, "established": reach.CtEstablished, "related": reach.CtRelated, "invalid": reach.CtInvalid, "untracked": reach.CtUntracked,
}

var tcpFlagWords = map[string]uint8{"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "ece": 64, "cwr": 128}

func field[T uint8 | uint16 | uint32](name string, v *int64, max int64) (reach.Opt[T], error) {
	if v == nil {
		return reach.Opt[T]{}, nil
	}
	if *v < 0 || *v > max {
		return reach.Opt[T]{}, fmt.Errorf("%s %d is not between 0 and %d", name, *v, max)
	}
	return reach.Some(T(*v)), nil
}

// packet is the question as reach asks it.
func (q *question) packet() (p reach.Packet, h rs.Hook, err error) {
	fam, ok := reach.FamilyOf(q.Family)
	if !ok {
		return p, h, fmt.Errorf("family %q: use ipv4 or ipv6", q.Family)
	}
	p.Family = fam
	if h, ok = hookWords[q.Hook]; !ok {
		return p, h, fmt.Errorf("hook %q: use prerouting, input, forward, output or postrouting", q.Hook)
	}
	p.Local = h == rs.Output
	if q.IIF != "" {
		p.IIF = reach.Some(q.IIF)
	}
	if q.OIF != "" {
		p.OIF = reach.Some(q.OIF)
	}
	if p.Saddr, err = q.address("saddr", q.Saddr, fam); err != nil {
		return p, h, err
	}
	if p.Daddr, err = q.address("daddr", q.Daddr, fam); err != nil {
		return p, h, err
	}
	if q.Proto != "" {
		n, err := reach.ParseProtocol(string(q.Proto))
		if err != nil {
			return p, h, err
		}
		p.Proto = reach.Some(n)
	}
	p.Sport = reach.Range{From: 0, To: 65535}
	if s, err := field[uint16]("sport", q.Sport, 65535); err != nil {
		return p, h, err
	} else if s.Set {
		p.Sport = reach.Range{From: s.V, To: s.V}
	}
	if p.Dport, err = field[uint16]("dport", q.Dport, 65535); err != nil {
		return p, h, err
	}
	if p.ICMPType, err = field[uint8]("icmpType", q.ICMPType, 255); err != nil {
		return p, h, err
	}
	if p.ICMPCode, err = field[uint8]("icmpCode", q.ICMPCode, 255); err != nil {
		return p, h, err
	}
	if p.HopLimit, err = field[uint8]("hoplimit", q.HopLimit, 255); err != nil {
		return p, h, err
	}
	if p.Mark, err = field[uint32]("mark", q.Mark, 1<<32-1); err != nil {
		return p, h, err
	}
	if p.UID, err = field[uint32]("uid", q.UID, 1<<32-1); err != nil {
		return p, h, err
	}
	if q.Ct != "" {
		c, ok := ctWords[q.Ct]
		if !ok {
			return p, h, fmt.Errorf("ct %q: use new, established, related, invalid or untracked", q.Ct)
		}
		p.Ct = reach.Some(c)
	}
	if q.TCPFlags != nil {
		var f uint8
		for _, w := range q.TCPFlags {
			b, ok := tcpFlagWords[strings.ToLower(w)]
			if !ok {
				return p, h, fmt.Errorf("tcpFlags %q: use fin, syn, rst, psh, ack, urg, ecn, cwr", w)
			}
			f |= b
		}
		p.TCPFlags = reach.Some(f)
	}
	if len(q.Exthdr) > 0 {
		if fam == rs.IPv4 {
			return p, h, fmt.Errorf("exthdr: IPv4 has no extension headers")
		}
		if p.Exthdr, err = reach.ParseExthdr(q.Exthdr); err != nil {
			return p, h, err
		}
	}
	if q.EtherSaddr != "" {
		m, err := net.ParseMAC(q.EtherSaddr)
		if err != nil || len(m) != 6 {
			return p, h, fmt.Errorf("etherSaddr %q is not a MAC address", q.EtherSaddr)
		}
		p.SrcMAC = reach.Some([6]byte(m))
	}
	return p, h, nil
}

func (q *question) address(name, s string, fam rs.Family) (reach.Opt[netip.Addr], error) {
	if s == "" {
		return reach.Opt[netip.Addr]{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return reach.Opt[netip.Addr]{}, fmt.Errorf("%s %q is not an address", name, s)
	}
	if a.Is4() != (fam == rs.IPv4) {
		return reach.Opt[netip.Addr]{}, fmt.Errorf("%s %s is not of family %s", name, a, reach.FamilyWord(fam))
	}
	return reach.Some(a), nil
}
