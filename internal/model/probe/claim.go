package probe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Errand is what another host is asked to look at. It names addresses and ports, and not
// what is expected of them.
type Errand struct {
	SchemaVersion string            `json:"schemaVersion"`
	Addresses     []netip.Addr      `json:"addresses"`
	Ports         map[string]string `json:"ports"` // by protocol, as Ports.List writes them
	Variants      []Variant         `json:"variants"`
	Chains        []Variant         `json:"chains,omitempty"`
	Trace         bool              `json:"trace,omitempty"` // hop by hop, to Hops or to ports that it chooses
	Hops          map[string]string `json:"hops,omitempty"`
	Connect       bool              `json:"connect"`
	Together      bool              `json:"together"` // all addresses are of one host
	Rate          int               `json:"rate"`
	Patience      time.Duration     `json:"patience"`
	Path          bool              `json:"path"` // path-MTU discovery is looked at, too
	// Soak is how long it is watched whether neighbours still find the addresses.
	Soak time.Duration `json:"soak,omitempty"`
	// Known is what that host has claimed in an earlier run: it is not asked again.
	Known []SavedAddress `json:"known,omitempty"`
}

// ClaimVersion is the version of Errand and of Claim.
const ClaimVersion = "1.0"

// Bounds of an errand and of a claim.
const (
	maxAddresses = 64
	maxRuns      = 256
	maxNotes     = 32
	maxNote      = 1000
	maxName      = 64
	maxCount     = 1 << 40
)

// protocols are those of a Spec.
var protocols = []string{"tcp", "udp", "icmp", "icmpv6"}

// NewErrand asks for ports of addresses.
func NewErrand(addrs []netip.Addr, s *Spec, vs []Variant) Errand {
	e := Errand{SchemaVersion: ClaimVersion, Addresses: addrs, Ports: map[string]string{}, Variants: vs}
	for _, p := range protocols {
		if set := s.Of(p); set.Len() > 0 {
			e.Ports[p] = set.List()
		}
	}
	return e
}

// Spec is which ports the errand asks for.
func (e *Errand) Spec() (*Spec, error) {
	s := &Spec{}
	for proto, list := range e.Ports {
		if !slices.Contains(protocols, proto) {
			return nil, fmt.Errorf("%q is no protocol", proto)
		}
		if err := s.Of(proto).addAscending(list); err != nil {
			return nil, fmt.Errorf("ports of %s: %w", proto, err)
		}
	}
	return s, nil
}

// Traced are the ports that the way is traced to; empty: the other host chooses; nil: none.
func (e *Errand) Traced() (*Spec, error) {
	if !e.Trace {
		return nil, nil
	}
	return (&Errand{Ports: e.Hops}).Spec()
}

// DecodeErrand reads an errand.
func DecodeErrand(b []byte) (*Errand, error) {
	var e Errand
	if err := strict(b, &e); err != nil {
		return nil, err
	}
	switch {
	case e.SchemaVersion != ClaimVersion:
		return nil, fmt.Errorf("schemaVersion is %.40q, not %q", e.SchemaVersion, ClaimVersion)
	case len(e.Addresses) == 0 || len(e.Addresses) > maxAddresses:
		return nil, fmt.Errorf("%d addresses, not 1 to %d", len(e.Addresses), maxAddresses)
	case len(e.Known) > maxAddresses:
		return nil, fmt.Errorf("%d addresses are said to be known", len(e.Known))
	case e.Rate < 0 || e.Patience < 0 || e.Soak < 0:
		return nil, errors.New("a rate or a time is less than nothing")
	}
	for _, v := range e.Variants {
		if !slices.Contains(Variants(), v) {
			return nil, fmt.Errorf("%.40q is no variant", v)
		}
	}
	for i, c := range e.Chains {
		if _, ok := ChainOf(c); !ok || slices.Contains(e.Chains[:i], c) {
			return nil, fmt.Errorf("%.40q is no chain", c)
		}
	}
	return &e, nil
}

// Limit is how many bytes an honest answer to the errand can have.
func (e *Errand) Limit() (int, error) {
	s, err := e.Spec()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range protocols {
		n += (64<<10+8*s.Of(p).Len())*max(1, len(e.Variants)) + chainedBytes*len(e.Chains)
	}
	return 64<<10 + n*len(e.Addresses), nil
}

// Claim is what another host says that it saw. Nothing in it is known to be true.
type Claim struct {
	SchemaVersion string         `json:"schemaVersion"`
	Raw           bool           `json:"raw"` // bare packets were sent
	Addresses     []ClaimAddress `json:"addresses"`
}

// ClaimAddress is what is claimed about one address.
type ClaimAddress struct {
	Address   netip.Addr   `json:"address"`
	Source    netip.Addr   `json:"source,omitzero"`
	Interface string       `json:"interface,omitempty"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	Self      bool         `json:"self,omitempty"`
	OnLink    bool         `json:"onLink,omitempty"`
	Near      bool         `json:"near,omitempty"`
	Life      Life         `json:"life,omitempty"`
	Problem   string       `json:"problem,omitempty"`
	Sent      int          `json:"sent"`
	Controls  int          `json:"controls"`
	Lost      int          `json:"lost"`
	Complete  bool         `json:"complete"`
	Path      *Path        `json:"path,omitempty"`
	Soak      *Soak        `json:"soak,omitempty"`
	Notes     []string     `json:"notes"`
	Tables    []SavedTable `json:"tables"`
	Chains    []Chained    `json:"chains,omitempty"`
	Traces    []Trace      `json:"traces,omitempty"`
}

// NewClaim writes down what was seen.
func NewClaim(as []*Address, raw bool) Claim {
	c := Claim{SchemaVersion: ClaimVersion, Raw: raw, Addresses: []ClaimAddress{}}
	for i, s := range Save(as).Addresses {
		a := as[i]
		v := a.Vantage
		c.Addresses = append(c.Addresses, ClaimAddress{
			Address: a.Addr, Source: v.Source, Interface: v.Interface, Gateway: v.Gateway, Self: v.Self, OnLink: v.OnLink, Near: v.Near, Life: a.Life, Problem: a.Problem,
			Sent: a.Sent, Controls: a.Controls, Lost: a.Lost, Complete: a.Complete, Path: a.Path, Soak: a.Soak, Notes: a.Notes, Tables: s.Tables,
			Chains: a.Chains, Traces: a.Traces,
		})
	}
	return c
}

// DecodeClaim reads the answer to an errand. A claim may be anybody's: it is taken as a
// whole or not at all, it speaks of what was asked and of nothing else, and whatever it
// holds, reading it takes no more time and memory than its size asks for.
func DecodeClaim(b []byte, e *Errand) (_ []*Address, raw bool, err error) {
	return decodeClaim(b, e, true)
}

// DecodePart is DecodeClaim for what is known of some of the addresses while the other host
// still looks.
func DecodePart(b []byte, e *Errand) (_ []*Address, raw bool, err error) {
	return decodeClaim(b, e, false)
}

func decodeClaim(b []byte, e *Errand, whole bool) (_ []*Address, raw bool, err error) {
	spec, err := e.Spec()
	if err != nil {
		return nil, false, err
	}
	// The lists first, and how long they are; then what is in them.
	var c struct {
		SchemaVersion string          `json:"schemaVersion"`
		Raw           bool            `json:"raw"`
		Addresses     json.RawMessage `json:"addresses"`
	}
	if err := strict(b, &c); err != nil {
		return nil, false, err
	}
	if c.SchemaVersion != ClaimVersion {
		return nil, false, fmt.Errorf("schemaVersion is %.40q, not %q", c.SchemaVersion, ClaimVersion)
	}
	var out []*Address
	left := slices.Clone(e.Addresses) // those that may be next
	err = list(c.Addresses, len(left), func(b json.RawMessage) error {
		next := left
		if whole {
			next = left[:1]
		}
		a, err := claimed(b, e, spec, next)
		if err != nil {
			return err
		}
		i := slices.Index(left, a.Addr)
		left = slices.Delete(left, i, i+1)
		out = append(out, a)
		return nil
	})
	if err == nil && whole && len(left) > 0 {
		err = fmt.Errorf("nothing about %s", left[0])
	}
	if err != nil {
		return nil, false, err
	}
	return out, c.Raw, nil
}

// claimed reads what is said about one address, and whether it is about one of those that
// were asked for.
func claimed(b json.RawMessage, e *Errand, spec *Spec, ofThese []netip.Addr) (*Address, error) {
	var c struct {
		ClaimAddress
		Path   json.RawMessage `json:"path"`
		Soak   json.RawMessage `json:"soak"`
		Notes  json.RawMessage `json:"notes"`
		Tables json.RawMessage `json:"tables"`
		Chains json.RawMessage `json:"chains"`
		Traces json.RawMessage `json:"traces"`
	}
	if err := strict(b, &c); err != nil {
		return nil, err
	}
	if !slices.Contains(ofThese, c.Address) {
		return nil, fmt.Errorf("it is about %.80q, and %s was asked for", c.Address, ofThese[0])
	}
	asked := c.Address
	fail := func(f string, a ...any) (*Address, error) {
		return nil, fmt.Errorf("%s: "+f, append([]any{asked}, a...)...)
	}
	switch {
	case c.Source.IsValid() && (c.Source.BitLen() != asked.BitLen() || c.Source.Zone() != "" && c.Source.Zone() != asked.Zone()):
		return fail("a source that cannot be: %.80q", c.Source)
	case c.Gateway.Zone() != "":
		return fail("a gateway that cannot be: %.80q", c.Gateway)
	case len(c.Interface) > maxName || len(c.Problem) > maxNote:
		return fail("a text that is too long")
	case !slices.Contains([]Life{Answered, Neighbour, Elsewhere, NoLife}, c.Life):
		return fail("%.40q is no sign of life", c.Life)
	}
	for _, n := range []int{c.Sent, c.Controls, c.Lost} {
		if n < 0 || n > maxCount {
			return fail("a number of packets that cannot be: %d", n)
		}
	}
	if c.Lost > c.Controls {
		return fail("%d controls lost, and %d were sent", c.Lost, c.Controls)
	}
	out := &Address{
		Addr: asked, Life: c.Life, Problem: c.Problem, Sent: c.Sent, Controls: c.Controls, Lost: c.Lost, Complete: c.Complete,
		Vantage: Vantage{Source: c.Source, Interface: c.Interface, Gateway: c.Gateway, Self: c.Self, OnLink: c.OnLink, Near: c.Near},
	}
	if len(c.Path) > 0 && string(c.Path) != "null" {
		if !e.Path {
			return fail("path-MTU discovery was not asked for")
		}
		out.Path = &Path{}
		if err := strict(c.Path, out.Path); err != nil {
			return fail("%w", err)
		}
		if err := out.Path.plausible(asked); err != nil {
			return fail("path-MTU discovery: %w", err)
		}
	}
	if len(c.Soak) > 0 && string(c.Soak) != "null" {
		if e.Soak == 0 {
			return fail("a soak was not asked for")
		}
		out.Soak = &Soak{}
		if err := strict(c.Soak, out.Soak); err != nil {
			return fail("%w", err)
		}
		if err := out.Soak.plausible(); err != nil {
			return fail("a soak: %w", err)
		}
	}
	if err := list(c.Notes, maxNotes, func(b json.RawMessage) error {
		var s string
		if err := strict(b, &s); err != nil {
			return err
		}
		if len(s) > maxNote {
			return errors.New("a note that is too long")
		}
		out.Notes = append(out.Notes, s)
		return nil
	}); err != nil {
		return fail("%w", err)
	}
	if err := list(c.Tables, len(protocols)*len(Variants()), func(b json.RawMessage) error {
		t, err := claimedTable(b, e, spec, asked)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(out.Tables, func(o *Table) bool { return o.Proto == t.Proto && o.Variant == t.Variant }) {
			return fmt.Errorf("%s stands there twice", t.Proto)
		}
		if n := t.Open(); c.Complete && n > 0 {
			return fmt.Errorf("it is said to be complete, and %d ports of %s are missing", n, t.Proto)
		}
		out.Tables = append(out.Tables, t)
		return nil
	}); err != nil {
		return fail("%w", err)
	}
	var err error
	if out.Chains, err = claimedChains(c.Chains, e, spec, asked); err != nil {
		return fail("%w", err)
	}
	if out.Traces, err = claimedTraces(c.Traces, e, spec, asked); err != nil {
		return fail("%w", err)
	}
	if want := tablesFor(e, spec, asked); c.Complete && len(out.Tables) < want {
		return fail("it is said to be complete, and %d of %d tables are there", len(out.Tables), want)
	}
	return out, nil
}

// tablesFor is how many tables an address has when all of it was asked.
func tablesFor(e *Errand, spec *Spec, a netip.Addr) (n int) {
	for _, p := range protocols {
		for _, v := range e.Variants {
			if asks(spec, a, p, v) {
				n++
			}
		}
	}
	return n
}

// asks tells whether a protocol is asked of an address, and in such a wrapping.
func asks(spec *Spec, a netip.Addr, proto string, v Variant) bool {
	switch {
	case spec.Of(proto).Len() == 0, a.Is4() && proto == "icmpv6", !a.Is4() && proto == "icmp":
		return false
	case a.Is4():
		return v == Plain || v == Fragments
	}
	return true
}

func claimedTable(b json.RawMessage, e *Errand, spec *Spec, a netip.Addr) (*Table, error) {
	var c struct {
		Proto   string          `json:"proto"`
		Variant Variant         `json:"variant"`
		States  json.RawMessage `json:"states"`
	}
	if err := strict(b, &c); err != nil {
		return nil, err
	}
	if !slices.Contains(protocols, c.Proto) || !slices.Contains(e.Variants, c.Variant) || !asks(spec, a, c.Proto, c.Variant) {
		return nil, fmt.Errorf("%.40q was not asked for", c.Proto+" "+string(c.Variant))
	}
	t := &Table{Proto: c.Proto, Variant: c.Variant, Want: *spec.Of(c.Proto)}
	err := list(c.States, maxRuns, func(b json.RawMessage) error {
		var r SavedRun
		if err := strict(b, &r); err != nil {
			return err
		}
		if err := claimedReason(r.Reason, a); err != nil {
			return err
		}
		var ports Ports
		if err := ports.addAscending(r.Ports); err != nil {
			return err
		}
		for p := range ports.All {
			if !t.Want.Has(p) {
				return fmt.Errorf("%s/%d was not asked for", t.Proto, p)
			}
			if t.At(p).State != "" {
				return fmt.Errorf("%s/%d stands there twice", t.Proto, p)
			}
			t.put(p, r.Reason)
		}
		return nil
	})
	return t, err
}

// addAscending is AddList for a list that somebody else wrote: each port stands there
// once, so that its length bounds the work.
func (p *Ports) addAscending(s string) error {
	next := uint32(0)
	for part := range strings.SplitSeq(s, ",") {
		a, b, err := span(part)
		if err != nil || b < a || uint32(a) < next {
			return fmt.Errorf("%.40q is no range of ports after the one before", part)
		}
		p.addSpan(a, b)
		next = uint32(b) + 1
	}
	return nil
}

// strict decodes one JSON value whose keys are all known, and nothing after it.
func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("decode JSON: something follows")
	}
	return nil
}

// list hands over the elements of a JSON list one by one, and no more than most of them.
func list(b json.RawMessage, most int, f func(json.RawMessage) error) error {
	if len(b) == 0 || string(b) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.New("decode JSON: not a list")
	}
	for n := 0; d.More(); n++ {
		if n == most {
			return fmt.Errorf("more than %d of them", most)
		}
		var one json.RawMessage
		if err := d.Decode(&one); err != nil {
			return fmt.Errorf("decode JSON: %w", err)
		}
		if err := f(one); err != nil {
			return err
		}
	}
	return nil
}
