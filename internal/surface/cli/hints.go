package cli

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/sixfence/sixfence/internal/engine/apply"
	"github.com/sixfence/sixfence/internal/engine/vantage"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/surface/config"
)

// hints collects the remedies that an error carries.
func hints(err error) []string {
	var out []string
	add := func(h string) {
		if h != "" {
			out = append(out, h)
		}
	}
	var (
		usage    *usageError
		rules    *rulesetError
		refused  *store.RefusedError
		snapshot *store.SnapshotError
		conf     *config.Error
		unsafe   *store.UnsafeError
		far      *vantage.Error
	)
	if errors.As(err, &usage) {
		add(usage.hint)
	}
	if errors.As(err, &far) {
		add(far.Hint)
	}
	if errors.As(err, &rules) {
		add(rules.hint)
	}
	if errors.As(err, &refused) {
		add(refused.Hint)
	}
	if errors.As(err, &snapshot) {
		add(snapshot.Hint)
	}
	if errors.As(err, &conf) {
		add(conf.Hint)
	}
	if errors.As(err, &unsafe) {
		add(unsafe.Hint)
	}
	var (
		refusal *apply.RefusedError
		corrupt *apply.CorruptError
		stale   *apply.StaleError
		proof   *apply.UnprovenError
	)
	if errors.As(err, &refusal) {
		add(refusal.Hint)
	}
	if errors.As(err, &corrupt) {
		add(corrupt.Hint)
	}
	if errors.As(err, &stale) {
		add("look at what has changed, and make a new plan: sixfence harden plan -o FILE")
	}
	if errors.As(err, &proof) {
		add("open a new connection over " + strings.Join(proof.Missing, " and over ") + " and run there: sudo sixfence harden confirm")
	}
	if errors.Is(err, store.ErrLocked) {
		add("another sixfence harden is at work: try again in a moment")
	}
	if len(out) == 0 {
		switch {
		case errors.Is(err, fs.ErrPermission):
			add("run it as root, or choose a file you may read")
		case errors.Is(err, fs.ErrNotExist):
			add("check the path")
		}
	}
	return out
}
