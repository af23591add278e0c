package plan_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestRealParsersTakeExports: the programs that the files are for read them: nft,
// modprobe, systemd, a YAML parser that is not ours, and Ansible.
func TestRealParsersTakeExports(t *testing.T) {
	nft, modprobe, analyze := testlab.RequireTool(t, "nft"), testlab.RequireTool(t, "modprobe"), testlab.RequireTool(t, "systemd-analyze")
	playbook, python := testlab.RequireTool(t, "ansible-playbook"), "/usr/bin/python3" // the one that Ansible brings
	ns := testlab.NewNS(t, "exp")
	dir := t.TempDir()
	var play strings.Builder
	play.WriteString("- hosts: localhost\n  gather_facts: false\n  tasks:\n")
	var recipes []string
	verified := false
	for i, in := range intents() {
		more := plan.ExportFile{Name: "sixfence.yaml", Path: "/etc/sixfence/sixfence.yaml", Text: "apiVersion: sixfence/v1\nrole: server # {{ not a template }}\n", Mode: 0o600, Loses: []string{"x"}}
		files, err := plan.Export(in, more)
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, i)
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			path := filepath.Join(at, f.Name)
			if err := os.WriteFile(path, []byte(f.Text), os.FileMode(f.Mode)); err != nil {
				t.Fatal(err)
			}
			switch f.Name {
			case "nftables.conf":
				if out, err := ns.Command(nft, "-c", "-f", path).CombinedOutput(); err != nil {
					t.Errorf("nft: %v\n%s", err, out)
				}
			case "modprobe.conf":
				out, err := exec.Command(modprobe, "-C", path, "--showconfig").Output()
				if want := strings.Count(f.Text, "\ninstall "); err != nil || want == 0 || strings.Count(string(out), "/bin/false") != want || strings.Count(string(out), "blacklist ") != want {
					t.Errorf("modprobe: %v, want %d modules\n%s", err, want, out)
				}
			case "cloud-init.yaml":
				recipes = append(recipes, path)
			case "ansible-tasks.yaml":
				fmt.Fprintf(&play, "    - ansible.builtin.import_tasks: %s\n", path)
			default:
				if strings.HasSuffix(f.Name, ".service") && !verified {
					verified = true
					if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), f.Name) {
						t.Errorf("systemd-analyze: %v\n%s", err, out)
					}
				}
			}
		}
		cloud := filepath.Join(at, "cloud-init.yaml")
		out, err := exec.Command(python, "-c", "import json,sys,yaml; d=yaml.safe_load(open(sys.argv[1])); assert set(d)<={'write_files','runcmd'}, d.keys(); print(json.dumps({f['path']:[f['content'],f['permissions'],f['owner']] for f in d['write_files']}))", cloud).CombinedOutput()
		var got map[string][3]string
		if err != nil || json.Unmarshal(out, &got) != nil {
			t.Fatalf("yaml of Python: %v\n%s", err, out)
		}
		for _, f := range files {
			if f.Path == "" {
				continue
			}
			w := got[f.Path]
			if !strings.HasPrefix(f.Text, w[0]) || w[0] == "" || w[1] != fmt.Sprintf("%04o", f.Mode) || w[2] != "root:root" {
				t.Errorf("cloud-init would write another %s: %q", f.Path, w)
			}
		}
	}
	if len(recipes) < 3 {
		t.Fatalf("only %d recipes", len(recipes))
	}
	if err := os.WriteFile(filepath.Join(dir, "play.yaml"), []byte(play.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(playbook, "--syntax-check", "-i", "localhost,", "play.yaml")
	c.Dir, c.Env = dir, append(os.Environ(), "ANSIBLE_HOME="+dir, "ANSIBLE_LOCAL_TEMP="+dir, "HOME="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("ansible-playbook: %v\n%s", err, out)
	}
}
