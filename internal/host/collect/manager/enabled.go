package manager

import (
	"path"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// enabledUnits lists the names that boot starts: units that a *.wants or
// *.requires directory or an alias leads to and that are not masked, and scripts
// of System V init and OpenRC (by their plain name).
func enabledUnits(t *tree.Tree) (map[string]bool, *fact.Gap) {
	on, masked := map[string]bool{}, map[string]bool{}
	var gap *fact.Gap
	list := func(dir string) []string {
		k := t.List(dir)
		if g, ok := k.Gap(); ok {
			gap = &g
		}
		return k.Or(nil)
	}
	systemd := false
	for _, dir := range []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		for _, n := range list(dir) {
			systemd = true
			p := dir + "/" + n
			switch {
			case strings.HasSuffix(n, ".wants"), strings.HasSuffix(n, ".requires"):
				for _, w := range list(p) {
					on[w] = true
				}
			case confd.Masked(t, p):
				masked[n] = true
			case strings.HasPrefix(dir, "/etc/"):
				if target, ok := t.Readlink(p).Get(); ok && path.Base(target) != n {
					on[path.Base(target)] = true
				}
			}
		}
	}
	for n := range masked {
		delete(on, n)
	}
	if !systemd { // with systemd, its generator leaves scripts alone that have a unit
		for _, dir := range []string{"/etc/rcS.d", "/etc/rc2.d", "/etc/rc3.d", "/etc/rc5.d"} {
			for _, n := range list(dir) {
				if len(n) > 3 && n[0] == 'S' && n[1] >= '0' && n[1] <= '9' && n[2] >= '0' && n[2] <= '9' {
					on[n[3:]] = true
				}
			}
		}
		for _, dir := range []string{"/etc/runlevels/boot", "/etc/runlevels/default"} {
			for _, n := range list(dir) {
				on[n] = true
			}
		}
	}
	return on, gap
}
