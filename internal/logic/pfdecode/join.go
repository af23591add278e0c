package pfdecode

import (
	"bytes"
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// join makes intervals out of the starts and ends that the kernel lists of an interval
// set, while they come in: it lists an rbtree from the last key to the first, so that
// what came before a start says where its interval ends. In any other order, and beside
// a catch-all element, the elements are kept as they come, and finishSet sorts them.
type join struct {
	seen  [][]byte // the lists of elements so far, to read again
	off   bool
	last  []byte // the key before, nil at first
	ended bool   // that was an end
	chunk []byte // where the ends are written: an object each would cost more than they do
}

// joining tells whether a set is an interval set whose elements have no ends of their own.
func joining(s *rs.Set) bool { return s.Interval && len(s.Concat) < 2 }

// add takes an element, and returns false when its order is another one.
func (j *join) add(s *rs.Set, e rs.Element) bool {
	end := e.Verdict == markerEnd
	if e.CatchAll || len(e.From) == 0 {
		return false
	}
	if j.last != nil {
		// An end at the key where the next interval starts comes after it.
		if c := bytes.Compare(e.From, j.last); len(e.From) != len(j.last) || c > 0 || c == 0 && (!end || j.ended) {
			return false
		}
	}
	last := j.last
	j.last, j.ended = e.From, end
	if end {
		return true
	}
	if e.To == nil {
		e.To = j.take(len(e.From))
		if last == nil {
			for i := range e.To {
				e.To[i] = 0xff
			}
		} else {
			copy(e.To, last)
			decrement(e.To)
		}
	}
	s.Elements = append(s.Elements, e)
	return true
}

func (j *join) take(n int) []byte {
	if len(j.chunk) < n {
		// As many as there may be in a list, so that small sets stay small.
		j.chunk = make([]byte, max(n, min(64<<10, len(j.seen[len(j.seen)-1])/2)))
	}
	b := j.chunk[:n:n]
	j.chunk = j.chunk[n:]
	return b
}

// minElement is the least length of an element that has a key, in bytes.
const minElement = 8

// room makes room for the elements that follow: a list of a million that grows as it is
// read takes its memory twice.
func (d *decoder) room(msgs [][]byte) {
	count := map[*rs.Set]int{}
	for _, m := range msgs {
		if len(m) < 4 {
			continue
		}
		a, err := parse(m[4:], d.order)
		if err == nil {
			if t := d.tables[tableKey{rs.Family(m[0]), a.str(1)}]; t != nil {
				if s := t.Sets[a.str(2)]; s != nil {
					n := 0
					_ = walk(a[3], d.order, func(_ uint16, v []byte) { // its error comes again
						if len(v) >= minElement {
							n++
						}
					})
					count[s] += n
				}
			}
		}
		a.free()
	}
	for s, n := range count {
		if joining(s) {
			n = n/2 + 1 // every second one is an end
		}
		s.Elements = make([]rs.Element, 0, n)
	}
}

// elementsOf reads a list of elements.
func (d *decoder) elementsOf(s *rs.Set, list []byte) error {
	if !joining(s) {
		return d.elementList(s, list, nil)
	}
	j := d.joins[s]
	if j == nil {
		j = &join{}
		if d.joins == nil {
			d.joins = map[*rs.Set]*join{}
		}
		d.joins[s] = j
	}
	if j.off {
		return d.elementList(s, list, nil)
	}
	j.seen = append(j.seen, list)
	if err := d.elementList(s, list, j); err != nil || !j.off {
		return err
	}
	s.Elements = s.Elements[:0]
	for _, l := range j.seen {
		if err := d.elementList(s, l, nil); err != nil {
			return err
		}
	}
	j.seen = nil
	return nil
}

// elementList reads NFTA_SET_ELEM_LIST_ELEMENTS.
func (d *decoder) elementList(s *rs.Set, list []byte, j *join) error {
	var bad error
	err := walk(list, d.order, func(_ uint16, v []byte) {
		if j != nil && j.off {
			return
		}
		e, err := d.element(v)
		switch {
		case err != nil:
			bad = firstErr(bad, err)
		case j == nil:
			s.Elements = append(s.Elements, e)
		default:
			j.off = !j.add(s, e)
		}
	})
	return firstErr(err, bad)
}

// joined tells whether the elements of a set are intervals already, and sorts them.
func (d *decoder) joined(s *rs.Set) bool {
	j := d.joins[s]
	if j == nil || j.off {
		return false
	}
	slices.Reverse(s.Elements)
	return true
}
