// Package oracle asks the kernel. It generates rulesets over everything that
// logic/reach models, loads them in a namespace, sends packets through every
// hook, and compares what the kernel let pass with what the model says. Test
// support: never linked into a product binary.
package oracle

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

var noAddr netip.Addr

// Config says how much to test.
type Config struct {
	Seed            uint64
	Rulesets        int           // at most
	Verdicts        int           // at most; 0: no bound
	Time            time.Duration // at most; 0: no bound
	Shapes, Sources int           // packets of a ruleset: shapes times sources
	MaxMismatches   int           // stop after so many rulesets with a mismatch
	Keep            func(*Case)   // called with every case
}

// Report is what a run found.
type Report struct {
	Rulesets, Refused, Lossy, Rules int
	Verdicts, Accepted, Uncertain   int
	Parts                           int // questions with fields left out
	Why                             map[string]int
	Elapsed, Load, Send, Compare    time.Duration
	Coverage                        *Coverage
	Failures                        []Failure
}

// Failure is a ruleset with mismatches.
type Failure struct {
	Case       *Case
	Mismatches []Mismatch
}

// Run tests.
func Run(t testing.TB, l *Lab, cfg Config) *Report {
	r := &Report{Coverage: NewCoverage(), Why: map[string]int{}}
	start := time.Now()
	defer func() { r.Elapsed = time.Since(start) }()
	for i := range cfg.Rulesets {
		if cfg.Time > 0 && time.Since(start) > cfg.Time || cfg.Verdicts > 0 && r.Verdicts >= cfg.Verdicts {
			break
		}
		g := NewGenerator(cfg.Seed*1_000_003+uint64(i), r.Coverage)
		c := &Case{Seed: g.seed, Script: g.Ruleset(), Raw: g.raw}
		before := time.Now()
		if err := l.load(c, r); err != nil {
			t.Logf("seed %d: %v", c.Seed, err)
			continue
		}
		r.Load += time.Since(before)
		before = time.Now()
		set, err := c.Ruleset()
		if err != nil {
			t.Errorf("seed %d: decode: %v", c.Seed, err)
			continue
		}
		c.Shapes, c.Probes = g.Probes(cfg.Shapes, cfg.Sources, c.novel(set, r.Coverage))
		if c.Accepted, err = l.Fire(c.Shapes, c.Probes); err != nil {
			r.Lossy++
			t.Logf("seed %d: %v", c.Seed, err)
			continue
		}
		r.Send += time.Since(before)
		before = time.Now()
		if cfg.Keep != nil {
			cfg.Keep(c)
		}
		out, err := c.Compare(r.Coverage, 5)
		if err != nil {
			t.Errorf("seed %d: decode: %v", c.Seed, err)
			continue
		}
		r.Compare += time.Since(before)
		r.Rulesets++
		r.Verdicts += out.Verdicts
		r.Accepted += out.Accepted
		r.Uncertain += out.Uncertain
		r.Parts += out.Parts
		for k, v := range out.Why {
			r.Why[k] += v
		}
		if len(out.Mismatches) > 0 {
			if out = l.again(c, out); len(out.Mismatches) == 0 {
				continue // a packet was late, not wrong
			}
			r.Failures = append(r.Failures, Failure{c, out.Mismatches})
			if len(r.Failures) >= cfg.MaxMismatches {
				break
			}
		}
	}
	return r
}

// novel tells whether a packet meets a cell in a way that none has yet.
func (c *Case) novel(set *rs.Ruleset, cov *Coverage) func(*Shape, netip.Addr) bool {
	m := c.model(set)
	yes, no := map[int]bool{}, map[int]bool{}
	return func(s *Shape, src netip.Addr) bool {
		found := false
		for _, step := range m.Walk(s.question(src, 0, c.Raw), s.hook(), false).Path {
			if step.Rule == nil {
				continue
			}
			for _, x := range cov.cells(step.Rule.Comment) {
				switch {
				case step.Matched() && cov.yes[x] == 0 && !yes[x]:
					yes[x], found = true, true
				case step.Missed() && cov.no[x] == 0 && !no[x]:
					no[x], found = true, true
				}
			}
		}
		return found
	}
}

// again sends the packets in question once more: what was late the first time is
// no mismatch.
func (l *Lab) again(c *Case, out *Outcome) *Outcome {
	if err := l.flushSeen(); err != nil {
		return out
	}
	acc, err := l.Fire(c.Shapes, c.Probes)
	if err != nil {
		return out
	}
	c.Accepted = acc
	second, err := c.Compare(nil, 5)
	if err != nil {
		return out
	}
	return second
}

var lineOf = regexp.MustCompile(`ruleset\.nft:(\d+):`)

// load puts the ruleset of a case into the lab, leaving out the rules that nft
// refuses, and reads it back.
func (l *Lab) load(c *Case, r *Report) error {
	for {
		err := l.Load(c.Script)
		if err == nil {
			break
		}
		lines := strings.Split(c.Script, "\n")
		drop := map[int]bool{}
		for _, m := range lineOf.FindAllStringSubmatch(err.Error(), -1) {
			n, _ := strconv.Atoi(m[1])
			n -= 2 // "flush ruleset", and lines count from 1
			if n >= 0 && n < len(lines) && (strings.Contains(lines[n], ` comment "`) || definition(lines[n])) {
				drop[n] = true
			}
		}
		if len(drop) == 0 {
			return err
		}
		var kept []string
		for i, line := range lines {
			if drop[i] {
				r.Refused++
				Refusals = append(Refusals, line+"   ## "+firstLine(err.Error()))
				_, comment, _ := strings.Cut(line, ` comment "`)
				for _, x := range r.Coverage.cells(strings.TrimSuffix(comment, `"`)) {
					r.Coverage.refused[x]++
				}
				continue
			}
			kept = append(kept, line)
		}
		c.Script = strings.Join(kept, "\n")
	}
	r.Rules += strings.Count(c.Script, ` comment "`)
	var err error
	if c.NFT, err = l.Dump(); err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	c.Interfaces, c.Host = l.names, l.facts
	return nil
}

// Refusals are the rules that nft or the kernel refused, with the reason.
var Refusals []string

// definition tells whether a line of a script defines a set or an object.
func definition(line string) bool {
	return slices.ContainsFunc([]string{" set ", " map ", " counter ", " quota ", " limit ", " ct "}, func(p string) bool { return strings.HasPrefix(line, p) })
}

func firstLine(s string) string {
	for _, l := range strings.Split(s, "\n") {
		if strings.Contains(l, "Error") {
			return l
		}
	}
	return s
}
