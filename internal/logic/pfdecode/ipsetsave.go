package pfdecode

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// ParseIPSets reads what "ipset save" prints.
func ParseIPSets(text string) (*IPSets, error) {
	out := NoIPSets()
	if err := out.ParseMore("ipset save", text); err != nil {
		return nil, err
	}
	return out, nil
}

// ParseMore adds the sets of what "ipset save" prints. A line that is not understood
// is a *TextError, since what it added is lost; an element that is not makes its set
// incomplete.
func (s *IPSets) ParseMore(file, text string) error {
	nets := map[*IPSet][]entry{}
	had := len(s.byName)
	for n, line := range strings.Split(text, "\n") {
		words := fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") || words[0] == "COMMIT" {
			continue
		}
		var err error
		switch {
		case len(words) >= 3 && words[0] == "create":
			err = s.create(words[1], words[2], words[3:])
		case len(words) >= 3 && words[0] == "add":
			err = s.add(words[1], words[2], words[3:], nets)
		default:
			err = fmt.Errorf("unknown command %q", words[0])
		}
		if err != nil {
			return &TextError{File: file, Line: n + 1, Msg: err.Error(), Hint: "give what ipset save prints, as it is"}
		}
	}
	for _, set := range s.byName {
		switch {
		case int(set.Index) > had:
			set.finish(nets[set])
		case len(nets[set]) > 0:
			return &TextError{File: file, Msg: "elements of set " + set.Name + ", which another file creates", Hint: "give what ipset save prints, as it is"}
		}
	}
	return nil
}

// fields splits a line at blanks; a comment is one quoted word.
func fields(line string) []string {
	var out []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] == '"' {
			if w, rest, ok := strings.Cut(line[1:], `"`); ok {
				out, line = append(out, w), rest
				continue
			}
		}
		w, rest, _ := strings.Cut(line, " ")
		out, line = append(out, w), rest
	}
	return out
}

func (s *IPSets) create(name, typ string, opts []string) error {
	family := byte(rs.IPv4)
	data := []byte{}
	for i := 0; i < len(opts); i++ {
		value := ""
		if i+1 < len(opts) {
			value = opts[i+1]
		}
		switch opts[i] {
		case "family":
			if value == "inet6" {
				family = byte(rs.IPv6)
			}
			i++
		case "netmask":
			n, err := strconv.ParseUint(value, 10, 8)
			if err != nil || n > 128 {
				return fmt.Errorf("netmask %q", value)
			}
			data = append(data, attribute(ipsetNetmask, []byte{byte(n)})...)
			i++
		case "bitmask":
			data = append(data, attribute(ipsetBitmask, nil)...)
			i++
		case "timeout":
			data = append(data, attribute(ipsetTimeout, nil)...)
			i++
		case "hashsize", "maxelem", "range", "size", "initval", "bucketsize", "markmask":
			i++
		case "counters", "comment", "skbinfo", "forceadd":
		default:
			return fmt.Errorf("unknown option %q of set %s", opts[i], name)
		}
	}
	if typ == "list:set" || typ == "bitmap:port" {
		family = 0
	}
	if len(s.byName) >= 65535 {
		return fmt.Errorf("more sets than the kernel holds")
	}
	// x_tables rules name sets by number: those of a text get any.
	index := be16(uint16(len(s.byName) + 1))
	a := newAttrs()
	a[ipsetType], a[ipsetFamily], a[ipsetData], a[ipsetIndex] = append([]byte(typ), 0), []byte{family}, data, index
	_, err := s.header(name, a, binary.LittleEndian)
	return err
}

func attribute(typ uint16, v []byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, uint16(4+len(v)))
	b = append(binary.LittleEndian.AppendUint16(b, typ), v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (s *IPSets) add(name, member string, opts []string, nets map[*IPSet][]entry) error {
	set := s.byName[name]
	if set == nil {
		return fmt.Errorf("unknown set %q", name)
	}
	a := newAttrs()
	var flags uint32
	for i := 0; i < len(opts); i++ {
		switch opts[i] {
		case "nomatch":
			flags |= ipsetNoMatch
		case "wildcard":
			flags |= ipsetWildcard
		case "timeout":
			if i+1 < len(opts) {
				seconds, err := strconv.ParseUint(opts[i+1], 10, 32)
				if err != nil {
					return fmt.Errorf("timeout %q of an element of %s", opts[i+1], name)
				}
				a[ipsetTimeout] = binary.BigEndian.AppendUint32(nil, uint32(seconds))
			}
			i++
		case "packets", "bytes", "comment", "skbmark", "skbprio", "skbqueue":
			i++
		default:
			return fmt.Errorf("unknown option %q of an element of %s", opts[i], name)
		}
	}
	if set.Type == "list:set" {
		set.Members = append(set.Members, Member{member, expires(a)})
		return nil
	}
	if set.Set == nil {
		return nil
	}
	if !set.parts(a, &flags, strings.Split(member, ",")) {
		set.Set.Complete = false
		return nil
	}
	a[ipsetFlags] = binary.BigEndian.AppendUint32(nil, flags)
	e, ok := set.element(a, binary.LittleEndian)
	if !ok {
		set.Set.Complete = false
		return nil
	}
	nets[set] = append(nets[set], e)
	return nil
}

// parts reads the parts of an element into the attributes that the kernel would give.
func (s *IPSet) parts(a attrs, flags *uint32, parts []string) bool {
	dims := dimensions[s.Type]
	if len(parts) != len(dims) {
		return false
	}
	ips := 0
	for k, d := range dims {
		p := parts[k]
		switch d {
		case dimIP, dimNet:
			ip, cidr := uint16(ipsetIP), uint16(ipsetCIDR)
			if ips++; ips == 2 {
				ip, cidr = ipsetIP2, ipsetCIDR2
			}
			host, bits, prefix := strings.Cut(p, "/")
			first, last, span := strings.Cut(host, "-")
			if span && (ips == 2 || prefix || !s.textAddress(a, ipsetIPTo, last)) || !s.textAddress(a, ip, first) {
				return false
			}
			if prefix {
				n, err := strconv.ParseUint(bits, 10, 8)
				if err != nil {
					return false
				}
				a[cidr] = []byte{byte(n)}
			}
		case dimPort:
			proto, port, ok := strings.Cut(p, ":")
			if !ok {
				proto, port = "tcp", p
			}
			n, v, ok := s.textPort(proto, port)
			if !ok {
				return false
			}
			a[ipsetProto], a[ipsetPort] = []byte{n}, be16(v)
		case dimNumber:
			n, err := strconv.ParseUint(p, 10, 16)
			if err != nil {
				return false
			}
			a[ipsetPort] = be16(uint16(n))
		case dimIface:
			name, physdev := strings.CutPrefix(p, "physdev:")
			if physdev {
				*flags |= ipsetPhysdev
			}
			a[ipsetIface] = []byte(name)
		}
	}
	return true
}

func (s *IPSet) textAddress(a attrs, attr uint16, text string) bool {
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" || ip.Is6() != (s.Family == rs.IPv6) {
		return false
	}
	typ := uint16(1)
	if ip.Is6() {
		typ = 2
	}
	a[attr] = attribute(typ, ip.AsSlice())
	return true
}

var ipsetProtos = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58}

// textPort reads "80", and type/code or a few names of ICMP.
func (s *IPSet) textPort(proto, port string) (uint8, uint16, bool) {
	p, ok := ipsetProtos[proto]
	if !ok {
		n, err := strconv.ParseUint(proto, 10, 8)
		if err != nil {
			return 0, 0, false
		}
		p = uint8(n)
	}
	if p == 1 || p == 58 {
		names := map[string]uint16{"echo-request": 8 << 8, "ping": 8 << 8, "echo-reply": 0, "pong": 0}
		if p == 58 {
			names = map[string]uint16{"echo-request": 128 << 8, "ping": 128 << 8, "echo-reply": 129 << 8, "pong": 129 << 8}
		}
		if v, ok := names[port]; ok {
			return p, v, true
		}
		typ, code, ok := strings.Cut(port, "/")
		t, err := strconv.ParseUint(typ, 10, 8)
		c, err2 := strconv.ParseUint(code, 10, 8)
		return p, uint16(t<<8 | c), ok && err == nil && err2 == nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return p, uint16(n), err == nil
}
