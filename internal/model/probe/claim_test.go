package probe

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// seen is an honest claim with everything in it, and its errand.
func seen(t testing.TB) (Errand, []byte, []*Address) {
	t.Helper()
	six, four := netip.MustParseAddr("fe80::2%eth0"), netip.MustParseAddr("192.0.2.2")
	var s Spec
	for _, w := range []string{"tcp/20-30", "udp/53", "echo"} {
		if err := s.Parse(w); err != nil {
			t.Fatal(err)
		}
	}
	e := NewErrand([]netip.Addr{six, four}, &s, []Variant{Plain, HopByHop})
	e.Path = true
	e.Soak = time.Minute
	e.Chains = []Variant{DestOpts, Fragments}
	e.Trace, e.Hops = true, map[string]string{"tcp": "22"}
	var as []*Address
	for _, a := range e.Addresses {
		x := &Address{Addr: a, Life: Answered, Sent: 30, Controls: 4, Lost: 1, Complete: true, Notes: []string{"a note"}, Vantage: Vantage{Interface: "eth0", OnLink: true}}
		for _, p := range protocols {
			for _, v := range e.Variants {
				if !asks(&s, a, p, v) {
					continue
				}
				tb := &Table{Proto: p, Variant: v, Want: *s.Of(p)}
				for port := range tb.Want.All {
					tb.Put(port, Reason{State: Closed, Why: "rst"})
				}
				x.Tables = append(x.Tables, tb)
			}
		}
		x.Path = &Path{Verdict: PathHole, LinkMTU: 1500, MTU: 1400, Hop: a.WithZone(""), HopMTU: 1450, Way: "back"}
		after := 130.5
		x.Soak = &Soak{Verdict: SoakLost, Seconds: 270, Group: Asked{9, 4}, Direct: Asked{2, 2}, LostAfter: &after, MAC: "52:54:00:00:00:01", Querier: netip.MustParseAddr("fe80::1"), QuerierVersion: 2, Queries: 3, Interval: 260}
		x.Tables[0].Put(22, Reason{State: Rejected, Why: "icmp", ICMP: true, ICMPType: 1, ICMPCode: 4, From: a.WithZone("")})
		x.Chains = []Chained{{
			Chain: Fragments, Proto: "tcp", Ports: "20-25", Fate: FateLess, Plain: Closed, Reason: Reason{State: Filtered, Why: "silence"},
			Eaten: &Eaten{Hop: 7, Last: a.WithZone(""), Next: a.WithZone(""), Target: true},
		}}
		x.Traces = []Trace{{Proto: "tcp", Port: 22, State: Closed, Hops: []Hop{{Hop: 1, From: a.WithZone("")}, {Hop: 2}}, Reached: 3}}
		as = append(as, x)
	}
	b, err := json.Marshal(NewClaim(as, true))
	if err != nil {
		t.Fatal(err)
	}
	return e, b, as
}

func TestClaimIsReadBack(t *testing.T) {
	t.Parallel()
	e, b, want := seen(t)
	wire, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeErrand(wire)
	if err != nil {
		t.Fatal(err)
	}
	as, raw, err := DecodeClaim(b, got)
	if err != nil || !raw || len(as) != len(want) {
		t.Fatalf("%v %v %d\n%s", err, raw, len(as), b)
	}
	for i, a := range as {
		if a.Addr != want[i].Addr || a.Vantage != want[i].Vantage || *a.Path != *want[i].Path || !reflect.DeepEqual(a.Soak, want[i].Soak) || a.Life != Answered || !a.Complete || len(a.Tables) != len(want[i].Tables) {
			t.Errorf("%+v", a)
		}
		if len(a.Chains) != 1 || *a.Chains[0].Eaten != *want[i].Chains[0].Eaten || a.Chains[0].Ports != "20-25" {
			t.Errorf("%+v", a.Chains)
		}
		if len(a.Traces) != 1 || len(a.Traces[0].Hops) != 2 || a.Traces[0].Reached != 3 {
			t.Errorf("%+v", a.Traces)
		}
		for k, tb := range a.Tables {
			for p := range tb.Want.All {
				if tb.At(p) != want[i].Tables[k].At(p) {
					t.Errorf("%s %s/%d: %+v", a.Addr, tb.Proto, p, tb.At(p))
				}
			}
		}
	}
	if most, err := got.Limit(); err != nil || len(b) > most {
		t.Errorf("%d bytes, and at most %d (%v) are read", len(b), most, err)
	}
}

// TestClaimsThatAreRefused: each is an honest claim with one thing changed.
func TestClaimsThatAreRefused(t *testing.T) {
	t.Parallel()
	e, b, _ := seen(t)
	for name, c := range map[string]struct{ old, new, want string }{
		"another target":     {`"address":"192.0.2.2"`, `"address":"192.0.2.3"`, "was asked for"},
		"another zone":       {`"address":"fe80::2%eth0"`, `"address":"fe80::2%eth1"`, "was asked for"},
		"no address":         {`"address":"192.0.2.2",`, ``, "was asked for"},
		"a port not asked":   {`"ports":"20-21`, `"ports":"19-21`, "tcp/19 was not asked for"},
		"a port twice":       {`"ports":"22"`, `"ports":"22-23"`, "twice"},
		"a port is missing":  {`"ports":"20-21,`, `"ports":"20,`, "complete"},
		"ports backwards":    {`"ports":"20-21,23-30"`, `"ports":"23-30,20-21"`, "no range of ports"},
		"too many ranges":    {`"ports":"53"`, `"ports":"53` + strings.Repeat(",53", 100000) + `"`, "no range of ports"},
		"another protocol":   {`"proto":"udp"`, `"proto":"sctp"`, "was not asked for"},
		"another family":     {`"proto":"icmpv6"`, `"proto":"icmp"`, "was not asked for"},
		"another variant":    {`"variant":"hop"`, `"variant":"dst"`, "was not asked for"},
		"a table twice":      {`"proto":"tcp","variant":"hop"`, `"proto":"tcp"`, "twice"},
		"another state":      {`"state":"rejected"`, `"state":"\u001b[2J"`, "no state"},
		"another reason":     {`"why":"icmp"`, `"why":"\u001b]0;x\u0007"`, "no reason"},
		"another life":       {`"life":"answered"`, `"life":"yes"`, "sign of life"},
		"a zone that paints": {`"complete":true`, `"source":"fe80::1%\u001b[2J","complete":true`, "source"},
		"a gateway's zone":   {`"complete":true`, `"gateway":"fe80::1%\u001b[2J","complete":true`, "gateway"},
		"a sender's zone":    {`"from":"fe80::2"`, `"from":"fe80::2%\u001b[2J"`, "sender"},
		"a sender of IPv4":   {`"from":"fe80::2"`, `"from":"192.0.2.2"`, "sender"},
		"more lost":          {`"lost":1`, `"lost":5`, "lost"},
		"less than nothing":  {`"sent":30`, `"sent":-1`, "packets"},
		"a huge number":      {`"sent":30`, `"sent":4611686018427387904`, "packets"},
		"no number":          {`"sent":30`, `"sent":1e999`, "JSON"},
		"a long name":        {`"interface":"eth0"`, `"interface":"` + strings.Repeat("x", 65) + `"`, "too long"},
		"a long note":        {`"a note"`, `"` + strings.Repeat("x", 1001) + `"`, "too long"},
		"many notes":         {`"a note"`, `"a note"` + strings.Repeat(`,""`, 32), "more than 32"},
		"an unknown key":     {`"lost":1`, `"lost":1,"exec":"x"`, "unknown field"},
		"another version":    {`"schemaVersion":"1.0"`, `"schemaVersion":"2.0"`, "schemaVersion"},
		"many states":        {`"states":[`, `"states":[` + strings.Repeat(`{},`, 300), "no state"},
		"not a list":         {`"notes":["a note"]`, `"notes":{}`, "not a list"},
		"a soak's verdict":   {`"verdict":"lost"`, `"verdict":"\u001b[2J"`, "no verdict"},
		"a MAC that paints":  {`"mac":"52:54`, `"mac":"\u001b[2J`, "MAC"},
		"a querier's zone":   {`"querier":"fe80::1"`, `"querier":"fe80::1%\u001b[2J"`, "querier"},
		"a long soak":        {`"seconds":270`, `"seconds":1e300`, "time"},
		"a negative time":    {`"lostAfter":130.5`, `"lostAfter":-1`, "time"},
		"many queries":       {`"queries":3`, `"queries":-3`, "number"},
		"another verdict":    {`"verdict":"blackhole"`, `"verdict":"\u001b[2J"`, "no verdict"},
		"another way":        {`"way":"back"`, `"way":"\u001b[2J"`, "no way"},
		"a huge size":        {`"mtu":1400`, `"mtu":999999999`, "size"},
		"a negative size":    {`"hopMTU":1450`, `"hopMTU":-1`, "size"},
		"a hop's zone":       {`"hop":"fe80::2"`, `"hop":"fe80::2%\u001b[2J"`, "router"},
		"a hop of IPv4":      {`"hop":"fe80::2"`, `"hop":"192.0.2.2"`, "router"},
		"another chain":      {`"chain":"frag"`, `"chain":"rh0"`, "was not asked for"},
		"another fate":       {`"fate":"less"`, `"fate":"\u001b[2J"`, "no fate"},
		"a chain's ports":    {`"ports":"20-25"`, `"ports":"19-25"`, "tcp/19 was not asked for"},
		"a chain's state":    {`"plain":"closed"`, `"plain":"shut"`, "no state"},
		"a place too far":    {`"hop":7`, `"hop":700`, "cannot be"},
		"a place's zone":     {`"last":"fe80::2"`, `"last":"fe80::2%x"`, "cannot be"},
		"many chains":        {`"chains":[`, `"chains":[` + strings.Repeat(`{},`, 5000), "was not asked for"},
		"another way there":  {`"port":22`, `"port":19`, "was not asked for"},
		"hops out of order":  {`{"hop":2}`, `{"hop":3}`, "cannot be"},
		"many hops":          {`{"hop":2}`, `{"hop":2}` + strings.Repeat(`,{}`, 64), "cannot be"},
		"a target too far":   {`"reached":3`, `"reached":300`, "cannot be"},
		"many ways":          {`"traces":[`, `"traces":[` + strings.Repeat(`{},`, 9), "was not asked for"},
		"something follows":  {`"raw":true,`, `"raw":true}{`, "something follows"},
	} {
		x := bytes.Replace(b, []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(x, b) {
			t.Errorf("%s: %s is not in it:\n%s", name, c.old, b)
			continue
		}
		if _, _, err := DecodePart(x, &e); err == nil {
			t.Errorf("%s: as a part it is taken", name)
		}
		if _, _, err := DecodeClaim(x, &e); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", name, err, c.want)
		} else if len(err.Error()) > 400 {
			t.Errorf("%s: %d bytes of error", name, len(err.Error()))
		}
	}
	// What was not asked for is not looked at.
	e.Path = false
	e.Soak = 0
	if _, _, err := DecodeClaim(b, &e); err == nil || !strings.Contains(err.Error(), "was not asked for") {
		t.Errorf("a path that nobody asked for: %v", err)
	}
	if _, _, err := DecodeClaim([]byte(`{"schemaVersion":"1.0","addresses":[]}`), &e); err == nil || !strings.Contains(err.Error(), "nothing about") {
		t.Errorf("an empty claim: %v", err)
	}
}

func TestErrandsThatAreRefused(t *testing.T) {
	t.Parallel()
	e, _, _ := seen(t)
	good, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, new string }{
		"no address":      {`["fe80::2%eth0","192.0.2.2"]`, `[]`},
		"65 addresses":    {`["fe80::2%eth0"`, `["::1"` + strings.Repeat(`,"::1"`, 64)},
		"another variant": {`"hop"`, `"hip"`},
		"another chain":   {`"dst"`, `"dist"`},
		"a chain twice":   {`["dst","frag"]`, `["frag","frag"]`},
		"a rate":          {`"rate":0`, `"rate":-1`},
		"another version": {`"1.0"`, `"3.0"`},
	} {
		x := bytes.Replace(good, []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(x, good) {
			t.Errorf("%s: %s is not in it: %s", name, c.old, good)
		}
		if _, err := DecodeErrand(x); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// TestPartsAreRead: some of the addresses, in any order, each once.
func TestPartsAreRead(t *testing.T) {
	t.Parallel()
	e, _, as := seen(t)
	part := func(as ...*Address) []byte {
		b, err := json.Marshal(NewClaim(as, false))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, some := range [][]*Address{{}, {as[1]}, {as[1], as[0]}} {
		got, raw, err := DecodePart(part(some...), &e)
		if err != nil || raw || len(got) != len(some) {
			t.Fatalf("%v %v %d", err, raw, len(got))
		}
		for i := range got {
			if got[i].Addr != some[i].Addr {
				t.Errorf("%s in place of %s", got[i].Addr, some[i].Addr)
			}
		}
	}
	if _, _, err := DecodePart(part(as[0], as[0]), &e); err == nil {
		t.Error("one address stands there twice")
	}
}

// TestSavedIsKeptForEachVantage: what one host has claimed is not told to another.
func TestSavedIsKeptForEachVantage(t *testing.T) {
	t.Parallel()
	_, _, as := seen(t)
	six, four := as[0].Addr, as[1].Addr
	s := Saved{SchemaVersion: SavedVersion}
	for _, via := range []string{"", "ssh://a", "ssh://a", "ssh://b"} {
		for _, a := range Save(as).Addresses {
			a.Via = via
			s.Put(a)
		}
	}
	if len(s.Addresses) != 6 || s.Check() != nil {
		t.Fatalf("%d addresses, %v", len(s.Addresses), s.Check())
	}
	if x := s.Claimed("ssh://a", []netip.Addr{four}); len(x) != 1 || x[0].Address != four || x[0].Via != "" {
		t.Errorf("%+v", x)
	}
	if x := s.Claimed("ssh://c", []netip.Addr{four, six}); x != nil {
		t.Errorf("%+v", x)
	}
	s.Addresses = s.Addresses[2:] // what was seen from here
	if x, err := s.Of(four, as[1].Vantage.Source); err != nil || x != nil {
		t.Errorf("a claim is taken for what was seen from here: %v", x)
	}
}

// FuzzClaim: whoever is at the other end may send anything.
func FuzzClaim(f *testing.F) {
	e, b, _ := seen(f)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if some, _, err := DecodePart(b, &e); err == nil {
			for _, a := range some {
				if !slices.Contains(e.Addresses, a.Addr) {
					t.Fatalf("%s was not asked for", a.Addr)
				}
			}
		}
		as, _, err := DecodeClaim(b, &e)
		if err != nil {
			return
		}
		if len(as) != len(e.Addresses) {
			t.Fatalf("%d addresses", len(as))
		}
		for i, a := range as {
			if a.Addr != e.Addresses[i] {
				t.Fatalf("%s in place of %s", a.Addr, e.Addresses[i])
			}
		}
	})
}
