package apply

import (
	"context"
	"fmt"
	"strings"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/run"
)

// TableText is a table ("inet sixfence") as `nft -s list table` prints it; empty when
// there is none. It is what a Plan keeps for the way back.
func TableText(ctx context.Context, table string) (string, error) {
	nft := mutate.NFTPath()
	if nft == "" {
		return "", fmt.Errorf("list table %s: nft is not installed", table)
	}
	r, err := run.Run(ctx, run.Program{Path: nft, Args: append([]string{"-s", "list", "table"}, strings.Fields(table)...), Env: []string{"LC_ALL=C"}})
	if err != nil {
		return "", fmt.Errorf("list table %s: %w", table, err)
	}
	if r.Exit != 0 {
		if strings.Contains(string(r.Stderr), "No such file") {
			return "", nil
		}
		return "", fmt.Errorf("list table %s: %s", table, strings.TrimSpace(string(r.Stderr)))
	}
	return string(r.Stdout), nil
}
