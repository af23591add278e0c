package plan

import (
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// DHCPCDFile is the only file that dhcpcd reads: it knows no other directory.
const DHCPCDFile = "/etc/dhcpcd.conf"

// dhcpcd has a block of ours at the end of its file. It takes RAs by itself, and knows
// no list of routers.
func (s *site) dhcpcd(_ []setting, read reader) []file {
	now := read(DHCPCDFile)
	var lines, why []string
	for _, t := range s.tell() {
		mi, _ := s.toldBy("dhcpcd", &t.link)
		if mi == nil || !mi.InUserspace || t.believes() {
			continue
		}
		if now.Absent || now.Mode == 0o777 {
			if mi.AcceptRA.Or(true) {
				s.undone(t.link.Name, "dhcpcd", "It has no "+DHCPCDFile+" that could be added to.", "write to the file that your dhcpcd reads: interface "+t.link.Name+", and below it: noipv6rs")
			}
			continue
		}
		if !s.plainName(t) {
			continue
		}
		word := "noipv6rs"
		if t.f.Addressing == intent.NoIPv6 {
			word = "noipv6"
		}
		lines = append(lines, "interface "+t.link.Name, word)
		why = append(why, whyRA(t, "RA-04")...)
		s.pending(t.link.Name, "dhcpcd", "dhcpcd --rebind "+t.link.Name)
	}
	return s.edited(DHCPCDFile, now.Text, now.Absent || now.Mode == 0o777, sortedUnique(why), func(text string) string {
		if len(lines) == 0 {
			return text
		}
		return marked(text, nil, "", lines...)
	})
}

// edited is somebody else's file with our block in it, or without it again.
func (s *site) edited(p, now string, absent bool, why []string, change func(text string) string) []file {
	if absent {
		return nil
	}
	was, had, err := unmark(now)
	if err != nil {
		s.fault("interfaces", "repair "+p+": take away what stands between the two lines of sixfence, and them", "%s: %s", p, err)
		return nil
	}
	want := change(was)
	if want == was && !had {
		return nil
	}
	if len(why) == 0 {
		why = []string{"intent"}
	}
	if want != was && !slices.Contains(s.touched, p) {
		s.touched = append(s.touched, p)
	}
	return []file{{path: p, text: want, edit: true, why: why}}
}

// linesOf are the lines of a text, with their ends.
func linesOf(text string) []string { return slices.Collect(strings.Lines(text)) }
