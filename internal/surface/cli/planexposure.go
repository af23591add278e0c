package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/change"
)

// nobodys are sources that no host on any network has, or none from afar: that rules drop
// them too is no news about a port.
var nobodys = []string{
	"::/96", "::ffff:0.0.0.0/96", "100::/64", "2001:10::/28", "2002:a00::/24", "2002:7f00::/24", "2002:a9fe::/32", "2002:ac10::/28", "2002:c0a8::/32", "2002:e000::/19", "3fff::/20", "5f00::/16", "fec0::/10", "ff00::/8",
	"127.0.0.0/8", "224.0.0.0/4", "0.0.0.0/8", "240.0.0.0/4",
}

// exposure is the table of who gets in, before and after.
func (t *planText) exposure(p *change.Plan) {
	if len(p.Exposure) == 0 {
		return
	}
	t.title("WHO REACHES WHAT", "before → after, through every table of the host")
	type line struct{ port, four, six string }
	var changed, same []line
	for _, e := range perPort(p.Exposure) {
		l := line{fmt.Sprintf("%s/%d", e.Proto, e.Port), cell(&e.IPv4, true), cell(&e.IPv6, false)}
		if e.Process != "" {
			l.port += " " + e.Process[strings.LastIndexByte(e.Process, '/')+1:]
		}
		if e.Published != "" {
			l.port += ", passed on to " + e.Published
		}
		if strings.Contains(l.four+l.six, "→") {
			changed = append(changed, l)
		} else {
			same = append(same, l)
		}
	}
	put := func(list []line) {
		for _, l := range slices.Compact(list) {
			fmt.Fprintf(&t.b, "  %s\n", cleaned(l.port))
			t.para("    IPv4  ", l.four)
			t.para("    IPv6  ", l.six)
		}
	}
	put(changed)
	switch {
	case t.Options.verbose:
		put(same)
	case len(same) > 0 && len(changed) > 0:
		fmt.Fprintf(&t.b, "  %s as before (--verbose lists them)\n", plural(len(same), "other is", "others are"))
	case len(same) > 0:
		fmt.Fprintf(&t.b, "  %s as before (--verbose lists them)\n", plural(len(same), "port stays", "ports stay"))
	}
}

// perPort joins what one program has on a port: a socket for each family, or for each
// address; and where rules pass the port on to.
func perPort(list []change.Exposure) []change.Exposure {
	var out []change.Exposure
	for _, e := range list {
		i := slices.IndexFunc(out, func(o change.Exposure) bool {
			return o.Proto == e.Proto && o.Port == e.Port && (o.Process == e.Process || e.Published != "")
		})
		if i < 0 {
			out = append(out, e)
			continue
		}
		if e.Published != "" && out[i].Published != "" {
			out[i].Published += ", "
		}
		out[i].Published += e.Published
		add(&out[i].IPv4, &e.IPv4, true)
		add(&out[i].IPv6, &e.IPv6, false)
	}
	return out
}

func add(to, more *change.BeforeAfter, is4 bool) {
	for _, x := range []struct{ to, more *[]netip.Prefix }{{&to.BeforeMust, &more.BeforeMust}, {&to.BeforeMay, &more.BeforeMay}, {&to.AfterMust, &more.AfterMust}, {&to.AfterMay, &more.AfterMay}} {
		*x.to = packetset.Normalise(append(slices.Clone([]packetset.Interval(setOf(*x.to))), setOf(*x.more)...)).Prefixes(is4)
	}
}

// cell is one family of one port.
func cell(x *change.BeforeAfter, is4 bool) string {
	was, will := sourceWords(x.BeforeMust, x.BeforeMay, is4), sourceWords(x.AfterMust, x.AfterMay, is4)
	if was == will || sameSenders(x.BeforeMust, x.AfterMust, is4) && sameSenders(x.BeforeMay, x.AfterMay, is4) {
		return was
	}
	return was + " → " + will
}

// sameSenders tells that two sets differ in this host's own addresses alone, and those of its
// networks: few single ones.
func sameSenders(a, b []netip.Prefix, is4 bool) bool {
	all := senders(is4)
	x, y := setOf(a).Intersect(all), setOf(b).Intersect(all)
	if len(x) == 0 || len(y) == 0 {
		return len(x) == len(y)
	}
	diff := append(x.Intersect(y.Complement(is4)), y.Intersect(x.Complement(is4))...)
	for _, i := range diff {
		if next, ok := i.From.Next(); i.From != i.To && (!ok || next != i.To) {
			return false
		}
	}
	return len(diff) <= 16
}

// senders are the addresses that somebody may have.
func senders(is4 bool) packetset.Set {
	all := packetset.Set{{To: packetset.Last(is4)}}
	for _, bad := range nobodys {
		if p := netip.MustParsePrefix(bad); p.Addr().Is4() == is4 {
			all = all.Intersect(packetset.Set{packetset.PrefixInterval(p)}.Complement(is4))
		}
	}
	return all
}

func sourceWords(must, may []netip.Prefix, is4 bool) string {
	all := senders(is4)
	a, b := setOf(must), setOf(may)
	words := func(s packetset.Set) string {
		// With what nobody has it is one prefix more.
		return strings.ReplaceAll(reach.Describe(s, all, is4), "fe80::/9", "link-local")
	}
	switch {
	case len(b) == 0:
		return "nobody"
	case slices.Equal(a, b):
		return words(a)
	case len(a) == 0:
		return "perhaps " + words(b)
	}
	return words(a) + ", perhaps " + words(b)
}
