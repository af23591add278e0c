package apps

import (
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// sshdIncludes splits an Include line. An Include below a Match block is part of
// the block: decodeSSHD sees its lines in place all the same.
func sshdIncludes(s string) []string {
	w := sshdWords(s)
	if len(w) < 2 || !strings.EqualFold(w[0], "include") {
		return nil
	}
	return w[1:]
}

// sshdWords splits a line as sshd does: white space, one optional "=" after the
// keyword, double quotes, comments.
func sshdWords(s string) []string {
	s = strings.Trim(s, " \t\r\f")
	if s == "" || s[0] == '#' {
		return nil
	}
	i := strings.IndexAny(s, " \t=")
	if i < 0 {
		return []string{s}
	}
	out := []string{s[:i]}
	rest := strings.TrimLeft(s[i:], " \t")
	if strings.HasPrefix(rest, "=") {
		rest = strings.TrimLeft(rest[1:], " \t")
	}
	for rest != "" {
		if rest[0] == '#' {
			break
		}
		var word strings.Builder
		quoted := false
		j := 0
		for ; j < len(rest); j++ {
			c := rest[j]
			if c == '"' {
				quoted = !quoted
				continue
			}
			if !quoted && (c == ' ' || c == '\t') {
				break
			}
			word.WriteByte(c)
		}
		if len(out) < maxPatterns {
			out = append(out, word.String())
		}
		rest = strings.TrimLeft(rest[j:], " \t")
	}
	return out
}

// decodeSSHD reads the keywords that decide family or source. The first value of
// a keyword counts; ports and listen addresses add up.
func (d *Dump) decodeSSHD() fact.Known[fact.SSHD] {
	if d.sshd.missing {
		return fact.Absent[fact.SSHD]()
	}
	for _, g := range d.sshd.gaps {
		d.gap(g)
	}
	main := d.sshd.pieces[0].file
	if g, ok := main.Content.Gap(); ok {
		return fact.Missing[fact.SSHD](g)
	}
	s := fact.SSHD{Origin: fact.Origin{File: main.Path}}
	type listen struct{ host, port string }
	var listens []listen
	family := false
	// A Match block ends with its file: what included the file goes on as before.
	var state [maxDepth + 1]bool
	for _, l := range d.sshd.lines() {
		if l.start && l.depth > 0 {
			state[l.depth] = state[l.depth-1]
		}
		matching := state[l.depth]
		w := sshdWords(l.text)
		if len(w) == 0 {
			continue
		}
		key := strings.ToLower(w[0])
		if len(w) < 2 {
			if key == "match" || key == "port" || key == "listenaddress" || key == "addressfamily" {
				d.gap(confd.ParseGap(l.at.File, l.at.Line))
			}
			continue
		}
		switch key {
		case "match":
			state[l.depth] = true // "Match all" too: family, port and address are refused below any Match
			if len(w) == 2 && !strings.EqualFold(w[1], "all") {
				d.gap(confd.ParseGap(l.at.File, l.at.Line))
			}
			for i := 1; i+1 < len(w); i += 2 {
				if strings.EqualFold(w[i], "address") {
					d.addPatterns(&s, "Match Address", w[i+1], "", l.at)
				}
			}
		case "addressfamily":
			if matching || family {
				continue
			}
			switch v := strings.ToLower(w[1]); v {
			case "any", "inet", "inet6":
				s.AddressFamily, family = v, true
				s.Origin = l.at
			default:
				d.gap(confd.ParseGap(l.at.File, l.at.Line))
			}
		case "port":
			if matching {
				continue
			}
			if p, err := strconv.ParseUint(w[1], 10, 16); err == nil && len(s.Ports) < 256 {
				s.Ports = append(s.Ports, uint16(p))
			} else {
				d.gap(confd.ParseGap(l.at.File, l.at.Line))
			}
		case "listenaddress":
			if matching || len(listens) >= 256 {
				continue
			}
			host, port, ok := hostPort(w[1])
			if !ok {
				d.gap(confd.ParseGap(l.at.File, l.at.Line))
				continue
			}
			listens = append(listens, listen{host, port})
		case "allowusers", "denyusers":
			action := strings.TrimSuffix(key, "users")
			name := map[string]string{"allow": "AllowUsers", "deny": "DenyUsers"}[action]
			for _, u := range w[1:] {
				if _, host, ok := strings.Cut(u, "@"); ok {
					d.addPatterns(&s, name, host, action, l.at)
				}
			}
		}
	}
	if s.AddressFamily == "" {
		s.AddressFamily = "any"
	}
	if len(s.Ports) == 0 {
		s.Ports = []uint16{22}
	}
	// A listen address without a port listens on every port.
	for _, a := range listens {
		if a.port != "" {
			s.Listen = append(s.Listen, join(a.host, a.port))
			continue
		}
		for _, p := range s.Ports {
			s.Listen = append(s.Listen, join(a.host, strconv.Itoa(int(p))))
		}
	}
	return fact.Value(s)
}

// addPatterns keeps the members of a pattern list.
func (d *Dump) addPatterns(s *fact.SSHD, keyword, list, action string, at fact.Origin) {
	for _, p := range strings.Split(list, ",") {
		negated := strings.HasPrefix(p, "!")
		p, ok := hostish(strings.TrimPrefix(p, "!"))
		if !ok || len(s.MatchAddresses) >= maxPatterns {
			d.gap(confd.ParseGap(at.File, at.Line))
			continue
		}
		if negated {
			p = "!" + p
		}
		s.MatchAddresses = append(s.MatchAddresses, fact.SourcePattern{Keyword: keyword, Pattern: p, Action: action, Origin: at})
	}
}

// hostPort takes a ListenAddress apart: host, host:port, [host]:port, address.
func hostPort(s string) (host, port string, ok bool) {
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", false
		}
		host, port = s[1:end], strings.TrimPrefix(s[end+1:], ":")
	case strings.Count(s, ":") == 1:
		host, port, _ = strings.Cut(s, ":")
	default:
		host = s
	}
	if port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", "", false
		}
	}
	host, ok = hostish(host)
	return host, port, ok
}

func join(host, port string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]:" + port
	}
	return host + ":" + port
}
