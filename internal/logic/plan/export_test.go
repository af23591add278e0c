package plan_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
)

type fataler interface {
	Fatalf(format string, args ...any)
}

func exported(t testing.TB, in intent.Intent) map[string]plan.ExportFile {
	files, err := plan.Export(in)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]plan.ExportFile{}
	for _, f := range files {
		if len(f.Loses) == 0 {
			t.Errorf("%s does not say what it loses", f.Name)
		}
		out[f.Name] = f
	}
	return out
}

// written are the files that a recipe writes, as its tool would.
func written(t fataler, name, text string) map[string]string {
	type doc struct {
		Path    string `yaml:"path"`
		Content string `yaml:"content"`
	}
	out := map[string]string{}
	if name == "cloud-init.yaml" {
		var d struct {
			WriteFiles []doc `yaml:"write_files"`
		}
		if err := yaml.Unmarshal([]byte(text), &d); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		for _, f := range d.WriteFiles {
			out[f.Path] = f.Content
		}
		return out
	}
	// The tag is Ansible's; without it the text is the same.
	var tasks []struct {
		Copy struct {
			Dest    string `yaml:"dest"`
			Content string `yaml:"content"`
		} `yaml:"ansible.builtin.copy"`
	}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "content: !unsafe |", "content: |")), &tasks); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
	for _, f := range tasks {
		if f.Copy.Dest != "" {
			out[f.Copy.Dest] = f.Copy.Content
		}
	}
	return out
}

// compare tells whether both recipes write the files that stand beside them.
func compare(t fataler, files []plan.ExportFile) {
	for _, recipe := range files {
		if recipe.Path != "" {
			continue
		}
		got := written(t, recipe.Name, recipe.Text)
		for _, f := range files {
			if f.Path == "" {
				continue
			}
			if !strings.HasPrefix(f.Text, got[f.Path]) || got[f.Path] == "" {
				t.Fatalf("%s writes another %s:\n%q\n%q", recipe.Name, f.Path, got[f.Path], f.Text)
			}
			delete(got, f.Path)
		}
		if len(got) > 0 {
			t.Fatalf("%s writes more: %v", recipe.Name, got)
		}
	}
}

// TestRecipesWriteTheFiles: what cloud-init and Ansible write are the files that stand
// beside them, whatever an intent's names are made of; what a file cannot carry is
// refused.
func TestRecipesWriteTheFiles(t *testing.T) {
	t.Parallel()
	for _, in := range intents() {
		files, err := plan.Export(in)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, files)
	}
	word := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z0-9{}%#: '|>*!&-]{1,20}`))
	rapid.Check(t, func(r *rapid.T) {
		in := intent.Intent{Role: intent.RoleServer, Services: []intent.Service{{Name: word.Draw(r, "name"), Ports: []string{"tcp/22"}}}, Sysctls: map[string]string{}}
		in.Interfaces = map[string]intent.Interface{word.Draw(r, "interface"): {Addressing: intent.SLAAC, Routers: []intent.Router{router}}}
		in.Logging.Prefix = word.Draw(r, "prefix")
		if v := word.Draw(r, "value"); v != "" {
			in.Sysctls["net/ipv6/conf/eth0/mtu"] = v
		}
		files, err := plan.Export(in)
		if err != nil {
			var p *plan.Problem
			if !errors.As(err, &p) || p.Hint == "" || p.Path == "" {
				r.Fatalf("refused without a place or a hint: %v", err)
			}
			return
		}
		compare(r, files)
	})
}

// TestSysctlFile: procps and systemd-sysctl read the file alike, and as the plan does:
// for interfaces with dots in their names, for those that have an entry of their own,
// and for those that come later.
func TestSysctlFile(t *testing.T) {
	in := intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{
		"e0": {Addressing: intent.SLAAC, Routers: []intent.Router{router}}, "e0.100": {Addressing: intent.DHCPv6, Routers: []intent.Router{router}}, "w*": {Addressing: intent.SLAAC, Routers: []intent.Router{router}}, "w1": {Addressing: intent.Static},
	}, Sysctls: map[string]string{"net.ipv6.conf.e0/100.accept_ra_mtu": "0"}}
	text := exported(t, in)["sysctl.conf"].Text
	off := intent.Intent{Role: intent.RoleServer, Families: intent.DisabledKeepLoopback}
	for _, tool := range []string{"sysctl", "systemd-sysctl"} {
		bin := testlab.RequireTool(t, tool)
		ns := testlab.NewNS(t, "sys")
		file := filepath.Join(t.TempDir(), "99-zz-sixfence.conf")
		read := func(text, prefix string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			args := []string{file}
			if tool == "sysctl" {
				args = []string{"-q", "-p", file}
			} else if prefix != "" {
				args = []string{"--prefix=" + prefix, file}
			}
			if out, err := ns.Command(bin, args...).CombinedOutput(); err != nil || strings.Contains(string(out), "annot") {
				t.Errorf("%s: %v %s", tool, err, out)
			}
		}
		for _, i := range []string{"e0", "e0.100", "w0", "w1", "x.y.z"} {
			ns.IP("link", "add", i, "type", "veth", "peer", "name", "p"+strings.ReplaceAll(i, ".", ""))
			ns.Sysctl("net/ipv6/conf/"+i+"/use_tempaddr", "2")
			ns.Sysctl("net/ipv6/conf/"+i+"/accept_redirects", "1")
		}
		read(text, "")
		for key, want := range map[string]string{
			"e0/accept_ra": "1", "e0/autoconf": "1", "e0.100/accept_ra": "1", "e0.100/autoconf": "0", "w0/accept_ra": "1", "w1/accept_ra": "0", "w1/autoconf": "0", "x.y.z/accept_ra": "0", "x.y.z/accept_redirects": "0", "x.y.z/use_tempaddr": "0",
			"e0/accept_ra_min_hop_limit": "64", "default/accept_ra": "0", "all/accept_ra": "0", "all/forwarding": "0", "e0/suppress_frag_ndisc": "1", "e0.100/accept_ra_mtu": "0",
		} {
			if got := ns.ReadSysctl("net/ipv6/conf/" + key); got != want {
				t.Errorf("%s: %s is %s, want %s", tool, key, got, want)
			}
		}
		// One that comes later inherits the default, and udev has the file read once more
		// for it.
		ns.IP("link", "add", "w7", "type", "veth", "peer", "name", "p7")
		if got := ns.ReadSysctl("net/ipv6/conf/w7/accept_ra"); got != "0" {
			t.Errorf("%s: a new interface believes routers: %s", tool, got)
		}
		read(text, "/net/ipv6/conf/w7")
		if got := ns.ReadSysctl("net/ipv6/conf/w7/accept_ra"); got != "1" {
			t.Errorf("%s: w7 has accept_ra %s", tool, got)
		}
		read(exported(t, off)["sysctl.conf"].Text, "")
		for key, want := range map[string]string{"lo": "0", "all": "0", "default": "1", "e0": "1", "e0.100": "1", "w7": "1"} {
			if got := ns.ReadSysctl("net/ipv6/conf/" + key + "/disable_ipv6"); got != want {
				t.Errorf("%s: disable_ipv6 of %s is %s, want %s", tool, key, got, want)
			}
		}
	}
}

// TestExportRefuses: what only a host can say is no plain file.
func TestExportRefuses(t *testing.T) {
	t.Parallel()
	no := false
	for want, in := range map[string]intent.Intent{
		"interfaces.uplink":                {Interfaces: map[string]intent.Interface{"uplink": {Match: intent.Match{Role: intent.DefaultRoute}, Addressing: intent.SLAAC}}},
		"interfaces.e?h0":                  {Interfaces: map[string]intent.Interface{"e?h0": {Addressing: intent.Static}}},
		"interfaces.v0.routers[0]":         {Interfaces: one(intent.SLAAC, intent.Router{Address: netip.MustParseAddr("fe80::1"), Accepted: &no})},
		"interfaces.v0.routers[0].mac":     {Interfaces: one(intent.SLAAC, intent.Router{Address: netip.MustParseAddr("fe80::1"), MAC: "52-54-00"})},
		"interfaces.v0.routers[0].address": {Interfaces: one(intent.SLAAC, intent.Router{Address: netip.MustParseAddr("2001:db8::1")})},
		"services.x.ports":                 {Services: []intent.Service{{Name: "x", Ports: []string{"22"}}}},
		"tunnels[0].mechanism":             {Tunnels: intent.Tunnels{Policy: intent.TunnelsList, List: []intent.Tunnel{{Mechanism: "carrier pigeon"}}}},
		"logging.prefix":                   {Logging: intent.Logging{Prefix: "a\"b"}},
		"sysctls.x":                        {Sysctls: map[string]string{"x": "1"}},
		"egress.metadata":                  {Egress: intent.Egress{Metadata: "maybe"}},
	} {
		in.Role = intent.RoleServer
		_, err := plan.Export(in)
		var p *plan.Problem
		if !errors.As(err, &p) || !strings.HasPrefix(p.Path, want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
