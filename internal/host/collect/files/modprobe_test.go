package files_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect/files"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
)

// module is an ELF object that depmod takes for a kernel module: a .modinfo
// section and nothing else.
func module(info string) []byte {
	names := "\x00.modinfo\x00.shstrtab\x00"
	var b bytes.Buffer
	le := binary.LittleEndian
	dataAt := uint64(64)
	namesAt := dataAt + uint64(len(info))
	headersAt := (namesAt + uint64(len(names)) + 7) &^ 7
	head := make([]byte, 64)
	copy(head, "\x7fELF\x02\x01\x01")
	le.PutUint16(head[16:], 1)  // ET_REL
	le.PutUint16(head[18:], 62) // EM_X86_64
	le.PutUint32(head[20:], 1)
	le.PutUint64(head[40:], headersAt)
	le.PutUint16(head[52:], 64)
	le.PutUint16(head[58:], 64)
	le.PutUint16(head[60:], 3)
	le.PutUint16(head[62:], 2)
	b.Write(head)
	b.WriteString(info + names)
	b.Write(make([]byte, headersAt-uint64(b.Len())))
	section := func(name, typ uint32, at, size uint64) {
		s := make([]byte, 64)
		le.PutUint32(s, name)
		le.PutUint32(s[4:], typ)
		le.PutUint64(s[24:], at)
		le.PutUint64(s[32:], size)
		le.PutUint64(s[48:], 1)
		b.Write(s)
	}
	section(0, 0, 0, 0)
	section(1, 1, dataAt, uint64(len(info)))
	section(10, 3, namesAt, uint64(len(names)))
	return b.Bytes()
}

// install copies a program and the libraries it needs below root.
func install(t *testing.T, root, name string) {
	t.Helper()
	bin := testlab.RequireTool(t, name)
	out, _ := exec.Command("ldd", bin).CombinedOutput()
	paths := regexp.MustCompile(`/[^ ]+`).FindAllString(string(out), -1)
	for _, p := range append(paths, bin) {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		to := filepath.Join(root, p)
		if p == bin {
			to = filepath.Join(root, "sbin", name)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestModprobeOracle compares what bootconf says of random modprobe.d files with
// what the real modprobe would do, by name and by alias, in a root of its own.
func TestModprobeOracle(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	depmod := testlab.RequireTool(t, "depmod")
	root := t.TempDir()
	install(t, root, "modprobe")
	const release = "6.1.0-test"
	modules := []string{"sit", "ip6_tunnel", "ip6_gre", "tunnel6"}
	for _, m := range modules {
		p := filepath.Join(root, "lib/modules", release, "kernel", strings.ReplaceAll(m, "_", "-")+".ko")
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		info := fmt.Sprintf("license=GPL\x00name=%s\x00alias=rtnl-link-%s\x00", m, m)
		if err := os.WriteFile(p, module(info), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"modules.order", "modules.builtin"} {
		if err := os.WriteFile(filepath.Join(root, "lib/modules", release, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(depmod, "-b", root, release).CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v %s", err, out)
	}
	r := rand.New(rand.NewPCG(4, 4))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	line := func() string {
		m := pick("sit", "sit", "ip6_tunnel", "ip6-tunnel", "ip6_gre", "ip6-gre", "tunnel6", "ip6*", "other")
		return pick(
			"install "+m+" /bin/false", "install "+m+" /bin/true", "install\t"+m+"  /bin/false  ", "install "+m+" \\\n  /bin/false",
			"blacklist "+m, "blacklist "+m, "alias "+m+" off", "alias "+m+" tunnel6", "alias net-pf-10 off", "options "+m+" x=1",
			"# install "+m+" /bin/true", "softdep "+m+" pre: other", "nonsense", "install "+m, " blacklist "+m)
	}
	dirs := []string{"etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "lib/modprobe.d"}
	seen := map[bootconf.Blocking]int{}
	for i := range 60 {
		var shown strings.Builder
		for _, d := range dirs {
			if err := os.RemoveAll(filepath.Join(root, d)); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"a.conf", "b.conf", "c.txt"} {
				if r.IntN(2) == 0 {
					continue
				}
				text := ""
				for range r.IntN(3) {
					text += line() + "\n"
				}
				fmt.Fprintf(&shown, "--- %s/%s\n%s", d, name, text)
				if err := os.WriteFile(filepath.Join(root, d, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		tr, err := tree.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		var h fact.Host
		files.Read(tr).Decode(&h)
		tr.Close()
		directives, ok := h.Files.Modprobe.Get()
		if !ok {
			t.Fatalf("config %d: no value", i)
		}
		for _, m := range modules {
			run := func(name string) string {
				out, _ := exec.Command("chroot", root, "/sbin/modprobe", "-n", "-v", "-S", release, "--", name).CombinedOutput()
				switch s := strings.Join(strings.Fields(string(out)), " "); {
				case strings.Contains(s, "install /bin/false"):
					return "false"
				case strings.Contains(s, "install /bin/true"):
					return "true"
				case strings.Contains(s, "/"+strings.ReplaceAll(m, "_", "-")+".ko"):
					return "loads"
				default:
					return "nothing"
				}
			}
			byName, byAlias := run(m), run("rtnl-link-"+m)
			b := bootconf.Module(directives, m)
			seen[b.How]++
			var wantName, wantAlias string
			switch b.How {
			case bootconf.NotBlocked:
				wantName, wantAlias = "loads", "loads"
			case bootconf.BlacklistOnly:
				wantName, wantAlias = "loads", "nothing"
			case bootconf.InstallFalse, bootconf.InstallTrue:
				wantName = map[bootconf.Blocking]string{bootconf.InstallFalse: "false", bootconf.InstallTrue: "true"}[b.How]
				wantAlias = wantName
				if b.Blacklist != nil {
					wantAlias = "nothing"
				}
				if byName == "loads" || byAlias == "loads" {
					t.Errorf("config %d: %s is said to be blocked and loads\n%s", i, m, shown.String())
				}
				if aliased(directives, m) {
					wantName = byName // by that name it is something else; never the module
				}
			case bootconf.AliasedAway:
				wantName, wantAlias = byName, "loads"
				if byName == "loads" {
					t.Errorf("config %d: %s is said to be aliased away and loads by name\n%s", i, m, shown.String())
				}
				if b.Blacklist != nil {
					wantAlias = "nothing"
				}
			default:
				t.Errorf("config %d: %s: %v", i, m, b.How)
			}
			if byName != wantName || byAlias != wantAlias {
				t.Errorf("config %d: %s %s: modprobe by name %s, by alias %s; predicted %s, %s\n%s", i, m, b.How, byName, byAlias, wantName, wantAlias, shown.String())
			}
			if b.How != bootconf.NotBlocked && b.By.Origin.Line == 0 {
				t.Errorf("config %d: %s: no line is named", i, m)
			}
		}
		if t.Failed() {
			return
		}
	}
	for _, how := range []bootconf.Blocking{bootconf.NotBlocked, bootconf.BlacklistOnly, bootconf.InstallFalse, bootconf.InstallTrue, bootconf.AliasedAway} {
		if seen[how] < 4 {
			t.Errorf("only %d cases of %s: this shows little", seen[how], how)
		}
	}
}

func aliased(ds []fact.ModprobeDirective, m string) bool {
	for _, d := range ds {
		if d.Verb == "alias" && bootconf.Match(bootconf.Canonical(d.Module), m) {
			return true
		}
	}
	return false
}

// TestPlannedBlocksHold: with the file of a plan the real modprobe loads none of the
// modules that it names, neither by name nor by alias, whatever other files say; without
// it, it does.
func TestPlannedBlocksHold(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	depmod := testlab.RequireTool(t, "depmod")
	root := t.TempDir()
	install(t, root, "modprobe")
	const release = "6.1.0-plan"
	list, err := plan.Export(intent.Intent{Role: intent.RoleServer})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(f plan.ExportFile) bool { return f.Name == "modprobe.conf" })
	var blocked []string
	write := func(p, text string) {
		t.Helper()
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(list[i].Text) {
		m, ok := strings.CutPrefix(strings.TrimSpace(line), "blacklist ")
		if !ok {
			continue
		}
		blocked = append(blocked, m)
		write("lib/modules/"+release+"/kernel/"+strings.ReplaceAll(m, "_", "-")+".ko", string(module(fmt.Sprintf("license=GPL\x00name=%s\x00alias=rtnl-link-%s\x00", m, m))))
	}
	if len(blocked) < 10 {
		t.Fatalf("only %v are blocked", blocked)
	}
	write("lib/modules/"+release+"/modules.order", "")
	write("lib/modules/"+release+"/modules.builtin", "")
	if out, err := exec.Command(depmod, "-b", root, release).CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v %s", err, out)
	}
	loads := func(name, m string) bool {
		out, _ := exec.Command("chroot", root, "/sbin/modprobe", "-n", "-v", "-S", release, "--", name).CombinedOutput()
		return strings.Contains(string(out), "/"+strings.ReplaceAll(m, "_", "-")+".ko") || strings.Contains(string(out), "ignore-install")
	}
	write("etc/modprobe.d/a-theirs.conf", "install sit /sbin/modprobe --ignore-install sit\noptions sit x=1\n")
	write("lib/modprobe.d/zz.conf", "install vxlan /sbin/modprobe --ignore-install vxlan\nalias tunnels sit\n")
	for _, with := range []bool{false, true} {
		if with {
			write(list[i].Path, list[i].Text)
		}
		for _, m := range blocked {
			if byName, byAlias := loads(m, m), loads("rtnl-link-"+m, m); byName == with || byAlias == with {
				t.Errorf("our file: %t: %s loads by name: %t, by alias: %t", with, m, byName, byAlias)
			}
		}
	}
}
