package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestScripts runs the command line as a person does: testdata/script reads as
// documentation.
func TestScripts(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	for _, tool := range []string{"unshare", "script", "setpriv", "stty"} {
		testlab.RequireTool(t, tool)
	}
	// An ordinary user must reach the work directory.
	root, err := os.MkdirTemp("", "sixfence-script-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		WorkdirRoot:         root,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(binary)+":/usr/sbin:/sbin:"+e.Getenv("PATH"))
			e.Setenv("TERM", "xterm-256color")
			return os.Chmod(e.WorkDir, 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":     exitsWith,
			"findings": findings,
			"mode":     mode,
		},
	})
}

// exitsWith is `code N sixfence …`: the command must exit with N.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	// The shell tells a signal from an exit, and keeps the code that exec drops.
	cmd := append([]string{"-c", `"$@"; echo $? > "$WORK/.code"`, "sh"}, args[1:]...)
	ts.Check(ts.Exec("sh", cmd...))
	_, err = fmt.Sscan(ts.ReadFile(ts.MkAbs(".code")), &got)
	ts.Check(err)
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// findings is `findings REPORT.json OUT`: what must not depend on how the facts
// came in.
func findings(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: findings REPORT.json OUT")
	}
	var r finding.Report
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
	if len(r.Findings) == 0 {
		ts.Fatalf("%s has no findings", args[0])
	}
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintln(&b, f.Control, f.Fingerprint, f.Status, f.Effective, f.Compliance, f.Severity, f.Title, f.Subject)
	}
	for _, g := range r.Gaps {
		fmt.Fprintln(&b, g.Reason, g.What, g.NetNS, g.Controls)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o600))
}

// mode is `mode 0600 FILE`: a regular file with exactly these permissions.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode PERM FILE")
	}
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	st, err := os.Lstat(ts.MkAbs(args[1]))
	ts.Check(err)
	if st.Mode() != os.FileMode(want) {
		ts.Fatalf("%s is %v, want a regular file %04o", args[1], st.Mode(), want)
	}
}
