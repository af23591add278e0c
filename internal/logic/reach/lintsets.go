package reach

import (
	"fmt"
	"slices"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// fillable finds guards that stand on a set which senders fill: once it is full,
// newcomers are not added, and the rule does not match them.
func (l *linter) fillable(c *rs.Chain) {
	for i, r := range c.Rules {
		for _, e := range r.Exprs {
			d, ok := e.(rs.Dynset)
			if !ok || d.Invert || d.Op == 2 {
				continue
			}
			set := c.Table.Sets[d.Set]
			if set == nil {
				continue
			}
			s := l.shape(r)
			size := fmt.Sprintf("the set %s holds %d senders", d.Set, set.Size)
			if set.Size == 0 {
				size = fmt.Sprintf("the set %s holds 65535 senders (the kernel's default)", d.Set)
			}
			over := slices.ContainsFunc(append(slices.Clone(d.Exprs), set.Exprs...), func(e rs.Expr) bool { n, ok := e.(rs.Limit); return ok && n.Over })
			switch {
			case s.ends(rs.Accept):
				drops := c.Base != nil && c.Base.Policy == rs.Drop
				for j := i + 1; j < len(c.Rules) && !drops; j++ {
					o := l.shape(c.Rules[j])
					drops = o.ends(rs.Drop) && o.exact && l.x.inside(s.seen, o.branches[0].box)
				}
				if drops {
					l.add(LintFailClosed, Medium, c.Table, c, r, fmt.Sprintf("The rule accepts only what it can put into the set %s: when somebody has filled it with made-up senders, everybody else is dropped.", d.Set),
						"turn it round: drop what is over the limit (`limit rate over … drop`) and accept the rest", size)
				}
			case over && s.ends(rs.Drop) && !set.Timeout:
				l.add(LintFailOpen, Low, c.Table, c, r, fmt.Sprintf("The rule limits only senders that fit into the set %s, and they never leave it: once it is full, new ones are not limited.", d.Set),
					"give the set a timeout", size)
			}
		}
	}
}

// managerOf guesses who keeps a table, by the names that the managers use.
func managerOf(t *rs.Table) string {
	has := func(prefix string) bool {
		return slices.ContainsFunc(t.Chains, func(c *rs.Chain) bool { return strings.HasPrefix(c.Name, prefix) })
	}
	switch {
	case t.Name == "firewalld" || has("INPUT_direct") || has("IN_public") || has("PREROUTING_direct") || has("PREROUTING_POLICIES"):
		return "firewalld"
	case has("ufw-") || has("ufw6-"):
		return "ufw"
	case has("DOCKER") || strings.HasPrefix(t.Name, "docker-"):
		return "docker"
	case has("KUBE-") || strings.HasPrefix(t.Name, "kube-proxy"):
		return "kube-proxy"
	case has("cali-") || t.Name == "calico":
		return "calico"
	case strings.HasPrefix(t.Name, "f2b-"):
		return "fail2ban"
	case has("LIBVIRT_") || t.Name == "libvirt_network":
		return "libvirt"
	case has("CNI-"):
		return "cni"
	case has("NETAVARK") || t.Name == "netavark":
		return "netavark"
	case t.Name == "lxc":
		return "lxc"
	case has("shorewall") || has("HOST_BLOCK_") || has("SMART_REJECT"):
		return "a generator" // Shorewall, Arno's script, FireHOL
	}
	return ""
}

// across looks at all tables together.
func (l *linter) across() {
	var nft, legacy, hosts []string
	drops := map[string][]string{}
	for _, t := range l.sp.Model.Set.Tables {
		if t.Dormant {
			continue
		}
		filters := false
		for _, c := range t.Chains {
			if c.Base == nil || c.Base.Hook != rs.Input && c.Base.Hook != rs.Forward && c.Base.Hook != rs.Prerouting {
				continue
			}
			filters = filters || len(c.Rules) > 0 || c.Base.Policy == rs.Drop
			if c.Base.Policy == rs.Drop && c.Base.Type == "filter" {
				for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
					if t.Family == rs.Inet || t.Family == f {
						key := FamilyWord(f) + " " + c.Base.Hook.String()
						drops[key] = append(drops[key], tableName(t)+" "+c.Name)
					}
				}
			}
		}
		if !filters {
			continue
		}
		if t.Source == rs.XTables {
			legacy = append(legacy, tableName(t))
		} else {
			nft = append(nft, tableName(t))
		}
		m := managerOf(t)
		if (m == "firewalld" || m == "ufw") && !slices.Contains(hosts, m) {
			hosts = append(hosts, m)
		}
	}
	if len(nft) > 0 && len(legacy) > 0 {
		l.add(LintNFTAndLegacy, Medium, nil, nil, nil, "nf_tables and legacy x_tables both filter: a packet must pass both, and `nft list ruleset` does not show the second.",
			"move the legacy rules to nf_tables (iptables-legacy-save, iptables-nft-restore), then flush them", "nf_tables: "+strings.Join(nft, ", "), "legacy: "+strings.Join(legacy, ", "))
	}
	if len(hosts) > 1 {
		l.add(LintTwoManagers, Medium, nil, nil, nil, "Two firewall managers keep rules here: "+strings.Join(hosts, " and ")+". What one allows the other may drop, and each overwrites at its own time.", "switch one of them off, and reboot")
	}
	for _, k := range sortedKeys(drops) {
		if len(drops[k]) > 1 {
			l.add(LintSeveralDrops, Low, nil, nil, nil, "Several base chains drop by policy on "+k+": accept ends one chain only, and what one accepts the other still drops.", "keep one that drops by policy", drops[k]...)
		}
	}
}
