package check

import (
	"strings"

	"github.com/sixfence/sixfence/internal/model/finding"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// baseChain finds where to put a rule for IPv6: a filtering base chain of a hook, in
// the table that decided where there is one.
func (s *Space) baseChain(h rs.Hook, decided string) *rs.Chain {
	var best *rs.Chain
	for _, t := range s.reach().Model.Set.Tables {
		if t.Dormant || t.Family != rs.Inet && t.Family != rs.IPv6 {
			continue
		}
		for _, c := range t.Chains {
			if c.Base == nil || c.Base.Hook != h || c.Base.Type == "nat" {
				continue
			}
			name := t.Family.String() + " " + t.Name
			switch {
			case strings.TrimSuffix(decided, " (legacy)") == name:
				return c
			case best == nil, c.Base.Policy == rs.Drop && best.Base.Policy != rs.Drop:
				best = c
			}
		}
	}
	return best
}

// put is the command that puts a rule first where it counts, in the words of the
// tool that keeps the chain: nft's match and verdict, and ip6tables' (empty when it
// has none).
func (s *Space) put(h rs.Hook, decided, nftRule, ip6tables string) finding.Remediation {
	c := s.baseChain(h, decided)
	switch {
	case c == nil && ip6tables != "" && h == rs.Input:
		return command("%s", s.Run(nft("add table inet guard; add chain inet guard input { type filter hook input priority 0; }; add rule inet guard input "+nftRule)))
	case c != nil && (!plainName(c.Table.Name) || !plainName(c.Name)):
		return advice("%s", "Where the rules are kept, put first: "+nftRule)
	case c == nil:
		return advice("%s", "nft rule: "+nftRule)
	case ip6tables != "" && c.Table.Source == rs.XTables:
		return command("%s", s.Run("ip6tables-legacy -I "+shellWord(c.Name)+" "+ip6tables))
	case ip6tables != "" && c.Table.Family == rs.IPv6 && strings.ToUpper(c.Name) == c.Name:
		return command("%s", s.Run("ip6tables -I "+shellWord(c.Name)+" "+ip6tables))
	}
	return command("%s", s.Run(nft("insert rule "+c.Table.Family.String()+" "+c.Table.Name+" "+c.Name+" "+nftRule)))
}

// decided is the table that decided a fate; empty when none did.
func decided(a answered) string {
	if len(a.by.DecidedBy) == 0 {
		return ""
	}
	return a.by.DecidedBy[0].Table
}

// lasts says how to make a rule last, for the manager that keeps the rules.
func (s *Space) lasts() finding.Remediation {
	for _, t := range s.reach().Model.Set.Tables {
		switch {
		case t.Name == "firewalld":
			return advice("firewalld keeps these rules: say it to firewall-cmd --permanent (a zone, a service or a policy), or the next reload takes the rule away.")
		case hasChain(t, "ufw6-"), hasChain(t, "ufw-"):
			return advice("ufw keeps these rules: put it into /etc/ufw/before6.rules (IPv6) and before.rules, then ufw reload.")
		}
	}
	return advice("Write it to the file that is loaded at boot as well (/etc/nftables.conf, /etc/sysconfig/nftables.conf, /etc/iptables/rules.v6), or it is gone after a reboot.")
}

func hasChain(t *rs.Table, prefix string) bool {
	for _, c := range t.Chains {
		if strings.HasPrefix(c.Name, prefix) {
			return true
		}
	}
	return false
}

// plainName tells whether nft reads a name as one word: whoever made the table chose it.
func plainName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.')
	}) < 0
}

// plainKey makes a subject's key of characters that no shell reads, so that the
// commands of its finding stay commands.
func plainKey(s string) string {
	return strings.Map(func(r rune) rune {
		if plainName(string(r)) || r == '/' || r == ',' {
			return r
		}
		return '-'
	}, s)
}
