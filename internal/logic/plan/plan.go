package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

func lower(s string) string { return strings.ToLower(s) }

// New says what it takes to make a host what the intent wants. What stands in the way is
// in Refusals, and what could not be known in Gaps; the Plan itself is never an error.
func New(in intent.Intent, s *fact.Snapshot, o Options) change.Plan {
	p := change.Plan{SchemaVersion: change.Version, Checks: in.Checks, Administered: o.Administered}
	p.IntentHash, _ = in.Hash()
	p.Intent = &in
	ns := namespace(s, o.Namespace)
	if ns == nil {
		p.Refusals = append(p.Refusals, change.Refusal{ID: "no-namespace", Title: "The network namespace is not in the Snapshot", WayOut: "read the host as root"})
		return sealed(p)
	}
	p.Namespace = ns.Name
	st := newSite(&in, s, ns)
	b := &builder{site: st, p: &p, o: o}
	b.unaccepted()
	text := st.rules()
	settings := st.settings()
	var theirs []ExportFile
	if in.Drift == intent.DriftRestore && in.Files.Owner != "" {
		st.fault("drift", "take drift out, or files.owner", "restoring needs a unit of ours, and files.owner says that the files are somebody else's")
	}
	if in.Files.Owner == "" {
		p.Steps = append(p.Steps, st.pins()...)
	} else {
		text, theirs = b.exported()
	}
	b.table(text)
	live, gap := st.live(settings)
	if gap != nil {
		p.Gaps = append(p.Gaps, *gap)
	}
	if !disabled(&in) {
		live = append(live, b.enabled(settings)...)
	}
	p.Steps = append(p.Steps, live...)
	if in.Files.Owner == "" {
		b.files(append(st.files(text, settings, b.read), st.keep(o.Program)...))
		b.keepLearned()
	} else {
		b.compare(theirs)
	}
	b.risks(settings, live)
	b.routers()
	b.prove(text)
	for _, f := range st.faults {
		p.Refusals = append(p.Refusals, change.Refusal{ID: "intent", Title: f.Error(), WayOut: f.Hint})
	}
	return sealed(p)
}

// sealed gives a Plan its ID.
func sealed(p change.Plan) change.Plan {
	if p.Steps == nil {
		p.Steps = []change.Step{}
	}
	p.ID = ""
	b, err := json.Marshal(p)
	if err != nil { // cannot be: a Plan is made of text and numbers
		p.Refusals = append(p.Refusals, change.Refusal{ID: "internal", Title: err.Error(), WayOut: "report it"})
	}
	h := sha256.Sum256(b)
	p.ID = hex.EncodeToString(h[:])
	return p
}

// builder fills a Plan.
type builder struct {
	*site
	p       *change.Plan
	o       Options
	planned []*rs.Table // as the kernel would hold them; nil: not known, or none
	decoded bool
}

func (b *builder) refuse(id, title, wayOut, detail string) {
	b.p.Refusals = append(b.p.Refusals, change.Refusal{ID: id, Title: title, WayOut: wayOut, Detail: detail})
}

func (b *builder) risk(r change.Risk) { b.p.Risks = append(b.p.Risks, r) }

func (b *builder) gap(reason fact.Reason, what string) {
	b.p.Gaps = append(b.p.Gaps, fact.Gap{Reason: reason, What: what})
}

// unaccepted refuses routers that nobody has looked at.
func (b *builder) unaccepted() {
	for _, f := range b.ifaces {
		for j, r := range f.Routers {
			if r.Accepted != nil && !*r.Accepted && !f.LearnOnce {
				b.refuse("router-unaccepted", fmt.Sprintf("Nobody has accepted the router %s of %s", r.Address, f.key),
					fmt.Sprintf("make sure that it is yours (its MAC address is %s), then set interfaces.%s.routers[%d].accepted to true, or delete the entry", orUnknown(r.MAC), f.key, j),
					"It was seen when the file was written. A rogue that was there at that moment would be believed for good.")
			}
		}
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "not known"
	}
	return s
}

// table adds the step that loads the rules, when they differ from what is loaded.
func (b *builder) table(text string) {
	old := b.ours()
	st := change.Step{ID: "table:" + Table, Kind: change.Table, Phase: change.Runtime, Target: Table, Before: change.Image{Absent: true}, After: change.Image{Absent: true}, Why: []string{"firewall"}}
	if old != nil {
		st.Before = change.Image{Text: b.o.Table}
		if b.o.Table == "" {
			st.Before.Text = canonical(old)
		}
	}
	if text != "" {
		st.After = change.Image{Text: text}
		if b.o.Decode == nil {
			b.gap(fact.NotCollected, "who reaches what after the change: the rules were not decoded")
		} else if set, err := b.o.Decode(text); err != nil {
			b.gap(fact.NotCollected, "who reaches what after the change: "+err.Error())
		} else {
			b.planned, b.decoded = set.Tables, true
		}
	} else {
		b.decoded = true
	}
	switch {
	case old == nil && text == "":
		return
	case old != nil && text != "" && b.decoded && len(b.planned) == 1 && canonical(old) == canonical(b.planned[0]):
		return
	}
	b.p.Steps = append(b.p.Steps, st)
}

// withoutUnits leaves out what only systemd would start: what it is for holds until the
// next start of the host.
func (b *builder) withoutUnits(list []file) []file {
	var rest []file
	var lost []string
	for _, f := range list {
		if strings.HasPrefix(f.path, "/etc/systemd/system/") {
			lost = append(lost, path.Base(f.path))
			continue
		}
		if f.path == SysctlFile {
			f.text = b.plainSysctls(f.text)
		}
		rest = append(rest, f)
	}
	if len(lost) > 0 {
		b.risk(change.Risk{
			ID: "no-boot-hook", Severity: "high", Title: "The rules hold until this host starts again: it has no systemd to load them",
			Detail: "Without systemd these are left out: " + strings.Join(lost, ", ") + ". The kernel settings are read at boot if something reads /etc/sysctl.d there; a sysctl that knows no patterns, as busybox', sets those of the interfaces of the intent, and none of interfaces that come later.",
			Remedy: "have your init load " + RulesFile + " with nft -f before the network comes up",
		})
	}
	return rest
}

// files adds the steps that write, and those that take away what an earlier intent
// wanted.
func (b *builder) files(list []file) {
	if b.o.NoSystemd {
		list = b.withoutUnits(list)
	}
	changed := map[string]bool{}
	have := map[string]bool{}
	for _, f := range list {
		have[f.path] = true
		before := b.read(f.path)
		after := change.Image{Text: f.text, Mode: f.mode}
		switch {
		case f.gone && before.Absent:
			continue
		case f.gone:
			after = change.Image{Absent: true}
		case f.edit:
			after = before
			after.Text = f.text
		}
		if after == before || !before.Absent && before.Text == f.text && before.Mode == f.mode && before.UID == 0 && before.GID == 0 && !f.gone {
			continue
		}
		changed[f.path] = true
		b.p.Steps = append(b.p.Steps, change.Step{ID: "file:" + f.path, Kind: change.File, Phase: change.Persist, Target: f.path, Before: before, After: after, Why: f.why})
	}
	for _, path := range []string{RulesFile, UnitFile, SysctlFile, LateFile, KeepFile, ModprobeFile} {
		if have[path] {
			continue
		}
		if before := b.read(path); !before.Absent {
			changed[path] = true
			b.p.Steps = append(b.p.Steps, change.Step{ID: "file:" + path, Kind: change.File, Phase: change.Persist, Target: path, Before: before, After: change.Image{Absent: true}, Why: []string{"intent"}})
		}
	}
	for _, u := range []struct{ name, file, wants, why string }{
		{UnitName, UnitFile, "sysinit.target", "FW-32"}, {LateName, LateFile, "multi-user.target", "INV-08"}, {KeepName, KeepFile, "multi-user.target", "drift"},
	} {
		enabled := !b.read("/etc/systemd/system/" + u.wants + ".wants/" + u.name).Absent
		word := map[bool]string{true: "enabled", false: "disabled"}
		if want := have[u.file]; want != enabled {
			b.p.Steps = append(b.p.Steps, change.Step{ID: "unit:" + u.name, Kind: change.Unit, Phase: change.AfterConfirm, Target: u.name, Before: change.Image{Text: word[enabled]}, After: change.Image{Text: word[want]}, Why: []string{u.why}})
		}
	}
	action := func(name string, why ...string) {
		b.p.Steps = append(b.p.Steps, change.Step{ID: "action:" + name, Kind: change.Action, Phase: change.AfterConfirm, Target: name, Why: why})
	}
	if loadable, ok := b.snap.Host.Modules.Supported.Get(); changed[ModprobeFile] && (!ok || loadable) {
		action("initramfs", "TUN-05")
	}
	for _, x := range []struct{ dir, action, why string }{
		{"/etc/netplan/", "netplan-generate", "RA-03"}, // before those who read what it writes
		{"/etc/systemd/network/", "networkctl-reload", "RA-02"},
		{"/etc/NetworkManager/", "nmcli-reload", "RA-03"},
	} {
		if slices.ContainsFunc(sortedKeys(changed), func(p string) bool { return strings.HasPrefix(p, x.dir) }) {
			action(x.action, x.why)
		}
	}
}

func (b *builder) read(p string) change.Image {
	if b.o.Read == nil {
		return change.Image{Absent: true}
	}
	im, err := b.o.Read(p)
	if err != nil {
		b.gap(fact.Permission, "file "+p+": "+err.Error())
		return change.Image{Absent: true}
	}
	return im
}

// routers refuses what would take the live default route away (RB-06).
func (b *builder) routers() {
	if disabled(b.in) {
		return
	}
	routes, ok := b.ns.Routes.Get()
	if !ok {
		b.gap(fact.NotCollected, "default routes")
		return
	}
	// Another default route that does not come from an RA carries what the RA's did.
	fixed := false
	for _, r := range routes {
		if r.Family == "ipv6" && r.Dst.Bits() == 0 && r.Type == 1 && r.Table == 254 && r.Protocol != fact.ProtoRA {
			fixed = true
		}
	}
	var announced []fact.NextHop
	for _, r := range routes {
		if r.Family == "ipv6" && r.Dst.Bits() == 0 && r.Type == 1 && r.Table != 255 && r.Protocol == fact.ProtoRA {
			announced = append(announced, r.NextHops...)
		}
	}
	// One that stays carries what the others did: a rogue's is not missed.
	for _, h := range announced {
		if why, wanted := b.unbelieved(h); wanted && why == "" {
			fixed = true
		}
	}
	for _, h := range announced {
		name := b.linkName(h.Index)
		key := b.sel.Keys[name]
		why, _ := b.unbelieved(h)
		if why == "" {
			continue
		}
		detail := fmt.Sprintf("The default route via %s on %s comes from Router Advertisements, and %s. It would stay until its lifetime ends, and then be gone.", h.Via, name, why)
		if fixed {
			b.risk(change.Risk{ID: "ra-default-route-expires", Severity: "medium", Title: "A default route that comes from Router Advertisements ends", Detail: detail, Evidence: []string{fmt.Sprintf("default via %s dev %s proto ra", h.Via, name)}, Remedy: fmt.Sprintf("another default route is there; if this router is none of yours, do not wait for the end: ip -6 route del default via %s dev %s", h.Via, name)})
			continue
		}
		b.refuse("default-router-lost", "The default route over IPv6 would go", fmt.Sprintf("add {address: %q} to interfaces.%s.routers with addressing: slaac or dhcpv6 if the router is yours, or configure a static default route first", h.Via, orName(key, name)), detail)
	}
}

// unbelieved says why a router whose advertisements made a default route will no longer
// be believed; nothing when it will. wanted is false where there is to be no IPv6.
func (b *builder) unbelieved(h fact.NextHop) (why string, wanted bool) {
	name := b.linkName(h.Index)
	f, key := b.in.Of(b.sel, name), b.sel.Keys[name]
	for _, x := range b.ifaces {
		if x.key == key {
			f = x.Interface // with what was learned
		}
	}
	is := func(x intent.Router) bool { return x.Address == h.Via }
	switch {
	case f.Addressing == intent.NoIPv6:
		return "", false // it is meant to go
	case f.Addressing != intent.SLAAC && f.Addressing != intent.DHCPv6:
		return "addressing is static there: no Router Advertisement is believed", true
	case !slices.ContainsFunc(f.Routers, is):
		return "the router is not among interfaces." + key + ".routers", true
	case !slices.ContainsFunc(f.Routers, func(x intent.Router) bool { return is(x) && b.sameMAC(h, x.MAC) }):
		return "its MAC address is another than interfaces." + key + ".routers says", true
	}
	return "", true
}

func orName(key, name string) string {
	if key == "" {
		return name
	}
	return key
}

// sameMAC tells whether a next hop is the machine that was declared, as far as the
// neighbour cache knows.
func (b *builder) sameMAC(h fact.NextHop, mac string) bool {
	ns, _ := b.ns.Neighbours.Get()
	for _, n := range ns {
		if n.Index == h.Index && n.Address == h.Via && n.MAC != "" && mac != "" {
			return strings.EqualFold(n.MAC, mac)
		}
	}
	return true
}

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

func (b *builder) hasRules() bool { v4, v6 := manages(b.in); return v4 || v6 }

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

func sortedUnique(l []string) []string {
	slices.Sort(l)
	return slices.Compact(l)
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
	var used []string
	for _, l := range links {
		m := kindMechanism[l.Kind]
		port := func(x span) bool { return slices.Contains(b.listedPorts(), "udp/"+x.String()) }
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
