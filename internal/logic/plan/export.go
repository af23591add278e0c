package plan

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// ExportFile is a file for people who bring it to the host by themselves.
type ExportFile struct {
	Name  string // in the directory of the export
	Path  string // where it belongs on the host; empty: it is a recipe for another tool
	Text  string
	Mode  uint32
	Loses []string // what apply would have done besides
}

// Export writes an intent as plain files, for a host that is not known. It fails where
// something can be said on a host only, or cannot be carried by a file: the error joins
// *Problem values. What is in more is written by the recipes, too.
func Export(in intent.Intent, more ...ExportFile) ([]ExportFile, error) {
	s := newSite(&in, nil, nil)
	for _, f := range s.ifaces {
		for j, r := range f.Routers {
			if r.Accepted != nil && !*r.Accepted && !f.LearnOnce {
				s.fault(fmt.Sprintf("interfaces.%s.routers[%d]", f.key, j), "make sure that it is yours, and set accepted to true", "nobody has accepted the router %s", r.Address)
			}
		}
	}
	for _, f := range s.ifaces {
		if f.LearnOnce && len(f.Routers) == 0 {
			s.fault("interfaces."+f.key+".learnOnce", "list the routers, or apply on the host itself", "routers are learned on a host only, not in a file that is written for any")
		}
	}
	rules, settings := s.rules(), s.settings()
	if len(s.faults) > 0 {
		var all []error
		for _, f := range s.faults {
			all = append(all, f)
		}
		return nil, errors.Join(all...)
	}
	both := []string{"no undo by itself, and no proof that an administrator still gets in", "no comparison with other tables, which may drop what is accepted here"}
	var out []ExportFile
	if rules != "" {
		out = append(out, ExportFile{"nftables.conf", RulesFile, rules, 0o600, append(both, "connections that are open when it is loaded are new to connection tracking: idle ones are cut (apply lists them in live4 and live6)", "names of bridges are not known: guests of a router are recognised by the kind of the interface")})
		out = append(out, ExportFile{UnitName, UnitFile, unitText, 0o644, []string{"it is not enabled: systemctl enable " + UnitName}})
	}
	out = append(out, ExportFile{"sysctl.conf", SysctlFile, sysctlText(settings), 0o644, []string{"ufw and network managers write keys of their own later, and nobody compares", "what RAs have already set up stays until its lifetime ends", "disabling IPv6 deletes addresses and routes, which nobody has kept"}})
	if m := s.blocked(); len(m) > 0 {
		out = append(out, ExportFile{"modprobe.conf", ModprobeFile, modprobeText(m), 0o644, []string{"the initramfs keeps its own copy: update-initramfs -u, or dracut -f", "modules that are loaded or built in stay"}})
	}
	out = append(out, more...)
	plain := out
	lost := []string{"network managers (systemd-networkd, NetworkManager, dhcpcd, ifupdown) are not told: some take RAs by themselves", "gateways are not pinned"}
	lost = append(lost, both...)
	cloud, ansible := cloudInit(plain, lost), ansibleTasks(plain, lost)
	for i := range out {
		out[i].Text += losses(out[i].Loses)
	}
	return append(out, ExportFile{"cloud-init.yaml", "", cloud, 0o644, lost}, ExportFile{"ansible-tasks.yaml", "", ansible, 0o644, lost}), nil
}

// exported are the rules and files that somebody else brings to this host.
func (b *builder) exported() (rules string, files []ExportFile) {
	files, err := Export(*b.in)
	if err != nil {
		all := []error{err}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			all = many.Unwrap()
		}
		for _, e := range all {
			hint := "apply on the host itself: take files.owner out"
			if p := (*Problem)(nil); errors.As(e, &p) {
				hint = p.Hint + ", or: " + hint
			}
			b.refuse("not-exported", e.Error(), hint, "Files that "+b.in.Files.Owner+" brings cannot say this.")
		}
	}
	for _, f := range files {
		if f.Path == RulesFile {
			rules = strings.TrimSuffix(f.Text, losses(f.Loses))
		}
	}
	return rules, files
}

// compare adds a step for each file that is not as it was exported, and refuses to
// perform any: they belong to somebody else. A recipe writes a file without its last
// words.
func (b *builder) compare(files []ExportFile) {
	for _, f := range files {
		if f.Path == "" {
			continue
		}
		plain := strings.TrimSuffix(f.Text, losses(f.Loses))
		if before := b.read(f.Path); before.Absent || before.Text != f.Text && before.Text != plain {
			b.p.Steps = append(b.p.Steps, change.Step{ID: "file:" + f.Path, Kind: change.File, Phase: change.Persist, Target: f.Path, Before: before, After: change.Image{Text: plain, Mode: f.Mode}, Why: []string{"files.owner"}})
		}
	}
	for _, f := range files {
		if f.Path == UnitFile && b.read("/etc/systemd/system/sysinit.target.wants/"+UnitName).Absent {
			b.p.Steps = append(b.p.Steps, change.Step{ID: "unit:" + UnitName, Kind: change.Unit, Phase: change.AfterConfirm, Target: UnitName, Before: change.Image{Text: "disabled"}, After: change.Image{Text: "enabled"}, Why: []string{"FW-32"}})
		}
	}
	if len(b.p.Steps) > 0 {
		b.refuse("files-owned", "The files of this host are brought by "+b.in.Files.Owner+": sixfence only compares",
			"have it bring what `sixfence harden export` writes; or, to let sixfence do it, take files.owner out of the intent",
			fmt.Sprintf("%d things are not as the intent says.", len(b.p.Steps)))
	}
}

// losses says in a file what it does not do; all our formats have the same comments.
func losses(list []string) string {
	var b strings.Builder
	b.WriteString("\n# What these lines alone do not do, and sixfence harden apply does:\n")
	for _, l := range list {
		b.WriteString("# - " + l + "\n")
	}
	return b.String()
}

// literal is a text as a YAML block scalar. What such a scalar cannot hold has been
// refused before: our texts have no control characters and no leading blank.
func literal(text string, indent int) string {
	pad := strings.Repeat(" ", indent)
	var b strings.Builder
	b.WriteString("|\n")
	for line := range strings.Lines(text) {
		if strings.TrimRight(line, "\n") == "" {
			b.WriteByte('\n')
			continue
		}
		b.WriteString(pad + line)
	}
	return b.String()
}

func units(files []ExportFile) (out []string) {
	for _, f := range files {
		if strings.HasSuffix(f.Name, ".service") {
			out = append(out, f.Name)
		}
	}
	return out
}

func cloudInit(files []ExportFile, lost []string) string {
	var b strings.Builder
	b.WriteString("#cloud-config\n" + strings.TrimPrefix(losses(lost), "\n") + "write_files:\n")
	for _, f := range files {
		fmt.Fprintf(&b, "  - path: %s\n    owner: root:root\n    permissions: \"%04o\"\n    content: %s", f.Path, f.Mode, literal(f.Text, 6))
	}
	b.WriteString("runcmd:\n")
	for _, u := range units(files) {
		fmt.Fprintf(&b, "  - [systemctl, daemon-reload]\n  - [systemctl, enable, --now, %s]\n", u)
	}
	b.WriteString("  - [/usr/lib/systemd/systemd-sysctl, " + SysctlFile + "]\n")
	return b.String()
}

func ansibleTasks(files []ExportFile, lost []string) string {
	var b strings.Builder
	b.WriteString(strings.TrimPrefix(losses(lost), "\n") + "- name: Directory of the rules\n  ansible.builtin.file:\n    path: /etc/sixfence\n    state: directory\n    owner: root\n    group: root\n    mode: \"0700\"\n")
	for _, f := range files {
		// {% and {{ would be read by Jinja: !unsafe keeps them text.
		fmt.Fprintf(&b, "- name: %s\n  ansible.builtin.copy:\n    dest: %s\n    owner: root\n    group: root\n    mode: \"%04o\"\n", f.Path, f.Path, f.Mode)
		if f.Path == RulesFile {
			b.WriteString("    validate: /usr/sbin/nft -c -f %s\n")
		}
		b.WriteString("    content: !unsafe " + literal(f.Text, 6) + "  register: sixfence_" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' {
				return r
			}
			return '_'
		}, f.Name) + "\n")
	}
	for _, u := range units(files) {
		fmt.Fprintf(&b, "- name: Load the rules, now and at boot\n  ansible.builtin.systemd_service:\n    name: %s\n    daemon_reload: true\n    enabled: true\n    state: \"{{ 'reloaded' if sixfence_nftables_conf is changed else 'started' }}\"\n", u)
	}
	b.WriteString("- name: Set the kernel\n  ansible.builtin.command: /usr/lib/systemd/systemd-sysctl " + SysctlFile + "\n  when: sixfence_sysctl_conf is changed\n")
	return b.String()
}
