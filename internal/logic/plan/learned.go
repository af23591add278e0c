package plan

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"path"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/change"
)

// learnedFile is where the routers of an entry of interfaces are kept once they are
// learned. A key that is no file name is told apart by its hash.
func learnedFile(dir, key string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, key)
	if name != key {
		h := fnv.New32a()
		_, _ = h.Write([]byte(key))
		name += "-" + hex.EncodeToString(h.Sum(nil))
	}
	return path.Join(dir, "50-learned-"+name+".yaml")
}

// keepLearned writes what was learned into drop-ins of the intent, so that it is learned
// once: the next plan finds the routers there and does not look at the link again.
func (b *builder) keepLearned() {
	for _, key := range slices.Compact(slices.Sorted(slices.Values(b.once))) {
		if b.o.Learned == "" {
			if b.o.Read != nil {
				b.refuse("learned-nowhere", "What is learned on "+key+" could be kept nowhere", "write the intent into a file, or list the routers",
					"The intent was read from standard input. Without a file beside it the next plan would learn again, from whoever is there then.")
			}
			continue
		}
		at := learnedFile(b.o.Learned, key)
		before := b.read(at)
		if !before.Absent {
			b.refuse("learned-before", "The routers of "+key+" were learned before, and what was learned does not hold", "list the routers under interfaces."+key+"; to learn once more, delete "+at,
				at+" is there, and a later file takes its routers away. A second learning never happens by itself: a rogue would only have to wait for it.")
			continue
		}
		for _, f := range b.ifaces {
			if f.key != key {
				continue
			}
			var t strings.Builder
			t.WriteString("# Written by sixfence: the routers that were on the link when the plan was first applied\n# (learnOnce). Nobody has looked at them. They hold from now on; to learn once more,\n# delete this file.\napiVersion: sixfence/v1\ninterfaces:\n  " + yamlText(key) + ":\n    learnOnce: false\n    routers:\n")
			for _, r := range f.Routers {
				fmt.Fprintf(&t, "      - {address: %q", r.Address)
				if r.MAC != "" {
					fmt.Fprintf(&t, ", mac: %q", lower(r.MAC))
				}
				t.WriteString("}\n")
			}
			b.p.Steps = append(b.p.Steps, change.Step{ID: "file:" + at, Kind: change.File, Phase: change.Persist, Target: at, Before: before, After: change.Image{Text: t.String(), Mode: 0o600}, Why: []string{"interfaces." + key + ".learnOnce"}})
		}
	}
}

// yamlText writes a text as YAML and JSON both read it.
func yamlText(s string) string {
	b, err := json.Marshal(s)
	if err != nil { // cannot be: it is a text
		return `""`
	}
	return string(b)
}
