package apply

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/model/change"
)

// sysctlFiles are what people and packages write sysctls in.
var sysctlFiles = []string{"/etc/sysctl.conf", "/etc/sysctl.d/*.conf", "/run/sysctl.d/*.conf", "/usr/local/lib/sysctl.d/*.conf", "/usr/lib/sysctl.d/*.conf", "/etc/ufw/sysctl.conf"}

// nftFiles are what a restart of nftables.service loads.
var nftFiles = []string{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf"}

// flushes finds the statement that takes every table away, ours too.
var flushes = regexp.MustCompile(`(?m)^\s*flush\s+ruleset`)

// suspects names who may have made an object what it is now. It is a hint for a person
// and proves nothing.
func (e *Engine) suspects(s change.Step, now string) []string {
	var out []string
	switch s.Kind {
	case change.Sysctl:
		key := strings.ReplaceAll(s.Target, "/", ".")
		for _, f := range e.glob(sysctlFiles) {
			b, err := os.ReadFile(filepath.Join(e.Host.Root, f))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(b)) {
				k, v, ok := strings.Cut(line, "=")
				k = strings.ReplaceAll(strings.TrimLeft(strings.TrimSpace(k), "-"), "/", ".")
				if ok && k == key && strings.Join(strings.Fields(v), " ") == mutate.Text(now) {
					out = append(out, "a run of sysctl that read "+f)
					break
				}
			}
		}
	case change.Table:
		if now != mutate.Absent {
			return nil
		}
		for _, f := range e.glob(nftFiles) {
			if b, err := os.ReadFile(filepath.Join(e.Host.Root, f)); err == nil && flushes.Match(b) {
				out = append(out, "a restart or reload of nftables.service: "+f+" flushes every table")
			}
		}
	}
	return out
}

// glob lists files below the root, without it.
func (e *Engine) glob(patterns []string) []string {
	var out []string
	for _, p := range patterns {
		ms, err := filepath.Glob(filepath.Join(e.Host.Root, p))
		if err != nil {
			continue
		}
		for _, m := range ms {
			out = append(out, strings.TrimPrefix(m, e.Host.Root))
		}
	}
	return out
}
