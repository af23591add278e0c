package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// risks are the trade-offs that apply to this host.
func (b *builder) risks(settings []setting, live []change.Step) {
	if disabled(b.in) {
		var gone []string
		for _, st := range live {
			for _, o := range st.Destroys {
				gone = append(gone, string(o.Kind)+" "+o.Target)
			}
		}
		if len(gone) > 0 {
			b.risk(change.Risk{ID: "disable-destroys", Severity: "high", Title: "Switching IPv6 off deletes addresses, routes and neighbours", Detail: "Switching it on again brings back ::1 and link-local addresses only. They are kept in the journal for the way back.", Evidence: gone, Remedy: "sixfence harden rollback"})
		}
	}
	b.bootRisks(live)
	// Services on ::1.
	if b.in.Families == intent.Disabled {
		socks, _ := b.ns.Sockets.Get()
		var on []string
		for _, k := range socks {
			if k.Local.Is6() && k.Local.IsLoopback() {
				on = append(on, fmt.Sprintf("%s [::1]:%d", k.Protocol, k.Port))
			}
		}
		if len(on) > 0 {
			b.risk(change.Risk{ID: "loopback-services", Severity: "high", Title: "Services that listen on ::1 can no longer be reached", Evidence: sortedUnique(on), Remedy: "families: disabled-keep-loopback, or let them listen on 127.0.0.1"})
		}
	}
	b.lifetimes(live)
	b.believed()
	b.forwardingEnds(live)
	for _, f := range b.ifaces {
		for _, r := range f.Routers {
			if f.LearnOnce && r.Accepted != nil && !*r.Accepted {
				b.learned = append(b.learned, fmt.Sprintf("%s of %s, MAC address %s", r.Address, f.key, orUnknown(r.MAC)))
			}
		}
	}
	if len(b.learned) > 0 {
		severity, detail := "medium", ""
		if len(sortedUnique(slices.Clone(b.learned))) > 1 {
			severity, detail = "high", " There is more than one router, and one of them may be such a rogue."
		}
		b.risk(change.Risk{ID: "routers-learned", Severity: severity, Title: "Routers are believed that nobody has looked at (learnOnce)", Detail: "A rogue that is on the link at this moment is believed from now on." + detail, Evidence: sortedUnique(b.learned), Remedy: "compare them with what you know, and list them under routers"})
	}
	b.tunnelRisks()
	b.uplinkRisks()
	b.bridgeRisks()
	b.moduleRisks()
	b.idleFlows()
	var others []string
	for i := range b.snap.Namespaces {
		if n := &b.snap.Namespaces[i]; n != b.ns && n.Users > 0 {
			others = append(others, n.Name)
		}
	}
	if len(others) > 0 {
		b.risk(change.Risk{ID: "namespaces-not-covered", Severity: "medium", Title: "Containers have network namespaces of their own, which this does not harden", Evidence: sortedUnique(others), Remedy: "harden their images, or their runtime's defaults"})
	}
	if v, _ := b.forwards(false); v == "" && b.in.Role == intent.RoleServer && b.containers() {
		b.risk(change.Risk{ID: "forwarding-left", Severity: "low", Title: "Forwarding is left as it is, since something here forwards for containers or guests", Remedy: "say forwarding: {ipv6: true} or false"})
	}
	b.managerRisks()
	b.sysctlRisks(settings)
}

// bootRisks are what the kernel's command line does to IPv6, or could, and what it does
// not bring back.
func (b *builder) bootRisks(live []change.Step) {
	params, _ := b.snap.Host.Boot.Parameters.Get()
	module, _ := b.snap.Host.Boot.IPv6Module.Get()
	off := params["ipv6.disable"] == "1" || module["disable"] == "1"
	const onRHEL, onDebian = "on RHEL: grubby --update-kernel=ALL ", "; on Debian: GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub; then reboot"
	switch {
	case disabled(b.in) && !off:
		b.risk(change.Risk{
			ID: "ipv6-until-sysctl", Severity: "low", Title: "IPv6 is on from the start of the kernel until systemd-sysctl has run", Detail: "ipv6.disable=1 on the kernel's command line closes that, and needs a reboot. There is then no IPv6 socket at all: programs that ask for one fail, even for 127.0.0.1.",
			Remedy: "if that is wanted, " + onRHEL + "--args=ipv6.disable=1" + onDebian,
		})
	case !disabled(b.in) && off:
		b.risk(change.Risk{
			ID: "ipv6-off-at-boot", Severity: "high", Title: "IPv6 is switched off on the kernel's command line: no setting switches it on", Detail: "Nothing of this plan about IPv6 has an effect before a reboot without ipv6.disable=1.", Evidence: []string{"ipv6.disable=1"},
			Remedy: onRHEL + "--remove-args=ipv6.disable" + onDebian + ", and plan again",
		})
	case slices.ContainsFunc(live, func(st change.Step) bool {
		return strings.HasSuffix(st.Target, "/disable_ipv6") && st.After.Text == "0"
	}):
		b.risk(change.Risk{
			ID: "enabling-is-not-all", Severity: "medium", Title: "Switching IPv6 on again brings back ::1 and link-local addresses only", Detail: "Other addresses and routes are configured by the network manager when it starts the interface next; taking back the change that switched IPv6 off brings back those it took away.",
			Remedy: "instead of this plan: sixfence harden rollback; or after it restart the network manager, or the host",
		})
	}
}

// sysctlRisks are files of others that undo ours.
func (b *builder) sysctlRisks(settings []setting) {
	say := func(list []fact.SysctlSetting, r change.Risk) {
		for _, x := range list {
			r.Evidence = append(r.Evidence, fmt.Sprintf("%s:%d %s = %s", x.Origin.File, x.Origin.Line, x.Key, x.Value))
		}
		if len(list) > 0 {
			b.risk(r)
		}
	}
	say(b.readLater(settings), change.Risk{
		ID: "sysctl-read-later", Severity: "medium", Title: "Files that are read after " + SysctlFile + " say otherwise", Detail: "At boot " + LateName + " sets ours again; an interface that comes later gets theirs.", Remedy: "delete these lines, or rename the file so that it sorts before",
	})
	say(b.readByHand(settings), change.Risk{
		ID: "sysctl-by-hand", Severity: "low", Title: "/etc/sysctl.conf says otherwise, and sysctl --system reads it last", Detail: "A boot ends with ours; somebody who runs sysctl --system by hand does not. harden status then names what changed.", Remedy: "delete these lines",
	})
}

// managerRisks say what managers do with what they are told.
func (b *builder) managerRisks() {
	for _, r := range b.byHand {
		b.risk(r)
	}
	if len(b.touched) > 0 {
		b.risk(change.Risk{ID: "foreign-file-edited", Severity: "low", Title: "Lines of ours go into files of others, which have no other place for them", Detail: "They stand between two marked lines, with what they replace; everything else stays, and a rollback or another intent takes them out again.", Evidence: sortedUnique(b.touched)})
	}
	if len(b.later) > 0 {
		b.risk(change.Risk{ID: "managers-later", Severity: "low", Title: "Network managers listen to Router Advertisements as before until they start next", Detail: b.guarded() + " What is below makes it so at once; it may interrupt the interface.", Evidence: sortedUnique(b.later)})
	}
}

// kindMechanism is which mechanism an interface of a kind is.
var kindMechanism = map[string]string{"sit": "6in4", "ipip": "ipip", "gre": "gre", "gretap": "gre", "ip6gre": "ip6gre", "ip6gretap": "ip6gre", "ip6tnl": "ip6tnl", "vti": "vti", "vti6": "vti6", "l2tp": "l2tp", "vxlan": "vxlan", "geneve": "geneve"}

// uplinkRisks are second uplinks: what comes from afar by one whose default route is not
// the best has a source that the routes lead to by another interface.
func (b *builder) uplinkRisks() {
	v4, v6 := manages(b.in)
	best, metrics, own := map[string]uint32{}, map[[2]string]uint32{}, map[[2]string]bool{}
	routes, _ := b.ns.Routes.Get()
	for _, r := range routes {
		if r.Dst.Bits() != 0 || r.Type != 1 || r.Src.Bits() > 0 || r.Family == "ipv4" && !v4 || r.Family == "ipv6" && (!v6 || disabled(b.in)) {
			continue
		}
		for _, h := range r.NextHops {
			k := [2]string{r.Family, b.linkName(h.Index)}
			if r.Table != 254 {
				own[k] = true // a table of its own, which a routing rule leads to
				continue
			}
			if m, ok := best[r.Family]; !ok || r.Priority < m {
				best[r.Family] = r.Priority
			}
			if m, ok := metrics[k]; !ok || r.Priority < m {
				metrics[k] = r.Priority
			}
		}
	}
	var late []string
	for k, m := range metrics {
		if m > best[k[0]] && !own[k] && !slices.ContainsFunc(b.ifaces, func(f iface) bool {
			return f.AsymmetricRouting && slices.ContainsFunc(f.names, func(n string) bool { return matchesPattern(n, k[1]) })
		}) {
			late = append(late, k[0]+" by "+k[1])
		}
	}
	if len(late) > 0 {
		b.risk(change.Risk{ID: "second-uplink", Severity: "medium", Title: "What comes from afar by a second uplink is dropped", Detail: "Another interface has the better default route: the sources are held to the routes.", Evidence: sortedUnique(late), Remedy: "asymmetricRouting: true on that interface, or a routing rule that sends its answers back by it"})
	}
}

// bridgeRisks says where guards cannot reach guests: bridges hand frames to the rules only
// where br_netfilter has them do so.
func (b *builder) bridgeRisks() {
	var keys []string
	for _, f := range b.ifaces {
		if f.GuardBridged {
			keys = append(keys, "interfaces."+f.key+".guardBridged")
		}
	}
	if len(keys) == 0 || !b.hasRules() {
		return
	}
	will := func(key string) bool {
		for k, v := range b.in.Sysctls {
			if strings.ReplaceAll(k, "/", ".") == "net.bridge."+key {
				return v != "0"
			}
		}
		now, _ := b.ns.Sysctls.Get()
		v, ok := now.Get("net/bridge/" + key).Get()
		return ok && v != "0"
	}
	const all, tagged = "bridge-nf-call-ip6tables", "bridge-nf-filter-vlan-tagged"
	remedy := "let br_netfilter be loaded at boot (/etc/modules-load.d) and set sysctls: {net.bridge.%s: \"1\"}; the chains of every other table then see bridged packets, too. Or filter in a table of family bridge, or at the hypervisor's manager"
	switch {
	case !will(all):
		b.risk(change.Risk{ID: "guards-miss-guests", Severity: "high", Title: "What guests send each other passes the guards: it never comes to the rules", Detail: "Bridges hand it to them only with br_netfilter and net.bridge." + all + ".", Evidence: sortedUnique(keys), Remedy: fmt.Sprintf(remedy, all)})
	case !will(tagged):
		b.risk(change.Risk{ID: "guards-miss-tagged", Severity: "medium", Title: "Frames with a VLAN tag pass the guards between guests, also such with the tag 0, which a guest takes for untagged", Evidence: sortedUnique(keys), Remedy: fmt.Sprintf("sysctls: {net.bridge.%s: \"1\"}, or a bridge that filters VLANs", tagged)})
	}
}

func (b *builder) tunnelRisks() {
	if b.in.Tunnels.Policy == intent.TunnelsAllow {
		return
	}
	links, _ := b.ns.Links.Get()
	listed := b.in.ListedPorts()
	port := func(x span) bool {
		return slices.ContainsFunc(listed, func(p intent.Port) bool { return p.Name == "udp" && p.From == x.from && p.To == x.to })
	}
	var used []string
	for _, l := range links {
		m := kindMechanism[l.Kind]
		if m == "" || l.Flags&1 == 0 || len(mechanisms[m].udp) > 0 && slices.ContainsFunc(mechanisms[m].udp, port) || l.Tunnel != nil && l.Tunnel.Fallback {
			continue
		}
		if !slices.ContainsFunc(b.in.Tunnels.List, func(t intent.Tunnel) bool {
			return slices.Equal(mechanisms[t.Mechanism].protos, mechanisms[m].protos) && slices.Equal(mechanisms[t.Mechanism].udp, mechanisms[m].udp)
		}) {
			used = append(used, l.Name+" ("+l.Kind+")")
		}
	}
	if len(used) > 0 {
		b.risk(change.Risk{ID: "tunnels-in-use", Severity: "high", Title: "Tunnels that are in use stop", Evidence: used, Remedy: "list them under tunnels: with their mechanism and peer"})
	}
	if v4, v6 := manages(b.in); v6 && !v4 {
		b.risk(change.Risk{ID: "tunnels-over-ipv4", Severity: "medium", Title: "IPv6 inside IPv4 (6in4, Teredo) is not stopped", Detail: "No rule matches an IPv4 packet, as firewall.manage says.", Remedy: "firewall: {manage: both}, or block protocol 41 and udp/3544 where IPv4 is filtered"})
	}
}

func (b *builder) moduleRisks() {
	m := b.snap.Host.Modules
	loaded, _ := m.Loaded.Get()
	builtin, _ := m.Builtin.Get()
	var on, fixed []string
	for _, n := range b.blocked() {
		if slices.Contains(loaded, n) {
			on = append(on, n)
		}
		if slices.Contains(builtin, n) {
			fixed = append(fixed, n)
		}
	}
	if len(on) > 0 {
		b.risk(change.Risk{ID: "modules-loaded", Severity: "low", Title: "Modules that are to be blocked are loaded, and stay until a reboot", Evidence: on, Remedy: "rmmod " + strings.Join(on, " ") + ", or reboot"})
	}
	var first []string
	ds, _ := b.snap.Host.Files.Modprobe.Get()
	for _, n := range b.blocked() {
		x := bootconf.Module(ds, n)
		if x.How != bootconf.NotBlocked && x.How != bootconf.BlacklistOnly && !x.Effective() && path.Base(x.By.Origin.File) < path.Base(ModprobeFile) {
			first = append(first, fmt.Sprintf("%s:%d %s %s", x.By.Origin.File, x.By.Origin.Line, x.By.Verb, x.By.Module))
		}
	}
	if len(first) > 0 {
		b.risk(change.Risk{ID: "modules-first-line", Severity: "medium", Title: "Files that are read before " + ModprobeFile + " let modules load", Detail: "Of several install lines of a module the first counts.", Evidence: first, Remedy: "delete these lines"})
	}
	if len(fixed) > 0 {
		b.risk(change.Risk{ID: "modules-builtin", Severity: "low", Title: "Tunnels are built into this kernel: no file keeps them out", Evidence: fixed, Remedy: "the rules stop their packets; another kernel would lack them"})
	}
}
