package oracle_test

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab/oracle"
)

func env(name string, def int) int {
	if v, err := strconv.Atoi(os.Getenv("ORACLE_" + name)); err == nil {
		return v
	}
	return def
}

func TestOracle(t *testing.T) {
	l := oracle.NewLab(t)
	r := oracle.Run(t, l, oracle.Config{
		Seed: uint64(env("SEED", 1)), Rulesets: env("RULESETS", 100000), Verdicts: env("VERDICTS", 0),
		Time:   time.Duration(env("SECONDS", 50)) * time.Second,
		Shapes: env("SHAPES", 100), Sources: env("SOURCES", 60), MaxMismatches: env("MAX", 5),
	})
	pc, both, un := r.Coverage.Report()
	t.Logf("%d rulesets, %d rules, %d refused, %d lossy, %d verdicts (%d accepted, %d uncertain), %.0f/s; load %v send %v compare %v; coverage %.1f%% met, %.1f%% both ways, %d not met",
		r.Rulesets, r.Rules, r.Refused, r.Lossy, r.Verdicts, r.Accepted, r.Uncertain, float64(r.Verdicts)/r.Elapsed.Seconds(), r.Load, r.Send, r.Compare, pc, both, len(un))
	t.Log(r.Why)
	if env("UNCOVERED", 0) > 0 {
		t.Log(un)
	}
	if env("REFUSALS", 0) > 0 {
		slices.Sort(oracle.Refusals)
		for _, x := range oracle.Refusals[:min(len(oracle.Refusals), env("REFUSALS", 0))] {
			t.Log(x)
		}
	}
	for _, f := range r.Failures {
		t.Errorf("seed %d raw %v\n%s", f.Case.Seed, f.Case.Raw, f.Case.Script)
		for i, m := range f.Mismatches {
			if i < 2 {
				t.Logf("%+v\n%+v\n%v", f.Case.Shapes[f.Case.Probes[m.Probe].Shape], f.Case.Probes[m.Probe].Src, m)
			}
		}
	}
}
