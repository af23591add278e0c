// Command mutants proves the oracle: it plants the bugs of mutants.txt into copies
// of the model, one at a time, and demands that recorded kernel verdicts convict
// every one.
package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

//go:embed mutants.txt
var list string

type mutant struct{ name, file, old, new string }

func parse(s string) ([]mutant, error) {
	var out []mutant
	var lines []string
	end := func() error {
		if len(lines) == 0 {
			return nil
		}
		if len(lines) != 4 {
			return fmt.Errorf("mutant %q: %d lines, want 4", lines[0], len(lines))
		}
		un := func(s string) string { return strings.ReplaceAll(s, `\n`, "\n") }
		out = append(out, mutant{lines[0], lines[1], un(lines[2]), un(lines[3])})
		lines = nil
		return nil
	}
	for _, l := range strings.Split(s, "\n") {
		switch {
		case strings.HasPrefix(l, "#"):
		case l == "":
			if err := end(); err != nil {
				return nil, err
			}
		default:
			lines = append(lines, l)
		}
	}
	return out, end()
}

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		fmt.Fprintln(os.Stderr, "usage: mutants TREE[,TREE…] RECORDING [PAGE] (a TREE is a copy of the repository that may be changed; each is worked on by itself)")
		os.Exit(2)
	}
	page := ""
	if len(os.Args) == 4 {
		page = os.Args[3]
	}
	survivors, err := run(os.Args[1], os.Args[2], page)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	if survivors > 0 {
		os.Exit(1)
	}
}

func run(tree, recording, page string) (int, error) {
	all, err := parse(list)
	if err != nil {
		return 0, err
	}
	var ms []mutant // MUTANTS picks those whose name holds it
	for _, m := range all {
		if strings.Contains(m.name, os.Getenv("MUTANTS")) {
			ms = append(ms, m)
		}
	}
	trees := strings.Split(tree, ",") // each has a worker
	for _, t := range trees {         // the model as it is must pass
		if out, err := trial(t, recording); err != nil {
			return 0, fmt.Errorf("the model fails without a bug: %w\n%s", err, out)
		}
	}
	verdicts, errs := make([]string, len(ms)), make([]error, len(ms))
	next := make(chan int)
	var wg sync.WaitGroup
	for _, t := range trees {
		wg.Go(func() {
			for i := range next {
				if verdicts[i], errs[i] = try(t, recording, ms[i]); errs[i] == nil {
					fmt.Printf("%3d %-60s %s\n", i+1, ms[i].name, verdicts[i])
				}
			}
		})
	}
	for i := range ms {
		next <- i
	}
	close(next)
	wg.Wait()
	survived := 0
	for i, m := range ms {
		if errs[i] != nil {
			return 0, fmt.Errorf("mutant %q: %w", m.name, errs[i])
		}
		if verdicts[i] != "caught" {
			survived++
		}
	}
	if page != "" {
		if err := os.WriteFile(page, write(ms, verdicts, survived), 0o644); err != nil {
			return 0, err
		}
	}
	fmt.Printf("%d of %d mutants caught\n", len(ms)-survived, len(ms))
	return survived, nil
}

// write makes the page docs/reference/oracle-mutants.md.
func write(ms []mutant, verdicts []string, survived int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `# Bugs that the oracle must catch

<!-- Written by `+"`make oracle-mutants`"+`; edit internal/testlab/oracle/mutants instead. -->

Each of these bugs breaks one rule of the model of the packet filter. They are planted into copies of the program, one at a time, and the
model is compared with verdicts that the kernel gave: those of the kept regressions and of generated rulesets. %d of %d were caught.

| bug | in | verdict |
|---|---|---|
`, len(ms)-survived, len(ms))
	for i, m := range ms {
		verdict, _, _ := strings.Cut(verdicts[i], ":")
		fmt.Fprintf(&b, "| %s | %s | %s |\n", m.name, filepath.Base(m.file), verdict)
	}
	return []byte(b.String())
}

func try(tree, recording string, m mutant) (string, error) {
	file := filepath.Join(tree, m.file)
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(b), m.old); n == 0 {
		return "", fmt.Errorf("%s does not hold %q", m.file, m.old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), m.old, m.new, 1)), 0o600); err != nil {
		return "", err
	}
	out, bad := trial(tree, recording)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return "", err
	}
	switch {
	case bad == nil:
		return "SURVIVED", nil
	case !strings.Contains(out, "kernel accepted="):
		return "INVALID: " + out, nil
	}
	return "caught", nil
}

// trial compares the model of a tree with the recording.
func trial(tree, recording string) (string, error) {
	c := exec.Command("go", "test", "-vet=off", "-ldflags=-s -w", "-count=1", "-run", "^TestReplay$", "./internal/testlab/oracle")
	c.Dir = tree
	c.Env = append(os.Environ(), "ORACLE_REPLAY="+recording)
	out, err := c.CombinedOutput()
	return string(out), err
}
