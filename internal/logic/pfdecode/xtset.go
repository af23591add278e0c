package pfdecode

import (
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// IPSET_FLAG_* and directions of struct xt_set_info.
const (
	setInvert      = 1
	setNoMatchFlag = 1 << 7 // IPSET_FLAG_RETURN_NOMATCH

	maxProtos  = 32
	maxMembers = 256
)

// matchSet is set_match_v1 to v4 of xt_set.c. A key that cannot be made from the packet
// is no match, and then an inverted rule matches.
func matchSet(x *xtable, i *blob) []rs.Expr {
	if !x.inet() {
		return nil
	}
	if len(i.b) > 8 { // revisions 3 and 4: counters; which layout, their operators tell
		if len(i.b) < 44 || i.u8(8)|i.u8(16)|i.u8(24)|i.u8(32) != 0 || i.u32(40)&setNoMatchFlag != 0 {
			return nil
		}
	}
	set := x.sets.index(i.u16(0))
	dim, flags := i.u8(2), i.u8(3)
	if set == nil {
		return nil
	}
	of, ok := x.inSet(set, dim, flags)
	if !ok {
		return nil
	}
	return one(rs.Any{Name: "set " + set.Name, Of: of, Invert: flags&setInvert != 0})
}

// inSet lists the ways in which a packet can be in a set.
func (x *xtable) inSet(s *IPSet, dim, flags uint8) ([][]rs.Expr, bool) {
	if s.Type == "list:set" {
		if len(s.Members) > maxMembers {
			return nil, false
		}
		var out [][]rs.Expr
		for _, m := range s.Members {
			t := x.sets.ByName(m.Name)
			if t == nil || t.Type == "list:set" {
				return nil, false
			}
			of, ok := x.inSet(t, dim, flags)
			if !ok {
				return nil, false
			}
			for _, e := range of {
				if m.Expires {
					e = append(e, rs.Opaque{Name: "member of set " + s.Name})
				}
				out = append(out, e)
			}
		}
		return out, true
	}
	dims := dimensions[s.Type]
	if s.Set == nil || len(s.Protos) > maxProtos {
		return nil, false
	}
	if int(dim) < len(dims) || s.Family != 0 && s.Family != x.family {
		return nil, true // ip_set_test: 0, whatever the packet
	}
	x.table.Sets[s.Set.Name] = s.Set
	protos := s.Protos
	ported := false
	for _, d := range dims {
		switch d {
		case dimNumber:
			protos, ported = []uint8{6, 17}, true
		case dimPort:
			ported = true
		}
	}
	if !ported {
		return [][]rs.Expr{x.setKey(s, dims, flags, 0)}, true
	}
	var out [][]rs.Expr
	for _, p := range protos {
		out = append(out, append([]rs.Expr{meta32(metaL4Proto), is([]byte{p}, false)}, x.setKey(s, dims, flags, p)...))
	}
	return out, true
}

// setKey loads the key for packets of a protocol and looks it up.
func (x *xtable) setKey(s *IPSet, dims []dimension, flags, proto uint8) []rs.Expr {
	var out []rs.Expr
	reg := rs.Reg(0)
	for k, d := range dims {
		src := flags>>(k+1)&1 != 0
		off := uint32(2)
		if src {
			off = 0
		}
		switch d {
		case dimIP, dimNet:
			load := x.addr(!src).(rs.Payload)
			load.Dreg = reg
			out = append(out, load)
			reg += rs.Reg(x.addrLen() / 4)
		case dimPort:
			out = append(out, rs.Immediate{Dreg: reg, Data: []byte{proto}})
			switch {
			case proto == 6 || proto == 17 || proto == 132 || proto == 136:
				out = append(out, rs.Payload{Dreg: reg + 1, Base: rs.TransportHeader, Offset: off, Len: 2, Checked: true})
			case proto == 1 && x.is4(), proto == 58 && !x.is4(): // type and code
				out = append(out, rs.Payload{Dreg: reg + 1, Base: rs.TransportHeader, Len: 2, Checked: true})
			default:
				if !x.is4() { // no fragments (ip_set_get_ip6_port)
					out = append(out, trans(0, 1))
				}
				out = append(out, rs.Immediate{Dreg: reg + 1, Data: []byte{0, 0}})
			}
			reg += 2
		case dimNumber:
			out = append(out, rs.Payload{Dreg: reg, Base: rs.TransportHeader, Offset: off, Len: 2, Checked: true})
			reg++
		case dimIface:
			key := uint32(metaOIFName)
			if src {
				key = metaIIFName
			}
			out = append(out, rs.Meta{Dreg: reg, Key: key}, rs.Cmp{Sreg: reg, Op: rs.Neq, Data: []byte{0}})
			reg += 4
		}
	}
	return append(out, rs.Lookup{Set: s.Set.Name, Sreg: 0})
}

// targetSet adds to and deletes from sets: from then on they are what packets make of them.
func targetSet(maps bool) lower {
	return func(x *xtable, i *blob) []rs.Expr {
		const none = 0xffff
		n := 2
		if maps {
			n = 3
		}
		var out []rs.Expr
		for k := range n {
			idx := i.u16(4 * k)
			if idx == none {
				continue
			}
			if k == 2 {
				out = append(out, unknown4)
				out = append(out, x.marked(true)...)
				continue
			}
			s := x.sets.index(idx)
			if s == nil {
				return nil
			}
			for _, t := range x.sets.leaves(s) {
				x.table.Sets[t.Set.Name] = t.Set
				t.Set.Dynamic = true
				out = append(out, rs.Dynset{Set: t.Set.Name, Op: uint32(2 * k)})
			}
		}
		return matched("SET", out)
	}
}

// leaves are the sets with elements that a name stands for.
func (s *IPSets) leaves(t *IPSet) []*IPSet {
	if t.Set != nil {
		return []*IPSet{t}
	}
	var out []*IPSet
	for _, m := range t.Members {
		if u := s.ByName(m.Name); u != nil && u.Set != nil {
			out = append(out, u)
		}
	}
	return out
}
