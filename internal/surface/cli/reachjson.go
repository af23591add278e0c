package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/reach"
)

// writeDocument writes one entry a line: with long lists of sources the document is too
// large to be laid out, or held, as a whole.
func writeDocument(w io.Writer, d *reach.Document) error {
	b := bufio.NewWriterSize(w, 1<<16)
	fmt.Fprintf(b, "{\"schemaVersion\":%q", d.SchemaVersion)
	var p prefixTexts
	for _, err := range []error{
		writeList(b, &p, "listeners", d.Listeners, func(l *reach.Listener) { l.IPv4, l.IPv6 = p.leaveOut(l.IPv4), p.leaveOut(l.IPv6) }),
		writeList(b, &p, "flows", d.Flows, func(f *reach.Flow) { f.IPv4, f.IPv6 = p.leaveOut(f.IPv4), p.leaveOut(f.IPv6) }),
		writeList(b, &p, "lint", d.Lint, func(*reach.Lint) {}),
		writeList(b, &p, "gaps", d.Gaps, func(*reach.DocumentGap) {}),
	} {
		if err != nil {
			return err
		}
	}
	fmt.Fprintln(b, "}")
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write document: %w", err)
	}
	return nil
}

// writeList writes a list; shorten leaves out of a copy of an entry what p puts back.
func writeList[T any](b *bufio.Writer, p *prefixTexts, name string, list []T, shorten func(*T)) error {
	fmt.Fprintf(b, ",\n%q:[", name)
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	for i := range list {
		sep := ","
		if i == 0 {
			sep = "\n"
		}
		_, _ = b.WriteString(sep) // Flush has the error
		x := list[i]
		p.left = p.left[:0]
		shorten(&x)
		line.Reset()
		if err := e.Encode(&x); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		p.putBack(b, line.Bytes())
	}
	_, _ = b.WriteString("]")
	return nil
}

// prefixTexts writes lists of prefixes, of which most come again: ports that the rules
// treat alike have one list, which may be as long as the ruleset.
type prefixTexts struct {
	left []leftList // out of one entry, in order
	text map[listKey][]byte
	held int
}

type leftList struct {
	key  string
	list []netip.Prefix
}

type listKey struct {
	first *netip.Prefix
	n     int
}

// maxTexts bounds the texts that are kept, in bytes; shortList is the length of a list
// that is not worth it.
const (
	maxTexts  = 4 << 20
	shortList = 8
)

// leftOut stands for a list that was left out: no source is the prefix that is none.
// Within a string its quotes would be escaped.
var leftOut = []netip.Prefix{{}}

const leftOutText = `[""]`

// leaveOut returns a copy of vs without its long lists.
func (p *prefixTexts) leaveOut(vs []reach.V) []reach.V {
	vs = slices.Clone(vs)
	for i := range vs {
		for _, x := range []struct {
			key  string
			list *[]netip.Prefix
		}{{`"must":`, &vs[i].Must}, {`"may":`, &vs[i].May}} {
			if len(*x.list) >= shortList {
				p.left = append(p.left, leftList{x.key, *x.list})
				*x.list = leftOut
			}
		}
	}
	return vs
}

// putBack writes an entry with the lists that were left out.
func (p *prefixTexts) putBack(b *bufio.Writer, line []byte) {
	for _, x := range p.left {
		before, after, _ := bytes.Cut(line, []byte(x.key+leftOutText))
		_, _ = b.Write(before)
		_, _ = b.WriteString(x.key)
		_, _ = b.Write(p.of(x.list))
		line = after
	}
	_, _ = b.Write(line)
}

func (p *prefixTexts) of(list []netip.Prefix) []byte {
	k := listKey{&list[0], len(list)}
	if t, ok := p.text[k]; ok {
		return t
	}
	t := make([]byte, 0, 24*len(list))
	for i, x := range list {
		t = append(t, '[', '"')
		if i > 0 {
			t[len(t)-2] = ','
		}
		t = append(x.AppendTo(t), '"')
	}
	t = append(t, ']')
	if p.held += len(t); p.held > maxTexts || p.text == nil {
		p.text, p.held = map[listKey][]byte{}, len(t)
	}
	p.text[k] = t
	return t
}
