package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/reach"
)

// What is written in pieces is the document, whatever its lists share and its strings say.
func TestWriteDocument(t *testing.T) {
	var long, other []netip.Prefix
	for i := range 3000 {
		long = append(long, netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/48", i)))
		other = append(other, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)))
	}
	v := func(must, may []netip.Prefix) reach.V {
		return reach.V{Interfaces: []string{`[""]`, `"must":[""]`}, Daddr: append([]netip.Prefix{{}}, long[:9]...), Must: must, May: may, Sources: `[""] & <all>`, Assumes: []string{"[\"\"]"}}
	}
	d := reach.Document{
		SchemaVersion: reach.DocumentVersion,
		Listeners: []reach.Listener{
			{NetNS: `[""]`, IPv4: []reach.V{v(other, other), v(nil, other[:20])}, IPv6: []reach.V{v(long, long), v([]netip.Prefix{}, long[:3])}},
			{Process: "[\"\"]\n", IPv4: []reach.V{{Daddr: []netip.Prefix{{}}, Must: long[:8]}}, IPv6: []reach.V{}},
			{IPv6: []reach.V{v(long[:8], long), v(long[:7], long[1:])}},
		},
		Flows: []reach.Flow{{Target: `[""]`, IPv4: []reach.V{v(other[:100], other[:101])}, IPv6: []reach.V{v(long, nil)}}},
		Lint:  []reach.Lint{{Message: `"may":[""]`}},
		Gaps:  []reach.DocumentGap{{What: `[""]`}},
	}
	want, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := writeDocument(&got, &d); err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := json.Unmarshal(want, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got.Bytes(), &b); err != nil {
		t.Fatalf("%v\n%.400s", err, got.Bytes())
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("what is written is another document:\n%.600s\nwant\n%.600s", got.Bytes(), want)
	}
	if d.Listeners[0].IPv4[0].Must[0] != other[0] {
		t.Error("writing changed the document")
	}
}
