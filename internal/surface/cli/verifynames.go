package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sixfence/sixfence/internal/engine/verify"
	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// targets resolves what the user named: all addresses of both families.
func (a *app) targets(ctx context.Context, args []string) ([]verify.Target, error) {
	var out []verify.Target
	seen := map[netip.Addr]bool{}
	n := 0
	for _, arg := range args {
		t := verify.Target{Name: arg}
		addr, err := netip.ParseAddr(strings.Trim(arg, "[]"))
		switch {
		case err == nil && (report.Clean(addr.Zone()) != addr.Zone() || strings.ContainsAny(addr.Zone(), "/ %")):
			return nil, &usageError{msg: fmt.Sprintf("target %q has a zone that is no interface", arg), hint: "write fe80::1%eth0"}
		case err == nil:
			t.Addrs = []netip.Addr{addr}
		case strings.Contains(arg, "/"):
			return nil, &usageError{msg: fmt.Sprintf("target %q is no host", arg), hint: "verify asks hosts, not networks and not URLs: name an address"}
		default:
			if t.Addrs, err = a.resolve(ctx, arg); err != nil {
				return nil, &usageError{msg: "find the addresses of " + arg, cause: err, hint: "check the name, or give an address"}
			}
		}
		families := map[string]bool{}
		for i, x := range t.Addrs {
			x = x.Unmap()
			t.Addrs[i] = x
			families[probe.FamilyOf(x)] = true
			if x.IsMulticast() || x.IsUnspecified() || x == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
				return nil, &usageError{msg: fmt.Sprintf("target %s is not the address of one host", x), hint: "name a unicast address"}
			}
		}
		if addr.Is4In6() {
			return nil, &usageError{msg: fmt.Sprintf("target %s is IPv4 in the form of IPv6", addr), hint: "write " + addr.Unmap().String()}
		}
		if !addr.IsValid() && len(families) == 1 {
			a.log.Warn(report.Clean(fmt.Sprintf("%s has only %s addresses: the other family is not asked", arg, slices.Collect(maps.Keys(families))[0])))
		}
		t.All = slices.Clone(t.Addrs)
		t.Addrs = slices.DeleteFunc(t.Addrs, func(x netip.Addr) bool { dup := seen[x]; seen[x] = true; return dup })
		slices.SortFunc(t.Addrs, func(x, y netip.Addr) int { return cmp.Or(cmp.Compare(x.BitLen(), y.BitLen()), x.Compare(y)) })
		if n += len(t.Addrs); n > verify.MaxAddresses {
			return nil, &usageError{msg: fmt.Sprintf("more than %d addresses", verify.MaxAddresses), hint: "ask them in several runs"}
		}
		if len(t.All) > 0 {
			out = append(out, t)
		}
	}
	return out, nil
}

// pair tells that the targets are one IPv4 address and IPv6 addresses, literally: few
// people name two hosts that way.
func pair(ts []verify.Target) bool {
	four, six := 0, 0
	for _, t := range ts {
		if a, err := netip.ParseAddr(strings.Trim(t.Name, "[]")); err != nil {
			return false
		} else if a.Is4() {
			four++
		} else {
			six++
		}
	}
	return four == 1 && six > 0
}

// resolve finds the addresses of a name, as the programs of this host do. The families are
// asked for apart, so that a resolver that keeps silent about one does not hide the other.
func (a *app) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var all sync.WaitGroup
	networks := []string{"ip4", "ip6"}
	found, errs := make([][]netip.Addr, len(networks)), make([]error, len(networks))
	for i, n := range networks {
		all.Go(func() { found[i], errs[i] = net.DefaultResolver.LookupNetIP(ctx, n, name) })
	}
	all.Wait()
	var out []netip.Addr
	for _, x := range slices.Concat(found...) {
		if class, unfit := probe.Special(x.Unmap()); unfit && x.Zone() == "" {
			a.log.Warn(report.Clean(fmt.Sprintf("%s leads to %s (%s), which is not asked", name, x, class)))
			continue
		}
		out = append(out, x)
	}
	for i, err := range errs {
		var none *net.DNSError
		if len(out) > 0 && errors.As(err, &none) && !none.IsNotFound {
			a.log.Warn(report.Clean(fmt.Sprintf("whether %s has addresses of %s is not known: %v", name, map[string]string{"ip4": "IPv4", "ip6": "IPv6"}[networks[i]], err)))
		}
	}
	if len(out) == 0 {
		for _, err := range errs {
			if err != nil {
				return nil, err
			}
		}
		return nil, errors.New("it has none that can be asked")
	}
	return out, nil
}

// namesOf are the targets that are names.
func namesOf(ts []verify.Target) (out []string) {
	for _, t := range ts {
		if _, err := netip.ParseAddr(strings.Trim(t.Name, "[]")); err != nil {
			out = append(out, t.Name)
		}
	}
	return out
}

// names takes the answers of DNS, and lets this host connect as its clients would.
func (a *app) names(ctx context.Context, ns []*probe.Name, targets []verify.Target, as []*probe.Address) []*probe.Name {
	for _, n := range ns {
		var found []netip.Addr
		for _, t := range targets {
			if t.Name == n.Name {
				found = t.All
			}
		}
		verify.Classify(n, found)
		var mine []*probe.Address
		for _, x := range as {
			if slices.Contains(found, x.Addr) && x.Via == "" {
				mine = append(mine, x)
			}
		}
		verify.Races(ctx, n, mine)
	}
	return ns
}

// cleanNames are names as a terminal may show them: aliases and reasons are a stranger's.
func cleanNames(ns []*probe.Name) []*probe.Name {
	out := []*probe.Name{}
	for _, n := range ns {
		c := *n
		c.Name, c.Asked = report.Clean(n.Name), report.Clean(n.Asked)
		c.Lookups = slices.Clone(n.Lookups)
		for i := range c.Lookups {
			l := &c.Lookups[i]
			l.Why, l.Chain = report.Clean(l.Why), cleanEach(l.Chain)
			if len(l.Chain) == 0 {
				l.Chain = nil
			}
		}
		out = append(out, &c)
	}
	return out
}

// verifyNames shows where the addresses come from, and what clients wait for.
func verifyNames(b *bufio.Writer, j *expect.Judge, width int) {
	for _, n := range cleanNames(j.Names) {
		if n.From == probe.FromHosts {
			fmt.Fprintf(b, "Name %s: /etc/hosts has it, so DNS is not asked\n", n.Name)
		} else {
			fmt.Fprintf(b, "Name %s: what DNS says about %s\n", n.Name, n.Asked)
		}
		for _, l := range n.Lookups {
			line := fmt.Sprintf("  %-4s from %s: ", l.Type, l.Resolver.Addr())
			if l.Outcome == probe.Answer {
				var as []string
				for _, x := range l.Addresses {
					as = append(as, x.String())
				}
				line += strings.Join(as, ", ")
				if len(l.Chain) > 0 {
					line += " by the alias " + strings.Join(l.Chain, " and ")
				}
				line += fmt.Sprintf(" (%d s; %s)", l.TTL, expect.Took(l.Milliseconds))
			} else {
				line += string(l.Outcome)
				if l.Why != "" {
					line += ": " + l.Why
				}
			}
			if l.Truncated {
				line += ", over TCP"
			}
			writeWrapped(b, line, "         ", width)
		}
		if len(n.Races) > 0 {
			fmt.Fprintf(b, "  %-12s %-10s %-14s %-10s %s\n", "CONNECT", "WINNER", "HAPPY EYEBALLS", "BEST", "WITHOUT")
			for _, r := range n.Races {
				family := "IPv6"
				if r.Winner.Is4() {
					family = "IPv4"
				}
				fmt.Fprintf(b, "  %-12s %-10s %-14s %-10s %s\n", fmt.Sprintf("%s/%d", r.Proto, r.Port), family, expect.Took(r.Milliseconds), expect.Took(r.Best), expect.Took(r.Plain))
			}
		}
		fmt.Fprintln(b)
	}
}

// writeWrapped writes a line of a list, and what does not fit below it.
func writeWrapped(b *bufio.Writer, line, indent string, width int) {
	lead := line[:len(line)-len(strings.TrimLeft(line, " "))]
	for i, l := range wrapText(line[len(lead):], width-len(indent)+2) {
		if i > 0 {
			lead = indent
		}
		fmt.Fprintln(b, lead+l)
	}
}
