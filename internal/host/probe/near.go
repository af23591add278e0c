package probe

import (
	"context"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// nearTries is how often a packet with a small hop limit is sent.
const nearTries = 3

// near looks whether the gateway of this host is the only router between: then a packet gets
// to the target that may pass one router and no other. What guards the border of a site is
// then not between. A target that does not answer such a packet may be near all the same.
func (p *Prober) near(ctx context.Context) error {
	v := &p.Found.Vantage
	if !p.Raw() || v.Self || v.OnLink || !v.Gateway.IsValid() {
		return nil
	}
	proto, port, ok := p.speaks()
	if !ok {
		return nil
	}
	tr, done, err := p.transport(proto)
	if err != nil {
		return err
	}
	defer done()
	p.raw.flow.hops = 2
	t := &model.Table{Proto: p.protoWord(proto)}
	t.Want.Add(port)
	s := p.scan(t, tr)
	s.slower = 1
	defer func() {
		p.sent += s.sent
		p.Found.Sent = p.sent
	}()
	for try := range uint8(nearTries) {
		if err := s.send(ctx, key{port, try}); err != nil {
			return err
		}
		for end := time.Now().Add(p.loss.timeout()); time.Now().Before(end); {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := tr.receive(5*time.Millisecond, s.heard); err != nil {
				return err
			}
			if st := t.At(port).State; st != "" {
				v.Near = st == model.Open
				return nil
			}
		}
	}
	return nil
}

// speaks is something that the target itself has answered. A refusal may be the gateway's, in
// the target's name.
func (p *Prober) speaks() (proto uint8, port uint16, ok bool) {
	for _, t := range p.Found.Tables { // echo is the first of them
		if t.Variant != model.Plain || t.Proto == "udp" {
			continue
		}
		for port := range t.Want.All {
			if t.At(port).State == model.Open {
				return number[t.Proto], port, true
			}
		}
	}
	return 0, 0, false
}
