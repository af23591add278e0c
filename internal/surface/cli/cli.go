// Package cli is the command line: one file a verb. It is the only package that
// prints or exits.
package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/logic/check"
)

// Main runs the command line and returns the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c, err := collect.Run(collect.Options{})
	if err != nil {
		fmt.Fprintln(stderr, "sixfence:", err)
		return 2
	}
	r := check.Evaluate(c.Snapshot(), check.Options{Tool: "sixfence dev"})
	e := json.NewEncoder(stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return 2
	}
	return 0
}
