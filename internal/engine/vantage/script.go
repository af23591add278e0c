package vantage

import (
	_ "embed"
	"strconv"
	"strings"
)

// script is what the shell there runs. It stands in a pair of braces, so that the shell
// has read all of it before any of it runs: what comes behind it on standard input is for
// those that it starts.
//
//go:embed far.sh
var script string

// scriptFor fills in what one run is about. None of it comes from the other side or from
// a user.
func scriptFor(nonce string, p *Program) string {
	return strings.NewReplacer(
		"@NONCE@", nonce, "@HASH@", p.hash, "@SIZE@", strconv.FormatInt(p.size, 10), "@KIB@", strconv.FormatInt(p.size/1024+64, 10),
	).Replace(script)
}
