package oracle_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab/oracle"
)

// env is a number of the run: ORACLE_SEED, ORACLE_VERDICTS, ORACLE_SECONDS (0: no
// bound), ORACLE_SHAPES times ORACLE_SOURCES packets a ruleset, ORACLE_MAX mismatches.
func env(name string, def int) int {
	if v, err := strconv.Atoi(os.Getenv("ORACLE_" + name)); err == nil {
		return v
	}
	return def
}

func TestOracle(t *testing.T) {
	var keep func(*oracle.Case)
	if name := os.Getenv("ORACLE_RECORD"); name != "" {
		rec, err := oracle.NewRecorder(name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := rec.Close(); err != nil {
				t.Error(err)
			}
		}()
		keep = func(c *oracle.Case) {
			if err := rec.Add(c); err != nil {
				t.Error(err)
			}
		}
	}
	// A fixed slice, the same in every run; make oracle asks for the whole.
	seconds, rulesets := 300, 40
	if os.Getenv("ORACLE_VERDICTS") != "" {
		rulesets = 100000
	}
	l := oracle.NewLab(t)
	if keep != nil { // the regressions are evidence as well
		for name, c := range regressions(t) {
			if _, err := l.Replay(c); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			keep(c)
		}
	}
	r := oracle.Run(t, l, oracle.Config{
		Seed: uint64(env("SEED", 1)), Rulesets: env("RULESETS", rulesets), Verdicts: env("VERDICTS", 0),
		Time:   time.Duration(env("SECONDS", seconds)) * time.Second,
		Keep:   keep,
		Shapes: env("SHAPES", 100), Sources: env("SOURCES", 60), MaxMismatches: env("MAX", 5),
	})
	t.Log(r.Summary())
	t.Logf("%d rules, %d refused, %d accepted; load %v send %v compare %v", r.Rules, r.Refused, r.Accepted, r.Load, r.Send, r.Compare)
	if r.Verdicts == 0 || r.Lossy > r.Rulesets {
		t.Errorf("%d verdicts, %d rounds lost: that proves nothing", r.Verdicts, r.Lossy)
	}
	if name := os.Getenv("ORACLE_REPORT"); name != "" {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
		nft, _ := exec.Command("nft", "--version").Output()
		if err := r.Write(f, "Linux "+strings.TrimSpace(string(release)), strings.TrimSpace(string(nft))); err != nil {
			t.Error(err)
		}
	}
	if env("UNCOVERED", 0) > 0 {
		share, _ := r.Coverage.Report()
		t.Log(share.Unmet, r.Coverage.Undecided())
	}
	if env("REFUSALS", 0) > 0 {
		slices.Sort(oracle.Refusals)
		for _, x := range oracle.Refusals[:min(len(oracle.Refusals), env("REFUSALS", 0))] {
			t.Log(x)
		}
	}
	for _, f := range r.Failures {
		small := l.Shrink(f.Case, f.Mismatches[0])
		if small == nil {
			t.Errorf("seed %d raw %v, not alone: %v\n%s", f.Case.Seed, f.Case.Raw, f.Mismatches[0], f.Case.Script)
			continue
		}
		out, err := small.Compare(nil, 1)
		if err != nil || len(out.Mismatches) == 0 {
			t.Errorf("seed %d: gone: %v", f.Case.Seed, err)
			continue
		}
		text := small.Format()
		sum := sha256.Sum256(text)
		name := filepath.Join("testdata", hex.EncodeToString(sum[:4])+".txtar")
		if os.Getenv("ORACLE_SAVE") != "" {
			if err := os.WriteFile(name, text, 0o644); err != nil {
				t.Error(err)
			}
		}
		t.Errorf("seed %d: %s\n%v\n%s\n%+v", f.Case.Seed, name, out.Mismatches[0], text, small.Exprs())
	}
}

// TestReplay compares recorded verdicts with the model as it is now: the mutants'
// trial, which needs no kernel. Without ORACLE_REPLAY it records the regressions.
func TestReplay(t *testing.T) {
	name := os.Getenv("ORACLE_REPLAY")
	if name == "" {
		name = filepath.Join(t.TempDir(), "cases")
		rec, err := oracle.NewRecorder(name)
		if err != nil {
			t.Fatal(err)
		}
		l := oracle.NewLab(t)
		for file, c := range regressions(t) {
			if _, err := l.Replay(c); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if err := rec.Add(c); err != nil {
				t.Fatal(err)
			}
		}
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	err := oracle.ReadCases(name, func(c *oracle.Case) bool {
		out, err := c.Compare(nil, 1)
		if err != nil {
			t.Fatalf("seed %d: %v", c.Seed, err)
		}
		for _, m := range out.Mismatches {
			t.Fatalf("seed %d: %v", c.Seed, m)
		}
		n += out.Verdicts
		return true
	})
	if err != nil || n == 0 {
		t.Fatalf("%d verdicts: %v", n, err)
	}
	t.Logf("%d verdicts", n)
}

// regressions reads what is kept in testdata.
func regressions(t *testing.T) map[string]*oracle.Case {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no regressions: %v", err)
	}
	out := map[string]*oracle.Case{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if out[filepath.Base(f)], err = oracle.ParseCase(b); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
	}
	return out
}

// TestRegressions repeats what once was a mismatch, and what is easily got wrong.
func TestRegressions(t *testing.T) {
	l := oracle.NewLab(t)
	for name, c := range regressions(t) {
		out, err := l.Replay(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, m := range out.Mismatches {
			t.Errorf("%s: %v", name, m)
		}
	}
}
