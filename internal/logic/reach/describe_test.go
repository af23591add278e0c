package reach

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/logic/packetset"
)

func TestDescribe(t *testing.T) {
	all4, all6 := bogus4.Complement(true), bogus6.Complement(false)
	for _, c := range []struct {
		is4  bool
		in   []string
		not  bool
		want string
	}{
		{false, []string{"::/0"}, false, "anywhere"},
		{true, []string{"0.0.0.0/0"}, false, "anywhere"},
		{false, nil, false, "nobody"},
		{false, []string{"ff00::/8"}, false, "nobody"}, // the kernel takes none of them
		{false, []string{"fe80::/10"}, false, "link-local only"},
		{false, []string{"fe80::/10", "2001:db8::/32"}, false, "2001:db8::/32, link-local"},
		{false, []string{"2001:db8::1/128"}, false, "2001:db8::1"},
		{false, []string{"2001:db8::/33", "2001:db8:8000::/33"}, false, "2001:db8::/32"},
		{true, []string{"10.0.0.0/8", "192.168.0.0/16"}, false, "10.0.0.0/8, 192.168.0.0/16"},
		{true, []string{"10.0.0.0/8"}, true, "anywhere except 10.0.0.0/8"},
		{false, []string{"2001:db8:bad::/48", "2001:db8:bad2::/48"}, true, "anywhere except 2001:db8:bad::/48, 2001:db8:bad2::/48"},
		{true, []string{"128.0.0.0/1"}, false, "128.0.0.0/1"}, // 224.0.0.0/4 is nobody's: no need to say it
		{true, []string{"10.1.0.1/32", "10.2.0.1/32", "10.3.0.1/32", "10.4.0.1/32", "10.5.0.1/32", "10.6.0.1/32"}, false, "10.1.0.1, 10.2.0.1, 10.3.0.1, 10.4.0.1, 2 more prefixes"},
		{false, []string{"fd00:20::/64", "2001:db8::7/128", "!fd00:20::1/128"}, false, "2001:db8::7, fd00:20::/64 except fd00:20::1"},
		{false, []string{"fe80::/10", "!fe80::7/128", "!fe80::9/128"}, false, "link-local except fe80::7, fe80::9"},
		{true, []string{"10.20.0.0/24", "!10.20.0.1/32"}, false, "10.20.0.0/24 except 10.20.0.1"},
		{true, []string{"10.0.0.0/9", "10.128.0.0/10"}, false, "10.0.0.0/9, 10.128.0.0/10"}, // not 10.0.0.0/8 except …
		{true, []string{"0.0.0.0/0", "!10.0.0.0/8", "!192.0.2.5/32"}, false, "anywhere except 10.0.0.0/8, 192.0.2.5"},
	} {
		all := all6
		if c.is4 {
			all = all4
		}
		var in, holes []string
		for _, p := range c.in {
			if hole, is := strings.CutPrefix(p, "!"); is {
				holes = append(holes, hole)
				continue
			}
			in = append(in, p)
		}
		s := set(in...).Intersect(set(holes...).Complement(c.is4))
		if c.not {
			s = s.Complement(c.is4)
		}
		if got := Describe(s, all, c.is4); got != c.want {
			t.Errorf("%v (without: %v): %q, want %q", c.in, c.not, got, c.want)
		}
	}
}

// TestDescriptionsAreExact: the words, read back, are the sources that the kernel
// takes.
func TestDescriptionsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		is4 := rapid.Bool().Draw(t, "ipv4")
		all, width := bogus6.Complement(false), 128
		base := []string{"2001:db8::", "fe80::", "::", "ff00::", "8000::"}
		if is4 {
			all, width = bogus4.Complement(true), 32
			base = []string{"10.0.0.0", "127.0.0.0", "0.0.0.0", "224.0.0.0", "128.0.0.0"}
		}
		var ivs []packetset.Interval
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			a := netip.MustParseAddr(rapid.SampledFrom(base).Draw(t, "address"))
			ivs = append(ivs, packetset.PrefixInterval(netip.PrefixFrom(a, rapid.IntRange(0, width).Draw(t, "bits"))))
		}
		s := packetset.Normalise(ivs)
		if rapid.Bool().Draw(t, "not") {
			s = s.Complement(is4)
		}
		if len(s) > 0 && rapid.Bool().Draw(t, "holes") {
			var holes []packetset.Interval
			for range rapid.IntRange(1, 3).Draw(t, "n holes") {
				iv := s[rapid.IntRange(0, len(s)-1).Draw(t, "where")]
				holes = append(holes, packetset.PrefixInterval(netip.PrefixFrom(iv.From.IP(is4), rapid.IntRange(width-8, width).Draw(t, "hole")).Masked()))
			}
			s = s.Intersect(packetset.Normalise(holes).Complement(is4))
		}
		text := Describe(s, all, is4)
		if strings.Contains(text, "more prefixes") {
			t.Skip("shortened")
		}
		read := func(list string) packetset.Set {
			switch list {
			case "anywhere":
				return all
			case "nobody", "":
				return nil
			case "link-local only":
				return llSet
			}
			var l []packetset.Interval
			for _, w := range strings.Split(list, ", ") {
				if w == "link-local" {
					w = "fe80::/10"
				}
				p, err := netip.ParsePrefix(w)
				if err != nil {
					a := netip.MustParseAddr(w)
					p = netip.PrefixFrom(a, a.BitLen())
				}
				l = append(l, packetset.PrefixInterval(p))
			}
			return packetset.Normalise(l)
		}
		list, except, _ := strings.Cut(text, " except ")
		back := read(list).Intersect(read(except).Complement(is4))
		if !slices.Equal(back.Intersect(all), s.Intersect(all)) {
			t.Fatalf("%q is %v, not %v", text, back.Intersect(all), s.Intersect(all))
		}
	})
}
