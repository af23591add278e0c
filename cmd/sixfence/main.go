// Command sixfence audits, hardens and verifies the IPv6 side of a Linux host.
package main

import (
	"os"

	"github.com/sixfence/sixfence/internal/surface/cli"
)

//go:generate go run . docs ../..

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
