package names

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// How often and how long one resolver is asked one question.
const (
	tries   = 3
	timeout = 2 * time.Second
	// repeats are asked besides, to know how long an answer takes.
	repeats = 2
)

// Bounds of an answer.
const (
	maxAnswers = 64
	maxChain   = 16
)

// well is a name that has no AAAA, except where a resolver makes some (RFC 7050).
const well = "ipv4only.arpa."

// Ask asks every resolver for both families of a name, all at the same time.
func (s *System) Ask(ctx context.Context, name string) *model.Name {
	n := &model.Name{Name: name, From: model.FromDNS, Lookups: []model.Lookup{}, Order: []netip.Addr{}, Races: []model.Race{}}
	if s.InHosts(name) {
		n.From = model.FromHosts
		return n
	}
	silent := map[netip.AddrPort]bool{} // who says nothing about one name is not waited for again
	for _, full := range s.candidates(name) {
		q, err := dnsmessage.NewName(full)
		if err != nil {
			continue
		}
		ls := s.all(ctx, q, silent)
		if ctx.Err() != nil { // what was cut short says nothing about a resolver
			n.Lookups = []model.Lookup{}
			return n
		}
		for i := 1; i < len(ls); i += 2 {
			silent[ls[i].Resolver] = ls[i].Outcome == model.TimedOut && ls[i-1].Outcome == model.TimedOut
		}
		// The next name is tried where this one is not there.
		known := slices.ContainsFunc(ls, func(l model.Lookup) bool { return l.Outcome == model.Answer })
		if len(n.Lookups) == 0 || known {
			n.Asked, n.Lookups = strings.TrimSuffix(full, "."), ls
		}
		if known {
			break
		}
	}
	if slices.ContainsFunc(n.Lookups, func(l model.Lookup) bool { return l.Type == "AAAA" && l.Outcome == model.Answer }) {
		n.DNS64 = s.dns64(ctx)
	}
	return n
}

// all asks every resolver for A and AAAA.
func (s *System) all(ctx context.Context, q dnsmessage.Name, silent map[netip.AddrPort]bool) []model.Lookup {
	types := []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
	out := make([]model.Lookup, len(s.Servers)*len(types))
	var all sync.WaitGroup
	for i := range out {
		all.Go(func() {
			server, t := s.Servers[i/len(types)], types[i%len(types)]
			most := tries
			if silent[server] {
				most = 1
			}
			l := ask(ctx, server, q, t, most)
			took := []float64{l.Milliseconds}
			for range repeats {
				if l.Outcome == model.TimedOut || l.Outcome == model.NoWay || ctx.Err() != nil {
					break
				}
				if again := ask(ctx, server, q, t, 1); again.Outcome == l.Outcome {
					took = append(took, again.Milliseconds)
				}
			}
			l.Milliseconds = median(took)
			out[i] = l
		})
	}
	all.Wait()
	return out
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// dns64 asks every resolver whether it makes addresses of IPv6.
func (s *System) dns64(ctx context.Context) []netip.Prefix {
	var all sync.WaitGroup
	found := make([][]netip.Prefix, len(s.Servers))
	for i, server := range s.Servers {
		all.Go(func() {
			for _, a := range ask(ctx, server, dnsmessage.MustNewName(well), dnsmessage.TypeAAAA, 1).Addresses {
				if p, ok := prefixOf(a); ok {
					found[i] = append(found[i], p)
				}
			}
		})
	}
	all.Wait()
	var out []netip.Prefix
	for _, p := range slices.Concat(found...) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// prefixOf finds the prefix of an address that holds 192.0.0.170 or .171 (RFC 6052 §2.2).
func prefixOf(a netip.Addr) (netip.Prefix, bool) {
	b := a.As16()
	for _, at := range []struct{ bits, byte int }{{96, 12}, {64, 9}, {56, 7}, {48, 6}, {40, 5}, {32, 4}} {
		var four []byte
		for i := at.byte; len(four) < 4; i++ {
			if i != 8 { // it is always zero, and skipped
				four = append(four, b[i])
			}
		}
		if four[0] == 192 && four[1] == 0 && four[2] == 0 && (four[3] == 170 || four[3] == 171) {
			p, err := a.Prefix(at.bits)
			return p, err == nil
		}
	}
	return netip.Prefix{}, false
}

// ask asks one resolver one question.
func ask(ctx context.Context, server netip.AddrPort, q dnsmessage.Name, t dnsmessage.Type, tries int) model.Lookup {
	l := model.Lookup{Resolver: server, Type: strings.TrimPrefix(t.String(), "Type"), Addresses: []netip.Addr{}}
	fail := func(o model.Outcome, err error) model.Lookup {
		l.Outcome = o
		if err != nil {
			l.Why = err.Error()
		}
		return l
	}
	var last error
	for range tries {
		begin := time.Now()
		b, err := exchange(ctx, "udp", server, q, t)
		switch {
		case ctx.Err() != nil:
			return fail(model.NoWay, errors.New("interrupted"))
		case timedOut(err):
			last = nil
			continue
		case err != nil:
			last = err
			continue
		}
		l.Milliseconds = float64(time.Since(begin).Microseconds()) / 1000
		if err := read(b, q, t, &l); err != nil {
			return fail(model.BadReply, err)
		}
		if !l.Truncated {
			return l
		}
		if b, err = exchange(ctx, "tcp", server, q, t); err != nil {
			return fail(model.BadReply, fmt.Errorf("the answer is too large for a packet, and over TCP: %w", err))
		}
		l.Milliseconds = float64(time.Since(begin).Microseconds()) / 1000
		if err := read(b, q, t, &l); err != nil {
			return fail(model.BadReply, err)
		}
		l.Truncated = true
		return l
	}
	if last != nil {
		return fail(model.NoWay, last)
	}
	return fail(model.TimedOut, nil)
}

func timedOut(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// exchange sends one question and returns what looks like its answer.
func exchange(ctx context.Context, network string, server netip.AddrPort, q dnsmessage.Name, t dnsmessage.Type) ([]byte, error) {
	var id [2]byte
	_, _ = rand.Read(id[:])
	question, err := (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:]), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: q, Type: t, Class: dnsmessage.ClassINET}},
	}).Pack()
	if err != nil {
		return nil, fmt.Errorf("encode question: %w", err)
	}
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	c, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	if network == "tcp" {
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...)); err != nil {
			return nil, err
		}
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return nil, err
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		_, err := io.ReadFull(c, b)
		return b, err
	}
	if _, err := c.Write(question); err != nil {
		return nil, err
	}
	b := make([]byte, 65535)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if n >= 12 && b[0] == id[0] && b[1] == id[1] && b[2]&0x80 != 0 {
			return b[:n], nil
		}
	}
}

// read takes an answer apart.
func read(b []byte, q dnsmessage.Name, t dnsmessage.Type, l *model.Lookup) error {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil {
		return fmt.Errorf("no answer of DNS: %w", err)
	}
	qs, err := p.AllQuestions()
	if err != nil || len(qs) != 1 || !same(qs[0].Name, q) || qs[0].Type != t {
		return errors.New("it answers another question")
	}
	l.Truncated, l.Outcome = h.Truncated, model.NoData
	switch h.RCode {
	case dnsmessage.RCodeSuccess:
	case dnsmessage.RCodeNameError:
		l.Outcome = model.NXDomain
	case dnsmessage.RCodeServerFailure:
		l.Outcome = model.ServFail
	case dnsmessage.RCodeRefused:
		l.Outcome = model.Refused
	default:
		return fmt.Errorf("it answers with error %d", h.RCode)
	}
	alias := map[string]string{}
	addrs := map[string][]netip.Addr{}
	ttl := map[string]uint32{}
	for n := 0; ; n++ {
		rh, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) || l.Truncated && err != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("no answer of DNS: %w", err)
		}
		if n > 4*maxAnswers {
			return errors.New("too many answers")
		}
		owner := plain(rh.Name.String())
		if old, ok := ttl[owner]; !ok || rh.TTL < old {
			ttl[owner] = rh.TTL
		}
		switch {
		case rh.Type == dnsmessage.TypeCNAME:
			var r dnsmessage.CNAMEResource
			if r, err = p.CNAMEResource(); err == nil {
				alias[owner] = plain(r.CNAME.String())
			}
		case rh.Type == dnsmessage.TypeA && t == rh.Type:
			var r dnsmessage.AResource
			if r, err = p.AResource(); err == nil && len(addrs[owner]) < maxAnswers {
				addrs[owner] = append(addrs[owner], netip.AddrFrom4(r.A))
			}
		case rh.Type == dnsmessage.TypeAAAA && t == rh.Type:
			var r dnsmessage.AAAAResource
			if r, err = p.AAAAResource(); err == nil && len(addrs[owner]) < maxAnswers {
				addrs[owner] = append(addrs[owner], netip.AddrFrom16(r.AAAA))
			}
		default:
			err = p.SkipAnswer()
		}
		if err != nil {
			return fmt.Errorf("no answer of DNS: %w", err)
		}
	}
	// The answer is what the name leads to, whatever else stands there.
	at := plain(q.String())
	l.Chain, l.TTL = nil, ttl[at]
	for alias[at] != "" {
		if at = alias[at]; len(l.Chain) == maxChain {
			return errors.New("its aliases lead in circles")
		}
		l.Chain = append(l.Chain, at)
		if x, ok := ttl[at]; ok {
			l.TTL = min(l.TTL, x)
		}
	}
	l.Addresses = append([]netip.Addr{}, addrs[at]...)
	slices.SortFunc(l.Addresses, netip.Addr.Compare)
	l.Addresses = slices.Compact(l.Addresses)
	if len(l.Addresses) > 0 && l.Outcome == model.NoData {
		l.Outcome = model.Answer
	}
	return nil
}

func same(a, b dnsmessage.Name) bool { return plain(a.String()) == plain(b.String()) }
