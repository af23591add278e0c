package probe

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// Bounds of what is asked in chains: each port is asked in some twenty of them.
const (
	chainOpen   = 16
	chainClosed = 8
	chainShut   = 32
	// chainRest bounds the silent ports that are asked besides in a chain that gets further.
	chainRest   = 1024
	chainRounds = 48
	// chainControls are the ports that are asked plainly in each round whatever is left.
	chainControls = 4
)

// common are ports that are asked first among those of a state.
var common = []uint16{22, 80, 443, 25, 53, 123, 161, 3306, 5432, 6379, 8080, 8443, 9090, 2375, 10250, 27017}

// chains holds the wrapped probes of each protocol against the plain ones.
func (p *Prober) chains(ctx context.Context) error {
	if len(p.o.Chains) == 0 {
		return nil
	}
	if !p.Raw() {
		p.note("header chains need bare packets (CAP_NET_RAW)")
		return nil
	}
	for _, t := range p.Found.Tables {
		if t.Variant != model.Plain {
			continue
		}
		r := &chainRun{p: p, f: p.chainFlows[number[t.Proto]], plain: t}
		if err := r.do(ctx); err != nil {
			return err
		}
		p.Found.Chains = append(p.Found.Chains, r.result()...)
	}
	return p.eaten(ctx)
}

// chainRun asks ports of one protocol in all chains. The plain probe is one of them, and is
// sent behind the others each time: silence of a chain counts when that one was answered.
type chainRun struct {
	p     *Prober
	f     *flow
	plain *model.Table
	names []model.Variant // the try of a probe is the place of its chain, and one more
	got   map[key]model.Reason
	quiet map[key]int
	asked map[key]bool
	heard map[uint16]bool // of the controls, in this round
	// wire are packets by their bytes, with the try that says of which chain they are; sent
	// and left count them by it.
	wire       map[string]uint8
	sent, left [tries]int
}

// control are the tries of the plain probe, in turns: what is late is not taken for new.
func control(round int) uint8 { return uint8(round % 2 * (tries - 1)) }

func isControl(try uint8) bool { return try == 0 || try == tries-1 }

func (r *chainRun) do(ctx context.Context) error {
	for _, c := range model.Chains() {
		if c.Of(r.p.o.Addr) && slices.Contains(r.p.o.Chains, c.Name) {
			r.names = append(r.names, c.Name)
		}
	}
	r.got, r.quiet, r.asked, r.f.ids = map[key]model.Reason{}, map[key]int{}, map[key]bool{}, map[uint32]key{}
	r.wire = map[string]uint8{}
	r.p.raw.use(r.f)
	sample, rest := r.ports()
	if len(sample) == 0 || len(r.names) == 0 {
		return nil
	}
	if err := r.ask(ctx, sample, r.names); err != nil {
		return err
	}
	// Where one gets through, all that are shut are asked.
	var through []model.Variant
	for i, n := range r.names {
		for _, port := range sample {
			if n != model.Near && reached(r.got[key{port, uint8(i + 1)}].State) > reached(r.plain.At(port).State) {
				through = append(through, n)
				break
			}
		}
	}
	if len(through) == 0 || len(rest) == 0 {
		return nil
	}
	return r.ask(ctx, rest, through)
}

// answers tells that the transport protocol of the target has answered.
func answers(s model.State) bool { return reached(s) > 0 }

// reached is how far a packet got.
func reached(s model.State) int {
	switch s {
	case model.Open:
		return 2
	case model.Closed: // or a rule that sends a reset
		return 1
	}
	return 0
}

// ports are those that are asked, and the silent ones that are not.
func (r *chainRun) ports() (sample, rest []uint16) {
	var open, closed, shut []uint16
	for port := range r.plain.Want.All {
		switch s := r.plain.At(port); {
		case s.State == model.Open:
			open = append(open, port)
		case s.State == model.Closed && s.ICMP: // such answers are rationed
		case s.State == model.Closed:
			closed = append(closed, port)
		case s.State == model.Filtered, s.State == model.Rejected, s.Blocked:
			shut = append(shut, port)
		}
	}
	take := func(ps []uint16, most int) {
		var out []uint16
		for _, c := range common {
			if slices.Contains(ps, c) && len(out) < most/2 {
				out = append(out, c)
			}
		}
		for i, n := 0, min(most, len(ps)); i < n && len(out) < most; i++ {
			if x := ps[i*len(ps)/n]; !slices.Contains(out, x) {
				out = append(out, x)
			}
		}
		sample = append(sample, out...)
	}
	take(open, chainOpen)
	take(closed, chainClosed)
	n := len(sample)
	take(shut, chainShut)
	for _, x := range shut {
		if !slices.Contains(sample[n:], x) && len(rest) < chainRest {
			rest = append(rest, x)
		}
	}
	return sample, rest
}

// need is how often a chain of that many packets must keep silent.
func (r *chainRun) need(packets, jobs int) int {
	one := 1 - math.Sqrt(1-r.p.loss.rate()) // is lost on the way, each way
	all := 1 - math.Pow(1-one, float64(packets+1))
	n := math.Log(maxWrong/float64(jobs)) / math.Log(all)
	return min(max(3, int(math.Ceil(n))), 24)
}

// ask asks ports in chains until all have answered, or kept silent long enough.
func (r *chainRun) ask(ctx context.Context, ports []uint16, names []model.Variant) error {
	pend := map[key]int{} // and how often it has to keep silent
	controlled := false   // some port answers plain packets
	for _, port := range ports {
		controlled = controlled || answers(r.plain.At(port).State)
		for i, n := range r.names {
			if slices.Contains(names, n) {
				k := key{port, uint8(i + 1)}
				pend[k] = r.need(len(r.f.chain(n, r.f.segment(k), 0)), len(ports)*len(names))
				r.asked[k] = true
			}
		}
	}
	for round := 0; round < chainRounds && len(pend) > 0; round++ {
		r.heard = map[uint16]bool{}
		others := chainControls
		for _, port := range ports {
			answering := answers(r.plain.At(port).State)
			mine := answering && others > 0 // silent ports have no control of their own
			if mine {
				others--
			}
			for i, n := range r.names {
				k := key{port, uint8(i + 1)}
				if _, ok := pend[k]; ok {
					mine = true
					if err := r.send(ctx, k, n); err != nil {
						return err
					}
				}
			}
			if mine && answering {
				if err := r.send(ctx, key{port, control(round)}, model.Plain); err != nil {
					return err
				}
			}
		}
		if err := r.listen(ctx); err != nil {
			return err
		}
		for k, need := range pend {
			counts := r.heard[k.port]
			if !answers(r.plain.At(k.port).State) {
				counts = len(r.heard) > 0 || !controlled
			}
			if counts {
				r.quiet[k]++
			}
			if r.got[k].State != "" || r.quiet[k] >= need {
				delete(pend, k)
			}
		}
		if r.p.o.Progress != nil {
			r.p.o.Progress(r.p.sent, len(pend))
		}
	}
	for k := range pend { // silence that does not count
		r.quiet[k] = -1
	}
	return nil
}

// send sends one probe of a chain at the rate of all.
func (r *chainRun) send(ctx context.Context, k key, n model.Variant) error {
	id := uint32(r.f.token(k)) | 1 // an IPv4 header without one gets the kernel's
	packets := r.f.chain(n, r.f.segment(k), id)
	if len(r.f.ids) < 1<<16 {
		r.f.ids[id] = k
	}
	for _, b := range packets {
		err := r.p.put(ctx, b)
		errno := unix.Errno(0)
		switch {
		case errors.As(err, &errno):
			r.got[k] = model.Reason{State: model.Errored, Why: "own-rules"}
			return nil
		case err != nil:
			return err
		}
		if len(r.wire) < 1<<16 {
			r.wire[string(b)] = k.try
			r.sent[k.try%tries]++
		}
	}
	r.p.raw.each(r.leaves)
	return r.p.raw.receive(0, r.take)
}

// put sends one packet at the rate of all.
func (p *Prober) put(ctx context.Context, b []byte) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(p.lim.take(time.Now(), 1)):
	}
	p.sent++
	p.Found.Sent = p.sent
	for n := 0; ; n++ {
		_, err := unix.Write(p.raw.out, b)
		if (errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN)) && n < 2000 {
			time.Sleep(500 * time.Microsecond)
			continue
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// listen waits for the answers that are on their way.
func (r *chainRun) listen(ctx context.Context) error {
	for end := time.Now().Add(r.p.loss.timeout()); time.Now().Before(end); {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.p.raw.receive(min(time.Until(end), 20*time.Millisecond), r.take); err != nil {
			return err
		}
	}
	r.p.raw.each(r.leaves)
	return nil
}

// leaves counts a packet that leaves as it is. Where this host tracks connections, its kernel
// puts fragments together, and what leaves is another chain.
func (r *chainRun) leaves(b []byte) {
	if try, ok := r.wire[string(b)]; ok {
		r.left[try%tries]++
	}
}

func (r *chainRun) take(a answer) {
	if isControl(a.try) {
		if a.kind != icmpError {
			r.heard[a.port] = true
		}
		return
	}
	s := &scan{proto: r.f.proto, dst: r.p.o.Addr, src: r.p.Found.Vantage.Source}
	if now := s.reason(a); answers(now.State) || r.got[a.key].State == "" {
		r.got[a.key] = now
	}
}

// result puts ports with the same fate together.
func (r *chainRun) result() (out []model.Chained) {
	for i, n := range r.names {
		c, _ := model.ChainOf(n)
		sets := map[model.Chained]*model.Ports{}
		var order []model.Chained
		for port := range r.plain.Want.All {
			k := key{port, uint8(i + 1)}
			if !r.asked[k] {
				continue
			}
			one := r.judge(c, k)
			if sets[one] == nil {
				sets[one] = &model.Ports{}
				order = append(order, one)
			}
			sets[one].Add(port)
		}
		for _, one := range order {
			one.Ports = sets[one].List()
			out = append(out, one)
		}
	}
	return out
}

// judge holds one port in one chain against the plain probe.
func (r *chainRun) judge(c model.Chain, k key) model.Chained {
	one := model.Chained{Chain: c.Name, Proto: r.plain.Proto, Plain: r.plain.At(k.port).State, Reason: r.got[k]}
	if one.State == "" {
		one.Reason = model.Reason{State: model.Filtered, Why: "silence"}
	}
	is, was := reached(one.State), reached(one.Plain)
	law := c.Against(r.p.o.Addr, one.Proto)
	switch {
	case r.left[k.try]*2 < r.sent[k.try]:
		one.Fate, one.Reason = model.FateUnknown, model.Reason{State: model.Errored, Why: "changed"}
	case one.State == model.Errored, is == 0 && r.quiet[k] < 0 && r.got[k].State == "":
		one.Fate = model.FateUnknown
		if one.State != model.Errored {
			one.Reason = model.Reason{State: model.Errored, Why: "rationed"}
		}
	case is > was:
		one.Fate = model.FateFurther
	case is > 0 && law != "":
		one.Fate = model.FateTaken
	case is < was && law != "":
		one.Fate = model.FateRefused
	case is < was:
		one.Fate = model.FateLess
	default:
		one.Fate = model.FateSame
	}
	return one
}
