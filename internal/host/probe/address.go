// Package probe asks one address which of its ports answer, over the family of that
// address and no other.
//
// With CAP_NET_RAW it sends bare SYNs and remembers nothing about them: an answer is
// believed when it carries the cookie that the probe's own addresses and ports call for,
// an ICMP error when the packet that it quotes is one that we would have sent. Without, it
// connects, which tells the same states apart more slowly.
//
// Packets go to the address alone. What the kernel sends besides is what any connection
// makes it send: neighbour discovery for the address or for the gateway.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// Rates in packets a second, for a whole run, when nobody names another.
const (
	RateOnLink = 50_000
	RateRouted = 5_000
)

// Options of a Prober.
type Options struct {
	Target   string
	Addr     netip.Addr
	Spec     *model.Spec
	Variants []model.Variant // none: Plain
	// Connect uses sockets that need no privilege, even where others could be had.
	Connect bool
	// OnLink bounds packets that no router forwards, Routed the others. Nil: RateOnLink
	// and RateRouted.
	OnLink, Routed *Limiter
	// Patience is how long ports of a target that rations its errors are asked one by
	// one; 0 is DefaultPatience.
	Patience time.Duration
	// Turns is shared by the addresses of one host. Nil: there are no others.
	Turns *Turns
	// Path tells that path-MTU discovery is looked at, too.
	Path bool
	// Chains are held against plain probes, for ports that answer and some that do not.
	Chains []model.Variant
	// Hops are ports to which the way is traced. Empty: one that answers and one that does
	// not; nil: none.
	Hops *model.Spec
	// Progress is told, every now and then, how many packets were sent, and about how many
	// are still to be.
	Progress func(sent, left int)
	// Settled is called when all ports are known, and other things are still to be looked at.
	Settled func()
}

// DefaultPatience is two minutes an address and protocol.
const DefaultPatience = 2 * time.Minute

// Prober asks one address. Open it, give up privileges, Run it, Close it.
type Prober struct {
	o     Options
	Found *model.Address
	index int
	raw   *raw
	flows map[uint8]*flow
	// chainFlows have other source ports than the plain probes.
	chainFlows map[uint8]*flow
	traces     uint8 // that were begun
	plainWays  map[string]model.Trace
	lim        *Limiter
	loss       loss
	own        *own // without raw
	ask        int  // a socket to ask about the interface; 0: none
	known      []*model.Table
	echoes     bool      // the target answered every one of a few echoes
	since      time.Time // nothing was answered since then, so we have spent no ration
	sent       int
	left       int
}

// Open finds the way to the address and opens the sockets. An address without a way is
// no error: Run says that it is unreachable.
func Open(o Options) (*Prober, error) {
	p := &Prober{o: o, Found: &model.Address{Target: o.Target, Addr: o.Addr}, flows: map[uint8]*flow{}}
	if len(p.o.Variants) == 0 {
		p.o.Variants = []model.Variant{model.Plain}
	}
	if o.Patience == 0 {
		p.o.Patience = DefaultPatience
	}
	if o.Turns == nil {
		p.o.Turns = &Turns{}
	}
	if z := o.Addr.Zone(); z != "" {
		if _, err := net.InterfaceByName(z); err != nil {
			return nil, fmt.Errorf("there is no interface %s here, which is the zone of %s", z, o.Addr)
		}
	}
	var err error
	p.Found.Vantage, p.index, err = route(o.Addr)
	if err == nil && o.Addr.Is6() && o.Addr.IsLinkLocalUnicast() && o.Addr.Zone() == "" {
		return nil, fmt.Errorf("%s is link-local: say by which interface, as %s%%eth0", o.Addr, o.Addr)
	}
	if err == nil {
		var src netip.Addr
		if src, err = source(o.Addr, p.index); err == nil {
			p.Found.Vantage.Source = src.WithZone(o.Addr.Zone())
		}
	}
	if err != nil {
		p.Found.Problem = err.Error()
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
			p.Found.Problem = "this host has no route there"
		}
		return p, nil
	}
	rate := RateRouted
	p.lim = o.Routed
	if p.Found.Vantage.OnLink || p.Found.Vantage.Self {
		p.lim, rate = o.OnLink, RateOnLink
	}
	if p.lim == nil {
		p.lim = NewLimiter(rate)
	}
	key := newSecret()
	for _, proto := range []uint8{protoTCP, protoUDP, p.icmp()} {
		p.flows[proto] = &flow{src: p.Found.Vantage.Source, dst: o.Addr, proto: proto, secret: key}
	}
	// It stays one of this namespace, whatever thread asks it.
	if p.ask, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	p.own = openOwn(o.Addr.Is4())
	if o.Connect {
		return p, nil
	}
	p.raw, err = openRaw(o.Addr, p.Found.Vantage.Source, p.index)
	if errors.Is(err, unix.EPERM) {
		p.raw = nil
		return p, nil
	}
	p.own.close()
	p.own = nil
	if err != nil {
		p.Close()
		return nil, err
	}
	if len(o.Chains) > 0 || o.Hops != nil {
		p.plainWays = map[string]model.Trace{}
		p.chainFlows = map[uint8]*flow{}
		for proto, f := range p.flows {
			p.chainFlows[proto] = &flow{src: f.src, dst: f.dst, proto: proto, secret: key, chained: true}
		}
	}
	if o.Path || len(o.Chains) > 0 {
		if err := p.raw.watch(o.Addr, p.Found.Vantage.Source); err != nil {
			p.Close()
			return nil, err
		}
	}
	for _, fs := range []map[uint8]*flow{p.flows, p.chainFlows} {
		for _, f := range fs {
			if err := p.raw.reserve(f, p.index); err != nil {
				p.Close()
				return nil, err
			}
		}
	}
	return p, nil
}

// Raw tells whether bare packets are sent, not connections made.
func (p *Prober) Raw() bool { return p.raw != nil }

// Due is about how many packets will be sent at least.
func (p *Prober) Due() int {
	n := 0
	for _, proto := range []uint8{p.icmp(), protoTCP, protoUDP} {
		n += p.o.Spec.Of(p.protoWord(proto)).Len() * minTries
	}
	return n
}

// Know takes over what an earlier run found out: it is not asked again.
func (p *Prober) Know(known []*model.Table) { p.known = known }

// Close gives everything back.
func (p *Prober) Close() {
	if p.raw != nil {
		p.raw.close()
	}
	p.own.close()
	if p.ask > 0 {
		unix.Close(p.ask)
	}
}

// cut tells that the link to the address has no carrier.
func (p *Prober) cut() bool {
	r, err := unix.NewIfreq(p.Found.Vantage.Interface)
	if err == nil {
		err = unix.IoctlIfreq(p.ask, unix.SIOCGIFFLAGS, r)
	}
	return err == nil && r.Uint16()&unix.IFF_RUNNING == 0
}

func (p *Prober) icmp() uint8 {
	if p.o.Addr.Is4() {
		return protoICMP
	}
	return protoICMPv6
}

func (p *Prober) protoWord(n uint8) string {
	return map[uint8]string{protoTCP: "tcp", protoUDP: "udp", protoICMP: "icmp", protoICMPv6: "icmpv6"}[n]
}

func (p *Prober) note(s string) { p.Found.Notes = append(p.Found.Notes, s) }

// Run fills Found. What is known when ctx ends stands there, and Complete stays false.
func (p *Prober) Run(ctx context.Context) error {
	var jobs []*model.Table
	for _, proto := range []uint8{p.icmp(), protoTCP, protoUDP} {
		want := p.o.Spec.Of(p.protoWord(proto))
		if want.Len() == 0 {
			continue
		}
		for _, v := range p.o.Variants {
			if p.o.Addr.Is4() && v != model.Plain && v != model.Fragments {
				continue
			}
			t := &model.Table{Proto: p.protoWord(proto), Variant: v, Want: *want}
			for _, k := range p.known {
				if k.Proto == t.Proto && k.Variant == v {
					t.Take(k)
				}
			}
			jobs = append(jobs, t)
			p.left += t.Open() * minTries
		}
	}
	p.Found.Tables = jobs
	if p.Found.Problem != "" {
		p.all(model.Reason{State: model.Unreachable, Why: "no-route"})
		p.Found.Complete = true
		return nil
	}
	p.since = time.Now()
	down, _, err := p.preflight(ctx)
	if err != nil {
		return err
	}
	if down {
		p.all(model.Reason{State: model.Unreachable, Why: "no-neighbour"})
		p.note("nobody answers for this address on " + p.Found.Vantage.Interface)
		p.Found.Complete = true
		return nil
	}
	for _, t := range jobs {
		if err := p.table(ctx, t); err != nil {
			return err
		}
	}
	p.settleLife()
	p.answersAll()
	if err := p.near(ctx); err != nil {
		return err
	}
	if p.o.Settled != nil {
		p.o.Settled()
	}
	if err := p.hops(ctx); err != nil {
		return err
	}
	if err := p.chains(ctx); err != nil {
		return err
	}
	if p.o.Path {
		if err := p.path(ctx); err != nil {
			return err
		}
	}
	p.Found.Complete = true
	return nil
}

// all gives every port without a state the same one.
func (p *Prober) all(r model.Reason) {
	for _, t := range p.Found.Tables {
		for port := range t.Want.All {
			t.Set(port, r)
		}
	}
}

// table finds the states of one table.
func (p *Prober) table(ctx context.Context, t *model.Table) error {
	if t.Variant != model.Plain && !p.Raw() {
		p.cannot(t)
		return nil
	}
	tr, done, err := p.transport(number[t.Proto])
	if forbidden(err) {
		p.cannot(t)
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	s := p.scan(t, tr)
	if p.Raw() {
		p.raw.flow.variant = t.Variant
	}
	base := p.sent
	left := p.left - s.pend.Len()*minTries
	s.progress = func(sent, due int) {
		if p.o.Progress != nil {
			p.o.Progress(base+sent, left+due)
		}
	}
	err = s.run(ctx)
	p.since = time.Now()
	// Silence means something as long as the target is there: a port that answered said so in
	// the last round, an echo is asked again.
	if silent := t.Count(model.Filtered) > 0; err == nil && (s.selfDown > 0 || silent && (p.Found.Vantage.OnLink && p.vanished() || p.echoes && len(s.controls) == 0)) {
		err = p.lost(ctx, t)
	}
	p.sent += s.sent
	p.left = left
	p.Found.Sent, p.Found.Controls, p.Found.Lost = p.sent, p.loss.sent, p.loss.lost
	return err
}

// answersAll says when something answers whatever port is asked.
func (p *Prober) answersAll() {
	for _, t := range p.Found.Tables {
		if n, open := t.Want.Len(), t.Count(model.Open); t.Proto == "tcp" && t.Variant == model.Plain && n >= 100 && open*20 >= n*19 {
			p.note(fmt.Sprintf("%d of %d TCP ports answer as open: something that accepts every connection stands there (a proxy against floods, a tarpit, a redirection), and behind a port need not be a service", open, n))
		}
	}
}

// vanished tells that the kernel no longer knows the neighbour, as when the link went away.
func (p *Prober) vanished() bool {
	if !neighbourly(p.index) {
		return false
	}
	_, gone := neighbour(p.o.Addr, p.index)
	return gone
}

// lost looks whether a target that may be gone is still there. If not, silence says nothing.
func (p *Prober) lost(ctx context.Context, t *model.Table) error {
	down, answered, err := p.preflight(ctx)
	if err != nil || !down && (answered || !p.echoes) {
		return err
	}
	r := model.Reason{State: model.Unreachable, Why: "no-neighbour"}
	if !down {
		r = model.Reason{State: model.Errored, Why: "lossy"}
		p.note("the target answered echoes, and no longer does: silence means nothing")
	}
	for port := range t.Want.All {
		if x := t.At(port); x.Why == "silence" || down && x.State == model.Errored {
			t.Put(port, r)
		}
	}
	return nil
}

// cannot says that a table needs rights that are not there.
func (p *Prober) cannot(t *model.Table) {
	for port := range t.Want.All {
		t.Set(port, model.Reason{State: model.Errored, Why: "no-rights"})
	}
}

var number = map[string]uint8{"tcp": protoTCP, "udp": protoUDP, "icmp": protoICMP, "icmpv6": protoICMPv6}

func (p *Prober) scan(t *model.Table, tr transport) *scan {
	pend := model.Ports{}
	for port := range t.Want.All {
		if t.At(port).State == "" {
			pend.Add(port)
		}
	}
	s := &scan{
		t: tr, out: t, pend: &pend, proto: number[t.Proto], dst: p.o.Addr, src: p.Found.Vantage.Source, lim: p.lim, loss: &p.loss,
		patience: p.o.Patience, note: p.note, alone: p.o.Turns, own: p.own, connects: !p.Raw() && t.Proto == "tcp", since: p.since,
	}
	s.alive = func() { p.Found.Life = model.Answered }
	return s
}

// preflight looks for a sign of life before many packets are sent: the kernel keeps only
// some of them while it asks for the neighbour. It returns true when nobody answers for
// the address.
func (p *Prober) preflight(ctx context.Context) (down, answered bool, err error) {
	v := &p.Found.Vantage
	if p.cut() {
		return true, false, nil
	}
	hop := p.o.Addr
	if v.Gateway.IsValid() {
		hop = v.Gateway
	}
	proto, port := p.icmp(), uint16(128)
	if p.o.Addr.Is4() {
		port = 8
	}
	tr, done, err := p.transport(proto)
	if forbidden(err) { // what comes next is asked anyway
		for _, t := range p.Found.Tables {
			for first := range t.Want.All {
				if t.Variant == model.Plain && number[t.Proto] != p.icmp() && proto == p.icmp() {
					proto, port = number[t.Proto], first
				}
			}
		}
		if proto == p.icmp() {
			return false, false, nil
		}
		tr, done, err = p.transport(proto)
		p.o.Turns.Lock() // it may spend what the others need
		defer p.o.Turns.Unlock()
	}
	if err != nil {
		return false, false, err
	}
	defer done()
	tr.patience(4 * time.Second)
	t := &model.Table{Proto: p.protoWord(proto)}
	t.Want.Add(port)
	s := p.scan(t, tr)
	s.slower = 1
	s.alive = func() { p.Found.Life, answered = model.Answered, true }
	sent := [firstCheck]time.Time{}
	s.got = func(a answer) {
		if a.kind != icmpError && a.try < firstCheck && !sent[a.try].IsZero() {
			p.loss.sample(time.Since(sent[a.try]))
			sent[a.try] = time.Time{}
		}
	}
	// The kernel asks three times, a second apart, before it gives up. It must have given
	// up twice: one of three questions may be lost, and its answers.
	enough := 300 * time.Millisecond
	if p.loss.srtt > 0 {
		enough = max(enough, p.loss.timeout())
	}
	failures, known := 0, v.Self || !neighbourly(p.index)
	for try := uint8(0); try < 12 && failures < 2; try++ {
		if err := s.send(ctx, key{port, try}); err != nil {
			return false, false, err
		}
		sent[try] = time.Now()
		for end := time.Now().Add(900 * time.Millisecond); time.Now().Before(end); {
			if ctx.Err() != nil {
				return false, false, context.Cause(ctx)
			}
			if err := tr.receive(5*time.Millisecond, s.heard); err != nil {
				return false, false, err
			}
			if answered {
				return false, true, p.measure(ctx, s, port)
			}
			if r := t.At(port); r.State != "" { // no route, own rules, or a refusal
				return false, false, nil
			}
			if s.selfDown > 0 {
				// All that waited for the same three questions are told so, one after the other.
				if err := s.idle(ctx, 100*time.Millisecond); err != nil {
					return false, answered, err
				}
				failures, s.selfDown = failures+1, 0
				break
			}
			if !known {
				known, _ = neighbour(hop, p.index)
			}
			patience := 60 * time.Millisecond // the answer may come after the next question
			if try >= 2 {
				patience = enough
			}
			if known && time.Since(sent[try]) > patience {
				break
			}
		}
		if known && try >= 2 { // it is there, and keeps silent
			return false, false, nil
		}
	}
	return failures >= 2, false, nil
}

// measure asks what has answered a few times more, to know the loss before anything else
// is asked. Where a third is lost it is rather a limit, and says nothing.
func (p *Prober) measure(ctx context.Context, s *scan, port uint16) error {
	if p.loss.sent > 0 || s.out.At(port).ICMP || s.sparing() {
		return nil
	}
	s.controls = []uint16{port}
	err := s.calibrate(ctx, 30, 2*time.Millisecond)
	p.since = time.Now()
	p.echoes = s.proto == p.icmp() && p.loss.lost == 0
	p.sent += s.sent
	if p.loss.lost*3 > p.loss.sent {
		p.loss.sent, p.loss.lost = 0, 0
	}
	return err
}

// settleLife looks for weaker signs of life than an answer.
func (p *Prober) settleLife() {
	if p.Found.Life != model.NoLife {
		return
	}
	for _, t := range p.Found.Tables {
		for port := range t.Want.All {
			if r := t.At(port); r.ICMP && r.From != p.Found.Vantage.Source.WithZone("") {
				p.Found.Life = model.Elsewhere
			}
		}
	}
	if p.Found.Vantage.OnLink {
		if known, _ := neighbour(p.o.Addr, p.index); known {
			p.Found.Life = model.Neighbour
		}
	}
}
