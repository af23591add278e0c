package eyeballs

import (
	"math"
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/probe"
)

// Defaults of RFC 8305 §8, in milliseconds.
const (
	resolutionDelay = 50
	attemptDelay    = 250
)

// What a client without Happy Eyeballs waits for, in milliseconds.
const (
	// connectTimeout is how long Linux takes a silent address for one that may still answer:
	// net.ipv4.tcp_syn_retries is 6.
	connectTimeout = 131_000
	// lookupTimeout is how long the C library waits for a resolver that does not answer:
	// five seconds, twice.
	lookupTimeout = 10_000
)

// Lookup is how long each family's addresses take to be known, in milliseconds; Never is
// one that does not come.
type Lookup struct{ IPv4, IPv6 float64 }

// Never is a time that does not come.
var Never = math.Inf(1)

func (l Lookup) of(a netip.Addr) float64 {
	if a.Is4() {
		return l.IPv4
	}
	return l.IPv6
}

// Race fills in who wins, and when. Its attempts are in the order of RFC 6724.
func Race(r *probe.Race, l Lookup) {
	r.Winner, r.Milliseconds = happy(r.Attempts, l)
	r.Best = Never
	for _, a := range r.Attempts {
		if a.State == probe.Open {
			r.Best = min(r.Best, l.of(a.Address)+a.Milliseconds)
		}
	}
	r.Plain = plain(r.Attempts, l)
	for _, ms := range []*float64{&r.Milliseconds, &r.Best, &r.Plain} {
		*ms = math.Round(*ms*1000) / 1000 // no clock is better
	}
}

// happy is a client as in RFC 8305.
func happy(as []probe.Attempt, l Lookup) (netip.Addr, float64) {
	// It begins with AAAA at once, and with A when AAAA has not come for a while.
	begin := l.IPv6
	if l.IPv4+resolutionDelay < l.IPv6 {
		begin = l.IPv4 + resolutionDelay
	}
	var six, four []probe.Attempt
	for _, a := range as {
		if a.Address.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	if len(six) == 0 && !math.IsInf(l.IPv4, 1) {
		begin = max(l.IPv4, min(l.IPv6, l.IPv4+resolutionDelay)) // "none" is an answer, too
	}
	firstFour := len(as) > 0 && as[0].Address.Is4()
	winner, won := netip.Addr{}, Never
	last := netip.Addr{}
	for now := begin; len(six)+len(four) > 0 && now < won; {
		// The families take turns (§4), as far as they are known by now.
		ready := func(x []probe.Attempt) bool { return len(x) > 0 && l.of(x[0].Address) <= now }
		from := &six
		switch {
		case !ready(six) && !ready(four):
			next := Never
			for _, x := range [][]probe.Attempt{six, four} {
				if len(x) > 0 {
					next = min(next, l.of(x[0].Address))
				}
			}
			if math.IsInf(next, 1) {
				return winner, won
			}
			now = next
			continue
		case !ready(six), ready(four) && (last.IsValid() && !last.Is4() || !last.IsValid() && firstFour):
			from = &four
		}
		a := (*from)[0]
		*from = (*from)[1:]
		last = a.Address
		pause := float64(attemptDelay)
		switch {
		case a.State == probe.Open:
			if now+a.Milliseconds < won {
				winner, won = a.Address, now+a.Milliseconds
			}
		case refuses(a.State):
			pause = min(pause, a.Milliseconds)
		}
		now += pause
	}
	return winner, won
}

// refuses tells that a client learns at once that it cannot connect.
func refuses(s probe.State) bool {
	return s == probe.Closed || s == probe.Rejected || s == probe.Unreachable
}

// plain is a client that waits for all addresses and tries one after the other.
func plain(as []probe.Attempt, l Lookup) float64 {
	wait := func(d float64) float64 {
		if math.IsInf(d, 1) {
			return lookupTimeout
		}
		return d
	}
	now := max(wait(l.IPv4), wait(l.IPv6))
	for _, a := range as {
		switch {
		case a.State == probe.Open:
			return now + a.Milliseconds
		case refuses(a.State):
			now += a.Milliseconds
		default:
			now += connectTimeout
		}
	}
	return Never
}
