package probe

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// Bounds of a trace. Routers ration what they say: Linux one error a second to the same host,
// after six.
const (
	traceMost  = 30
	traceBatch = 6
	traceRest  = 1100 * time.Millisecond
)

// tracer sends packets with small hop limits. The try of a probe is its hop limit.
type tracer struct {
	p     *Prober
	f     *flow
	wrap  model.Variant
	port  uint16
	heard map[int]answer
}

// tracer begins a trace, whose cookies are its own.
func (p *Prober) tracer(proto uint8, port uint16, wrap model.Variant) *tracer {
	f := *p.chainFlows[proto]
	p.traces++
	f.salt, f.ids = p.traces&15, map[uint32]key{}
	return &tracer{p: p, f: &f, wrap: wrap, port: port, heard: map[int]answer{}}
}

// spent tells that a router says that the hop limit is spent.
func (t *tracer) spent(a answer) bool {
	return a.kind == icmpError && a.code == 0 && a.icmp == map[bool]uint8{true: 11, false: 3}[t.f.is4()] && a.from != t.p.o.Addr.WithZone("")
}

// send sends one probe that may pass so many routers, less one. What this host refuses to
// send is as good as lost.
func (t *tracer) send(ctx context.Context, hop int) error {
	k := key{t.port, uint8(hop)}
	id := uint32(t.f.token(k)) | 1
	t.f.ids[id] = k
	for _, b := range t.f.chain(t.wrap, t.f.segment(k), id) {
		limit(b, uint8(hop))
		errno := unix.Errno(0)
		if err := t.p.put(ctx, b); err != nil && !errors.As(err, &errno) {
			return err
		}
	}
	return nil
}

// listen waits for answers, until enough are there.
func (t *tracer) listen(ctx context.Context, d time.Duration, enough func() bool) error {
	t.p.raw.use(t.f)
	for end := time.Now().Add(d); time.Now().Before(end) && !enough(); {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := t.p.raw.receive(min(time.Until(end), 20*time.Millisecond), func(a answer) {
			if a.port == t.port && a.kind != noAnswer {
				if _, ok := t.heard[int(a.try)]; !ok {
					t.heard[int(a.try)] = a
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tries is how often a hop is asked.
func (t *tracer) tries() int { return min(max(3, t.p.loss.pathTries()*2/3), 8) }

// wait is how long a router may take.
func (t *tracer) wait() time.Duration {
	return min(max(t.p.loss.timeout(), 300*time.Millisecond), time.Second)
}

// run traces until the target answers, somebody refuses, or nobody says anything.
func (t *tracer) run(ctx context.Context) error {
	for from := 1; from <= traceMost; from += traceBatch {
		var pend []int
		for h := from; h < min(from+traceBatch, traceMost+1); h++ {
			pend = append(pend, h)
		}
		done := func() bool { // what lies behind an answer needs none
			pend = slices.DeleteFunc(pend, func(h int) bool {
				for k := h; k >= 1; k-- {
					if a, ok := t.heard[k]; ok && (k == h || !t.spent(a)) {
						return true
					}
				}
				return false
			})
			return len(pend) == 0
		}
		for try := range t.tries() {
			if try > 0 {
				if err := t.listen(ctx, traceRest, done); err != nil {
					return err
				}
			}
			if done() {
				break
			}
			for _, h := range slices.Clone(pend) {
				if err := t.send(ctx, h); err != nil {
					return err
				}
			}
			if err := t.listen(ctx, t.wait(), done); err != nil {
				return err
			}
		}
		some := false
		for h, a := range t.heard {
			some = some || h >= from
			if !t.spent(a) {
				return nil
			}
		}
		if !some {
			return nil
		}
	}
	return nil
}

// result is what was heard.
func (t *tracer) result(proto string, state model.State) model.Trace {
	out := model.Trace{Proto: proto, Port: t.port, State: state, Hops: []model.Hop{}}
	end, last := traceMost+1, 0
	for h, a := range t.heard {
		switch {
		case t.spent(a):
			continue
		case a.kind != icmpError || a.from == t.p.o.Addr.WithZone(""):
			if out.Reached == 0 || h < out.Reached {
				out.Reached = h
			}
		case out.Refused == 0 || h < out.Refused:
			out.Refused, out.RefusedBy = h, a.from
		}
		end = min(end, h)
	}
	for h, a := range t.heard {
		if t.spent(a) && h < end {
			last = max(last, h)
		}
	}
	if end <= traceMost {
		last = end - 1
	}
	for h := 1; h <= last; h++ {
		hop := model.Hop{Hop: h}
		if a, ok := t.heard[h]; ok && t.spent(a) {
			hop.From = a.from
		}
		out.Hops = append(out.Hops, hop)
	}
	return out
}

// way traces one port once.
func (p *Prober) way(ctx context.Context, t *model.Table, port uint16) (model.Trace, error) {
	for _, x := range p.Found.Traces {
		if x.Proto == t.Proto && x.Port == port {
			return x, nil
		}
	}
	tr := p.tracer(number[t.Proto], port, model.Plain)
	err := tr.run(ctx)
	return tr.result(t.Proto, t.At(port).State), err
}

// hops traces the ports that were named, or one that answers and one that does not.
func (p *Prober) hops(ctx context.Context) error {
	if p.o.Hops == nil {
		return nil
	}
	switch {
	case !p.Raw():
		p.note("the way, hop by hop, needs bare packets (CAP_NET_RAW)")
		return nil
	case p.Found.Vantage.Self:
		return nil
	}
	type one struct {
		t    *model.Table
		port uint16
	}
	var todo []one
	for _, t := range p.Found.Tables {
		if t.Variant != model.Plain {
			continue
		}
		for port := range p.o.Hops.Of(t.Proto).All {
			if t.Want.Has(port) && len(todo) < model.MaxTraces {
				todo = append(todo, one{t, port})
			}
		}
	}
	if len(todo) == 0 {
		for _, proto := range []string{"tcp", p.protoWord(p.icmp())} {
			for _, t := range p.Found.Tables {
				if t.Variant != model.Plain || t.Proto != proto || proto != "tcp" && len(todo) > 0 {
					continue
				}
				for _, port := range typical(t) {
					todo = append(todo, one{t, port})
				}
			}
		}
	}
	for _, x := range todo {
		tr, err := p.way(ctx, x.t, x.port)
		if err != nil {
			return err
		}
		p.Found.Traces = append(p.Found.Traces, tr)
	}
	return nil
}

// typical are ports of which one is open (or closed, when none is), one silent, one refused.
func typical(t *model.Table) (out []uint16) {
	best := map[model.State]uint16{}
	look := func(port uint16) {
		if s := t.At(port).State; t.Want.Has(port) {
			if _, ok := best[s]; !ok {
				best[s] = port
			}
		}
	}
	for _, port := range common {
		look(port)
	}
	for port := range t.Want.All {
		look(port)
	}
	if _, ok := best[model.Open]; ok {
		delete(best, model.Closed)
	}
	for _, s := range []model.State{model.Open, model.Closed, model.Filtered, model.Rejected, model.Unreachable} {
		if port, ok := best[s]; ok {
			out = append(out, port)
		}
	}
	return out
}

// maxEaten is of how many chains it is asked where they get lost.
const maxEaten = 8

// eaten finds where chains get lost that get less far.
func (p *Prober) eaten(ctx context.Context) error {
	if p.Found.Vantage.OnLink || p.Found.Vantage.Self {
		return nil
	}
	known := map[model.Variant]*model.Eaten{}
	for i := range p.Found.Chains {
		c := &p.Found.Chains[i]
		if c.Fate != model.FateLess || c.ICMP && c.From == p.o.Addr.WithZone("") {
			continue
		}
		e, ok := known[c.Chain]
		if !ok && len(known) < maxEaten {
			var err error
			if e, err = p.place(ctx, c); err != nil {
				return err
			}
			known[c.Chain] = e
		}
		c.Eaten = e
	}
	return nil
}

// place is where one chain gets lost, or nil when the way is not known.
func (p *Prober) place(ctx context.Context, c *model.Chained) (*model.Eaten, error) {
	var ports model.Ports
	_ = ports.AddList(c.Ports) // as Ports.List wrote it
	i := slices.IndexFunc(p.Found.Tables, func(t *model.Table) bool { return t.Variant == model.Plain && t.Proto == c.Proto })
	if i < 0 {
		return nil, nil
	}
	port := uint16(0)
	for port = range ports.All {
		break
	}
	plain, ok := p.plainWays[c.Proto]
	if !ok {
		var err error
		if plain, err = p.way(ctx, p.Found.Tables[i], port); err != nil {
			return nil, err
		}
		p.plainWays[c.Proto] = plain
	}
	if plain.Reached < 2 {
		return nil, nil
	}
	t := p.tracer(number[c.Proto], port, c.Chain)
	// The nearest that does not see it lies between low and high.
	low, high := 0, plain.Reached
	for high-low > 1 {
		mid := high - 1 // the target is what most often eats
		if high != plain.Reached {
			mid = (low + high) / 2
		}
		for mid > low && !plain.At(mid).IsValid() {
			mid--
		}
		if mid == low {
			break
		}
		for range t.tries() {
			if err := t.send(ctx, mid); err != nil {
				return nil, err
			}
			if err := t.listen(ctx, traceRest, func() bool { _, ok := t.heard[mid]; return ok }); err != nil {
				return nil, err
			}
			if _, ok := t.heard[mid]; ok {
				break
			}
		}
		if _, ok := t.heard[mid]; ok {
			low = mid
		} else {
			high = mid
		}
	}
	return &model.Eaten{Hop: low, Last: plain.At(low), Next: plain.At(low + 1), Target: low+1 == plain.Reached}, nil
}
