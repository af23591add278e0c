package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// intention is what a program's configuration says about families.
type intention struct {
	programs []string // base names of executables
	ports    []uint16
	origin   fact.Origin
	says     string
}

// intentions are the configurations that name IPv4 addresses only.
func (c *Context) intentions() (out []intention, gaps []fact.Gap) {
	apps := &c.Snap.Host.Apps
	if d, ok := apps.SSHD.Get(); ok {
		var says string
		switch {
		case d.AddressFamily == "inet":
			says = "AddressFamily inet"
		case onlyIPv4(d.Listen):
			says = "ListenAddress " + strings.Join(d.Listen, ", ")
		}
		if says != "" {
			ports := d.Ports
			if len(ports) == 0 {
				ports = []uint16{22}
			}
			for _, l := range d.Listen {
				if ap, err := netip.ParseAddrPort(l); err == nil {
					ports = append(slices.Clone(ports), ap.Port())
				}
			}
			out = append(out, intention{[]string{"sshd", "systemd"}, ports, d.Origin, says})
		}
	} else if g := gapAs(apps.SSHD, "sshd_config"); g != nil {
		gaps = append(gaps, *g)
	}
	if ps, ok := apps.Postgres.Get(); ok {
		for _, p := range ps {
			if onlyIPv4(p.Listen) {
				port := cmp.Or(p.Port, 5432)
				out = append(out, intention{[]string{"postgres", "postmaster"}, []uint16{port}, p.Origin, "listen_addresses = '" + strings.Join(p.Listen, ",") + "'"})
			}
		}
	} else if g := gapAs(apps.Postgres, "PostgreSQL's configuration"); g != nil {
		gaps = append(gaps, *g)
	}
	return out, gaps
}

// onlyIPv4 tells whether every listed address is an IPv4 one. Names and
// wildcards may be either.
func onlyIPv4(list []string) bool {
	for _, l := range list {
		a, err := netip.ParseAddr(l)
		if err != nil {
			ap, err := netip.ParseAddrPort(l)
			if err != nil {
				return false
			}
			a = ap.Addr()
		}
		if !a.Is4() {
			return false
		}
	}
	return len(list) > 0
}

// closePort closes a socket's port for IPv6 from outside, in either tool, and
// says how to make that last.
func (s *Space) closePort(a *ear) []finding.Remediation {
	out := []finding.Remediation{command("%s", s.Run(fmt.Sprintf("ip6tables -I INPUT ! -i lo -p %s --dport %d -j DROP", a.Protocol, a.Port)))}
	out = append(out, command("%s", s.Run(nft(fmt.Sprintf("add table inet guard; add chain inet guard input { type filter hook input priority 0; }; add rule inet guard input iifname != lo meta nfproto ipv6 %s dport %d drop", a.Protocol, a.Port)))))
	switch base := baseName(a.exe); base {
	case "postgres", "postmaster":
		out = append(out, advice("Then set listen_addresses = '127.0.0.1, ::1' in postgresql.conf and restart PostgreSQL."))
	case "redis-server", "valkey-server":
		out = append(out, advice("Then set bind 127.0.0.1 ::1 in redis.conf and restart it."))
	case "mysqld", "mariadbd":
		out = append(out, advice("Then set bind-address = 127.0.0.1,::1 and restart it."))
	case "sshd":
		out = append(out, advice("Then restart sshd, or, where systemd holds the socket, write the addresses into ssh.socket."))
	default:
		out = append(out, advice("Then bind the service to ::1 (or to the addresses it is meant for, in both families) in its own configuration."))
	}
	return append(out, intent("services: []   # a port that is not listed is closed in both families"))
}

func configuredForIPv4(c *Context) []Result {
	want, gaps := c.intentions()
	return c.eachEars(func(s *Space, e *ears) []Result {
		var out []Result
		var doubts []fact.Gap
		six := 0
		for i := range e.list {
			a := &e.list[i]
			if a.Family != "ipv6" || a.Protocol != "tcp" || a.v6 == nobody || c.ownRoot(a.Socket) {
				continue
			}
			six++
			if g := gapOf(a.Owners); g != nil && a.exe == "" && len(want) > 0 && !slices.Contains(doubts, *g) {
				doubts = append(doubts, *g)
			}
			for _, in := range want {
				if !slices.Contains(in.ports, a.Port) || !slices.Contains(in.programs, baseName(a.exe)) {
					continue
				}
				sub := s.socketSubject(a)
				msg := fmt.Sprintf("%s says %s, and %s holds %s, which takes %s.", in.origin.File, in.says, a.exe, endpoint(a), takes(a))
				ev := []finding.Evidence{s.socketEvidence(a), written(in.origin, "configured", in.says)}
				if a.v6 == thisHost && a.gap6 == nil {
					out = append(out, pass(sub, msg+" Nobody else can send to it.", ev...))
					continue
				}
				r := fail(sub, msg, ev...)
				r.Remediation, r.port = s.closePort(a), a.Port
				out = append(out, s.behindPort("ipv6", sub.Interface, r))
			}
		}
		if len(out) > 0 {
			return fold(out)
		}
		doubts = append(doubts, gaps...)
		if six > 0 && len(doubts) > 0 {
			return []Result{unknown(s.Subject(), doubts...)}
		}
		if six == 0 {
			return []Result{notApplicable(s.Subject(), "No TCP socket of the IPv6 family is held by a program that reads the configuration of this file system.")}
		}
		return []Result{pass(s.Subject(), fmt.Sprintf("%s of the IPv6 family; none contradicts a configuration that was read (sshd, PostgreSQL). What other programs were meant to do is not known.", count(six, "TCP listener")))}
	})
}

// ownRoot tells whether a socket belongs to a process with files of its own.
func (c *Context) ownRoot(k *fact.Socket) bool {
	pids, _ := k.Owners.Get()
	return slices.ContainsFunc(pids, func(pid int) bool { p := c.procs[pid]; return p != nil && (p.Root || p.Container != "") })
}
