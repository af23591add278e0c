// Package names asks the resolvers of this host about the name of a target, each of them
// about each family, and measures how fast the addresses take a connection.
//
// Questions go to the resolvers in /etc/resolv.conf and to nobody else.
package names

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxServers is how many resolvers the C library asks.
const maxServers = 3

// maxFile bounds a file of names, in bytes.
const maxFile = 4 << 20

// System is how this host finds the addresses of a name.
type System struct {
	Servers []netip.AddrPort
	Search  []string
	Ndots   int
	hosts   map[string][]netip.Addr
}

// ReadSystem reads /etc/resolv.conf and /etc/hosts. What is missing is as the C library
// takes it to be.
func ReadSystem() *System {
	s := &System{Ndots: 1, hosts: map[string][]netip.Addr{}}
	if f, err := os.Open("/etc/resolv.conf"); err == nil {
		s.resolvConf(f)
		f.Close()
	}
	if f, err := os.Open("/etc/hosts"); err == nil {
		s.hostsFile(f)
		f.Close()
	}
	if len(s.Servers) == 0 {
		s.Servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return s
}

func (s *System) resolvConf(r io.Reader) {
	for sc := bufio.NewScanner(io.LimitReader(r, maxFile)); sc.Scan(); {
		line := sc.Text()
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil && len(s.Servers) < maxServers {
				s.Servers = append(s.Servers, netip.AddrPortFrom(a, 53))
			}
		case "domain":
			s.Search = f[1:2]
		case "search":
			s.Search = f[1:min(len(f), 7)]
		case "options":
			for _, o := range f[1:] {
				if n, err := strconv.Atoi(strings.TrimPrefix(o, "ndots:")); err == nil && strings.HasPrefix(o, "ndots:") {
					s.Ndots = min(max(n, 0), 15)
				}
			}
		}
	}
}

func (s *System) hostsFile(r io.Reader) {
	for sc := bufio.NewScanner(io.LimitReader(r, maxFile)); sc.Scan(); {
		line, _, _ := strings.Cut(sc.Text(), "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		for _, n := range f[1:] {
			n = plain(n)
			if !slices.Contains(s.hosts[n], a) {
				s.hosts[n] = append(s.hosts[n], a)
			}
		}
	}
}

// plain is a name as names are compared.
func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// InHosts tells whether /etc/hosts has the name: DNS is then not asked.
func (s *System) InHosts(name string) bool { return len(s.hosts[plain(name)]) > 0 }

// candidates are the names that are asked for one after the other, as resolv.conf(5) says.
func (s *System) candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var out []string
	for _, d := range s.Search {
		if d = strings.Trim(d, "."); d != "" {
			out = append(out, name+"."+d+".")
		}
	}
	if strings.Count(name, ".") >= s.Ndots {
		return append([]string{name + "."}, out...)
	}
	return append(out, name+".")
}
