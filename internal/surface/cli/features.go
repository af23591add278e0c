package cli

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/sixfence/sixfence/internal/host/collect/kmod"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/host/feature"
)

// features prints what the running kernel lets an audit see.
func (a *app) features(format string) error {
	t, err := tree.Host()
	if err != nil {
		return err
	}
	defer t.Close()
	found := (&feature.Prober{Present: kmod.Read(t).Present}).Probe()
	if format == "json" {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return outputError(e.Encode(found))
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for i, f := range feature.All() {
		what := f.What
		if d := found[i].Detail; d != "" {
			what = d + "; " + what
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, found[i].Answer, what)
	}
	return outputError(w.Flush())
}
