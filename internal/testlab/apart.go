package testlab

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const apartEnv = "SIXFENCE_TESTLAB_APART"

// Apart runs the calling test once more, in a process with a mount namespace of its own, so
// that what the test mounts is gone with it, however it ends. It tells whether this is that
// process already; the other one has nothing left to do.
func Apart(t *testing.T) bool {
	t.Helper()
	if os.Getenv(apartEnv) == t.Name() {
		return true
	}
	RequireRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(RequireTool(t, "unshare"), "--mount", "--propagation", "private", "--kill-child", self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1", "-test.timeout=80m")
	c.Env = append(os.Environ(), apartEnv+"="+t.Name())
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("\n%s", out)
	return false
}
