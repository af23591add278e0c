package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/logic/draft"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// TestExamples: each profile has an example that loads without a word, and whose rules
// the kernel takes on a host of that kind, where nothing is refused and a second look
// finds the same.
func TestExamples(t *testing.T) {
	testlab.RequireRoot(t)
	named := func(name, driver string) func(*fact.Snapshot, *fact.Namespace) {
		return func(_ *fact.Snapshot, n *fact.Namespace) {
			l := &value(n.Links)[1]
			l.Name, l.Driver = name, fact.Value(driver)
		}
	}
	hosts := map[string][]func(*fact.Snapshot, *fact.Namespace){
		draft.StaticServer:   {named("ens3", "virtio_net")},
		draft.CloudVM:        {slaac, named("enp1s0", "virtio_net")},
		draft.Router:         {named("wan0", "e1000e"), link(fact.Link{Name: "lan0", Flags: 0x1003, Type: 1, MAC: "52:54:00:00:00:11"}, "2001:db8:2::1/64")},
		draft.KubernetesNode: nil,
		draft.Hypervisor:     {named("br0", "bridge"), func(_ *fact.Snapshot, n *fact.Namespace) { value(n.Links)[1].Kind = "bridge" }},
		draft.ContainerHost:  {link(fact.Link{Name: "docker0", Kind: "bridge", Flags: 0x1003, Type: 1}, "172.17.0.1/16")},
		draft.IPv4Only:       nil,
	}
	dir := filepath.Join("..", "..", "..", "docs", "examples")
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) != len(draft.Profiles()) {
		t.Fatalf("%d examples for %d profiles: %v", len(files), len(draft.Profiles()), err)
	}
	known := func(id string) bool { _, ok := check.Find(id); return ok }
	for _, p := range draft.Profiles() {
		text, err := os.ReadFile(filepath.Join(dir, p.Name+".yaml"))
		if err != nil {
			t.Error(err)
			continue
		}
		l, err := config.LoadIntent([]config.IntentFile{{Path: p.Name, Text: text}}, known)
		if err != nil || len(l.Warnings) > 0 {
			t.Errorf("%s: %v", p.Name, err)
			for _, w := range l.Warnings {
				t.Error(w)
			}
			continue
		}
		s := vm(hosts[p.Name]...)
		for _, n := range selectionNotes(&l.Intent, &s.Namespaces[0]) {
			t.Errorf("%s: %s", p.Name, n)
		}
		disk := map[string]change.Image{}
		o := plan.Options{
			Learned: "/etc/sixfence/sixfence.d",
			Read: func(path string) (change.Image, error) {
				if i, ok := disk[path]; ok {
					return i, nil
				}
				return change.Image{Absent: true}, nil
			},
			Decode: hostview.Decode,
		}
		made := plan.New(l.Intent, s, o)
		for _, r := range made.Refusals {
			t.Errorf("%s: refused: %s: %s (%s)", p.Name, r.ID, r.Title, r.WayOut)
		}
		for _, g := range made.Gaps {
			if strings.Contains(g.What, "who reaches what") {
				t.Errorf("%s: the kernel does not take its rules: %s", p.Name, g.What)
			}
		}
		if !slices.ContainsFunc(made.Steps, func(s change.Step) bool { return s.Kind == change.Table }) {
			t.Errorf("%s: no rules", p.Name)
		}
		for _, st := range made.Steps {
			if st.Kind == change.File {
				disk[st.Target] = st.After
			}
		}
		for _, st := range plan.New(l.Intent, s, o).Steps {
			if st.Kind == change.File {
				t.Errorf("%s: %s is written twice", p.Name, st.Target)
			}
		}
	}
}
