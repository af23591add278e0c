package plan

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// TestBlocksComeOut: what our block replaced comes back byte for byte, with what others
// wrote around it meanwhile; a block that is not whole is left alone.
func TestBlocksComeOut(t *testing.T) {
	t.Parallel()
	line := rapid.OneOf(rapid.StringMatching(`[a-z =#~\[\]]{0,9}`), rapid.String(), rapid.Just("#~method=auto"))
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.Map(line, func(s string) string { return strings.ReplaceAll(s, "\n", "") + "\n" }), 0, 6).Draw(t, "lines")
		if n := len(lines); n > 0 && rapid.Bool().Draw(t, "no end") {
			lines[n-1] = strings.TrimSuffix(lines[n-1], "\n")
		}
		text := strings.Join(lines, "")
		lines = linesOf(text) // an empty last line is none
		from := rapid.IntRange(0, len(lines)).Draw(t, "from")
		to := rapid.IntRange(from, len(lines)).Draw(t, "to")
		ours := rapid.SliceOfN(rapid.StringMatching(`[a-z]+=[a-z0-9]*`), 1, 3).Draw(t, "ours")
		got := marked(strings.Join(lines[:from], ""), lines[from:to], strings.Join(lines[to:], ""), ours...)
		if _, had, _ := unmark(text); had {
			t.Skip("theirs looks like ours")
		}
		back, had, err := unmark(got)
		if err != nil || !had || back != text {
			t.Fatalf("%q became %q, and %q (%t, %v)", text, got, back, had, err)
		}
		for _, o := range ours {
			if !strings.Contains(got, "\n"+o+"\n") {
				t.Fatalf("%q is not in %q", o, got)
			}
		}
		// Somebody adds a line at the end, and one at the start.
		back, _, err = unmark("# theirs\n" + got + "more\n")
		if err != nil || !strings.HasPrefix(back, "# theirs\n") || !strings.HasSuffix(back, "more\n") || strings.Contains(back, "sixfence") {
			t.Fatalf("%q became %q, %v", got, back, err)
		}
	})
	for _, broken := range []string{markBegin + "\nx\n", "x\n" + markEnd + "\n", marked("", nil, "", "a") + marked("", nil, "", "b"), markBegin + "\n" + markBegin + "\n" + markEnd + "\n"} {
		if out, _, err := unmark(broken); !errors.Is(err, errMarks) {
			t.Errorf("%q became %q, %v", broken, out, err)
		}
	}
}

// hostOf is a site with one interface that a manager owns.
func hostOf(in *intent.Intent, name string, m fact.Manager) *site {
	m.Enabled = fact.Value(true)
	ns := &fact.Namespace{Name: "init", Links: fact.Value([]fact.Link{{Index: 2, Name: name, Type: 1}}), Sysctls: fact.Value(fact.Sysctls{})}
	return newSite(in, &fact.Snapshot{Host: fact.Host{Managers: fact.Value([]fact.Manager{m})}}, ns)
}

// sections reads a file of sections; keys may repeat.
func sections(t *rapid.T, text string) map[string][]string {
	out := map[string][]string{}
	at := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			at = line[1 : len(line)-1]
		default:
			k, v, ok := strings.Cut(line, "=")
			if !ok || at == "" {
				t.Fatalf("not a line of a section: %q in\n%s", line, text)
			}
			out[at+"."+k] = append(out[at+"."+k], v)
		}
	}
	return out
}

// TestManagersGetWhatIsMeant: whatever an interface, a definition or a router is called,
// each manager reads what the intent says, or the intent's line is refused.
func TestManagersGetWhatIsMeant(t *testing.T) {
	t.Parallel()
	name := rapid.OneOf(rapid.StringMatching(`[a-z][a-z0-9.@:_-]{0,12}`), rapid.StringMatching(`[ -~]{1,15}`), rapid.StringN(1, 8, 15))
	rapid.Check(t, func(t *rapid.T) {
		n := name.Draw(t, "name")
		if strings.ContainsAny(n, "*?[\\/") || n == "." || n == ".." || n == "lo" || strings.ContainsFunc(n, func(r rune) bool { return r == 0 }) {
			return // no name that the kernel gives, or no name but a pattern
		}
		f := intent.Interface{Addressing: rapid.SampledFrom([]intent.Addressing{intent.Static, intent.SLAAC, intent.DHCPv6, intent.NoIPv6}).Draw(t, "addressing"), PinGateway: rapid.Bool().Draw(t, "pin")}
		var routers, lists []string
		for i := range rapid.IntRange(0, 3).Draw(t, "routers") {
			a := netip.AddrFrom16([16]byte{0xfe, 0x80, 15: byte(i + 1)})
			r := intent.Router{Address: a, MAC: "52:54:00:AA:00:01", Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: byte(i)}), 64)}}
			f.Routers = append(f.Routers, r)
			routers, lists = append(routers, a.String()), append(lists, r.Prefixes[0].String())
		}
		in := &intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"x": f}}
		in.Interfaces["x"] = func() intent.Interface { f.Match.Name = n; return f }()
		believes := f.Addressing == intent.SLAAC || f.Addressing == intent.DHCPv6
		refused := func(s *site, text string) bool {
			if text != "" {
				return false
			}
			for _, p := range s.faults {
				if p.Path != "interfaces.x" || p.Hint == "" {
					t.Fatalf("refused without a place or a hint: %+v", p)
				}
			}
			if len(s.faults) == 0 {
				t.Fatalf("%q: neither written nor refused", n)
			}
			return true
		}
		text := func(files []file, p string) string {
			for _, x := range files {
				if x.path == p && !x.gone {
					return x.text
				}
			}
			return ""
		}
		none := func(string) change.Image { return change.Image{Absent: true} }
		mine := fact.ManagedInterface{Names: []string{"*"}, InUserspace: true, AcceptRA: fact.Value(true)}

		mi := mine
		mi.File = "/etc/systemd/network/10-x.network"
		s := hostOf(in, n, fact.Manager{Name: "systemd-networkd", Interfaces: []fact.ManagedInterface{mi}})
		if got := text(s.networkd(nil, none), networkdDropin(mi.File)); got != "" {
			k := sections(t, got)
			if want := map[bool]string{true: "yes", false: "no"}[believes]; !slices.Equal(k["Network.IPv6AcceptRA"], []string{want}) {
				t.Fatalf("networkd: %s", got)
			}
			if believes && len(routers) > 0 && (!slices.Equal(k["IPv6AcceptRA.RouterAllowList"], []string{"", strings.Join(routers, " ")}) || !slices.Equal(k["IPv6AcceptRA.PrefixAllowList"], []string{"", strings.Join(lists, " ")})) {
				t.Fatalf("networkd: %s", got)
			}
			if f.PinGateway && f.Addressing != intent.NoIPv6 && !slices.Equal(k["Neighbor.Address"], routers) {
				t.Fatalf("networkd: %s", got)
			}
		} else if len(s.faults) == 0 {
			t.Fatalf("%q: networkd is told nothing", n)
		}

		mi = mine
		id := name.Draw(t, "definition")
		mi.File, mi.Definition, mi.LinkLocal4 = "/etc/netplan/x.yaml", "ethernets/"+id, rapid.Bool().Draw(t, "ll4")
		s = hostOf(in, n, fact.Manager{Name: "netplan", Interfaces: []fact.ManagedInterface{mi}})
		if got := text(s.netplan(nil, none), NetplanFile); !refused(s, got) {
			var doc struct {
				Network struct {
					Version   int
					Ethernets map[string]struct {
						AcceptRA  *bool     `yaml:"accept-ra"`
						DHCP6     *bool     `yaml:"dhcp6"`
						Privacy   *bool     `yaml:"ipv6-privacy"`
						LinkLocal *[]string `yaml:"link-local"`
					}
				}
			}
			if err := yaml.UnmarshalWithOptions([]byte(got), &doc, yaml.Strict()); err != nil {
				t.Fatalf("netplan: %v\n%s", err, got)
			}
			x, ok := doc.Network.Ethernets[id]
			if !ok || doc.Network.Version != 2 || len(doc.Network.Ethernets) != 1 || x.AcceptRA == nil || *x.AcceptRA != believes || (x.DHCP6 != nil) == believes || x.Privacy == nil || *x.Privacy || (x.LinkLocal != nil) != (f.Addressing == intent.NoIPv6) {
				t.Fatalf("netplan: %+v\n%s", doc, got)
			}
			if x.LinkLocal != nil && (len(*x.LinkLocal) == 1) != mi.LinkLocal4 {
				t.Fatalf("netplan: %s", got)
			}
		}

		s = hostOf(in, n, fact.Manager{Name: "dhcpcd", Interfaces: []fact.ManagedInterface{mine}})
		theirs := "# theirs\noption x\n"
		got := text(s.dhcpcd(nil, func(string) change.Image { return change.Image{Text: theirs, Mode: 0o644} }), DHCPCDFile)
		if !believes && !refused(s, got) {
			word := map[bool]string{true: "noipv6", false: "noipv6rs"}[f.Addressing == intent.NoIPv6]
			if got != theirs+markBegin+"\ninterface "+n+"\n"+word+"\n"+markEnd+"\n" || strings.ContainsAny(n, " \t") {
				t.Fatalf("dhcpcd: %q", got)
			}
		}

		s = hostOf(in, n, fact.Manager{Name: "ifupdown", Interfaces: []fact.ManagedInterface{mine}})
		if got := text(s.ifupdown(nil, none), IfupFile); !refused(s, got) && (strings.Count(got, "\n'"+n+"')\n") != 1 || strings.ContainsAny(n, "'$`\n")) {
			t.Fatalf("ifupdown: %s", got)
		}

		mi = mine
		mi.File = nmProfiles + "x"
		s = hostOf(in, n, fact.Manager{Name: "NetworkManager", Interfaces: []fact.ManagedInterface{mi}})
		theirs = "[connection]\nid=x\n\n[ipv6]\naddr-gen-mode=0\nmethod=auto\n[proxy]\n"
		files := s.networkManager(nil, func(string) change.Image { return change.Image{Text: theirs, Mode: 0o600} })
		if len(s.faults) > 0 {
			refused(s, "")
			return
		}
		method := map[intent.Addressing]string{intent.Static: "link-local", intent.NoIPv6: "disabled"}[f.Addressing]
		got = text(files, nmProfiles+"x")
		switch k := sections(t, got); {
		case believes && got != "":
			t.Fatalf("NetworkManager: %s", got)
		case !believes && (!slices.Equal(k["ipv6.method"], []string{method}) || !slices.Equal(k["ipv6.addr-gen-mode"], []string{"0"})):
			t.Fatalf("NetworkManager: %s", got)
		}
		if got := text(files, NMConfFile); f.Addressing != intent.NoIPv6 && !slices.Equal(sections(t, got)["connection-sixfence-"+n+".match-device"], []string{"interface-name:=" + n}) {
			t.Fatalf("NetworkManager: %s", got)
		}
	})
}

// TestSecretsStayOut: a profile with a key in it is not shown, and not edited.
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	in := &intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"w0": {Addressing: intent.Static}}}
	s := hostOf(in, "w0", fact.Manager{Name: "NetworkManager", Interfaces: []fact.ManagedInterface{{Names: []string{"w0"}, File: nmProfiles + "w", InUserspace: true, AcceptRA: fact.Value(true)}}})
	files := s.networkManager(nil, func(string) change.Image {
		return change.Image{Text: "[connection]\nid=w\n[wifi-security]\npsk=secret\n[ipv6]\nmethod=auto\n", Mode: 0o600}
	})
	for _, f := range files {
		if strings.Contains(f.text, "secret") {
			t.Errorf("%s: %s", f.path, f.text)
		}
	}
	if len(s.byHand) != 1 || !strings.Contains(s.byHand[0].Remedy, "ipv6.method link-local") {
		t.Errorf("nobody says what is not done: %+v", s.byHand)
	}
}

// TestIfcfgIsLeftToItsOwner: an ifcfg file of RHEL's is not written, and nothing is said to
// be: a person gets the command, with the right reason.
func TestIfcfgIsLeftToItsOwner(t *testing.T) {
	t.Parallel()
	const file = "/etc/sysconfig/network-scripts/ifcfg-w0"
	in := &intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"w0": {Addressing: intent.Static}}}
	mi := fact.ManagedInterface{Names: []string{"w0"}, File: file, InUserspace: true, AcceptRA: fact.Value(true)}
	s := hostOf(in, "w0", fact.Manager{Name: "NetworkManager", Interfaces: []fact.ManagedInterface{mi}})
	text := "DEVICE=w0\nIPV6INIT=yes\n"
	for _, f := range s.networkManager(nil, func(string) change.Image { return change.Image{Text: text, Mode: 0o644} }) {
		if f.path == file || strings.Contains(f.text, "method=") {
			t.Errorf("%s: %s", f.path, f.text)
		}
	}
	if len(s.byHand) != 1 || !strings.Contains(s.byHand[0].Detail, file+" is an ifcfg file: sixfence writes none, and nmcli does.") || !strings.Contains(s.byHand[0].Remedy, "ipv6.method link-local (of w0)") {
		t.Errorf("what is said: %+v", s.byHand)
	}
}
