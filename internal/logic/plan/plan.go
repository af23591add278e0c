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

func (b *builder) hasRules() bool { v4, v6 := manages(b.in); return v4 || v6 }

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

func sortedUnique(l []string) []string {
	slices.Sort(l)
	return slices.Compact(l)
}
