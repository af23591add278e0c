package pfdecode

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// attrs are the attributes of one message or nest, by type; the last one of a
// type counts, as in the kernel's nla_parse.
type attrs [][]byte

// maxAttr is above every attribute type that is read here.
const maxAttr = 32

// spare are lists of attributes that were given back: every nest of every rule and
// element needs one for a moment.
var spare = sync.Pool{New: func() any { return new([maxAttr][]byte) }}

func newAttrs() attrs {
	p := spare.Get().(*[maxAttr][]byte)
	clear(p[:])
	return p[:]
}

// free gives a list back that nobody uses any more; the values live on.
func (a attrs) free() {
	if len(a) == maxAttr {
		spare.Put((*[maxAttr][]byte)(a))
	}
}

func parse(b []byte, order binary.ByteOrder) (attrs, error) {
	out := newAttrs()
	err := walk(b, order, func(t uint16, v []byte) {
		if t < maxAttr {
			out[t] = v
		}
	})
	return out, err
}

func (a attrs) has(t uint16) bool { return a[t] != nil }

func (a attrs) str(t uint16) string { return cstring(a[t]) }

// u32 reads a big-endian number; missing is 0, another length an error.
func (a attrs) u32(t uint16) (uint32, error) {
	v := a[t]
	if v == nil {
		return 0, nil
	}
	if len(v) != 4 {
		return 0, fmt.Errorf("attribute %d of %d bytes, want 4", t, len(v))
	}
	return binary.BigEndian.Uint32(v), nil
}

func (a attrs) u64(t uint16) uint64 { return be64(a[t]) }

// be64 reads a big-endian number of 8 bytes; anything else is 0.
func be64(v []byte) uint64 {
	if len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (a attrs) u8(t uint16) (uint8, error) {
	v := a[t]
	if v == nil {
		return 0, nil
	}
	if len(v) != 1 {
		return 0, fmt.Errorf("attribute %d of %d bytes, want 1", t, len(v))
	}
	return v[0], nil
}

// reader collects the first error of many reads, so that a decoder reads like a table.
type reader struct {
	a   attrs
	err error
}

func (r *reader) u32(t uint16) uint32 {
	v, err := r.a.u32(t)
	if err != nil && r.err == nil {
		r.err = err
	}
	return v
}

func (r *reader) u8(t uint16) uint8 {
	v, err := r.a.u8(t)
	if err != nil && r.err == nil {
		r.err = err
	}
	return v
}

// keeper copies the few bytes of a message that stay, so that the message itself need not.
type keeper struct {
	chunk []byte
	size  int
}

// Chunks grow as more is kept.
const minChunk, maxChunk = 256, 64 << 10

func (k *keeper) keep(b []byte) []byte {
	if b == nil {
		return nil
	}
	n := len(b)
	if len(k.chunk) < n {
		k.size = min(max(minChunk, 2*k.size), maxChunk)
		k.chunk = make([]byte, max(n, k.size))
	}
	out := k.chunk[:n:n]
	k.chunk = k.chunk[n:]
	copy(out, b)
	return out
}
