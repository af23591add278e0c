package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// cite lists references: "RFC 4861 §7.2.5", "CVE-2020-10749" …
func cite(sources ...string) []finding.Reference {
	out := make([]finding.Reference, len(sources))
	for i, s := range sources {
		out[i] = finding.Reference{Source: s}
	}
	return out
}

// observed is evidence about the running kernel.
func (c *Context) observed(source, key, value string) finding.Evidence {
	return finding.Evidence{Source: source, Key: key, Value: value, At: c.At()}
}

// passing is evidence that changes by itself: counters, states, pids.
func (c *Context) passing(source, key, value string) finding.Evidence {
	e := c.observed(source, key, value)
	e.Volatile = true
	return e
}

// written is evidence from a line of a file.
func written(o fact.Origin, key, value string) finding.Evidence {
	at := o.File
	if o.Line > 0 {
		at = fmt.Sprintf("%s:%d", o.File, o.Line)
	}
	return finding.Evidence{Source: o.File, Key: key, Value: value, At: at}
}

// listing joins words for a message and says how many it left out.
func listing(words []string, most int) string {
	if len(words) <= most {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), len(words)-most)
}

// count is "1 socket", "2 sockets".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// baseName is the last element of an executable's path, without the kernel's
// note that the file is gone.
func baseName(exe string) string {
	exe = strings.TrimSuffix(exe, " (deleted)")
	return exe[strings.LastIndexByte(exe, '/')+1:]
}

// sortedUnique sorts words and drops repetitions.
func sortedUnique(words []string) []string {
	slices.Sort(words)
	return slices.Compact(words)
}

// tunnelProtocols are the IP protocols that carry packets inside packets.
var tunnelProtocols = map[uint16]string{
	4: "IPv4 in IP", 41: "IPv6 in IP", 47: "GRE", 97: "EtherIP", 98: "ENCAP", 115: "L2TPv3", 137: "MPLS in IP",
}

// gapAs is gapOf for a fact whose Gap may say nothing but "not collected".
func gapAs[T any](k fact.Known[T], what string) *fact.Gap {
	g := gapOf(k)
	if g != nil && g.What == "" {
		g.What = what
	}
	return g
}

// nft is a one-line nftables script, for a shell.
func nft(script string) string { return "nft " + shellWord(script) }
