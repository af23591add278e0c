package oracle

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// same tells whether a smaller case still shows a mismatch for the packet.
func (l *Lab) same(c *Case) bool {
	if l.Load(c.Script) != nil {
		return false
	}
	var err error
	if c.NFT, err = l.Dump(); err != nil {
		return false
	}
	if c.Accepted, err = l.Fire(c.Shapes, c.Probes); err != nil {
		return false
	}
	out, err := c.Compare(nil, 1)
	return err == nil && len(out.Mismatches) > 0
}

// Shrink makes the smallest ruleset and packet it finds that still show the mismatch.
func (l *Lab) Shrink(c *Case, m Mismatch) *Case {
	p := c.Probes[m.Probe]
	small := &Case{
		Seed: c.Seed, Script: c.Script, Raw: c.Raw, Interfaces: c.Interfaces, Host: c.Host, Leave: m.Leave, bug: c.bug,
		Shapes: []Shape{c.Shapes[p.Shape]}, Probes: []Probe{{0, p.Src}},
	}
	if !l.same(small) {
		return nil // it needs the packets before it
	}
	best := *small
	try := func(lines []string) bool {
		t := best
		t.Script = strings.Join(lines, "\n")
		if !l.same(&t) {
			return false
		}
		best = t
		return true
	}
	for again := true; again; {
		again = false
		lines := strings.Split(best.Script, "\n")
		for _, b := range blocks(lines) {
			kept := slices.Delete(slices.Clone(lines), b[0], b[1])
			if try(kept) {
				again = true
				break
			}
		}
		if again {
			continue
		}
		for size := len(lines) / 2; size >= 1; size /= 2 {
			for i := 0; i < len(lines); {
				kept := without(lines, i, size)
				if len(kept) < len(lines) && try(kept) {
					lines, again = kept, true
				} else {
					i += size
				}
			}
		}
	}
	return &best
}

// blocks are the tables and chains of a script: first line, and the one after the last.
func blocks(lines []string) [][2]int {
	var out [][2]int
	for i, l := range lines {
		for _, b := range []struct{ open, close string }{{"table ", "}"}, {" chain ", " }"}} {
			if !strings.HasPrefix(l, b.open) {
				continue
			}
			for j := i; j < len(lines); j++ {
				if lines[j] == b.close {
					out = append(out, [2]int{i, j + 1})
					break
				}
			}
		}
	}
	return out
}

// without leaves out rules and sets among n lines from i on; the frame stays.
func without(lines []string, i, n int) []string {
	var out []string
	for k, l := range lines {
		rule := strings.HasPrefix(l, "  ") && !strings.HasPrefix(l, "  type ") || definition(l) || strings.HasPrefix(l, " flags")
		if k >= i && k < i+n && rule {
			continue
		}
		out = append(out, l)
	}
	return out
}

// Format writes a case as a regression: the ruleset, the packet, the kernel's verdict.
func (c *Case) Format() []byte {
	packet, _ := json.MarshalIndent(c.Shapes[0], "", " ")
	verdict := "drop"
	if c.Accepted[0] {
		verdict = "accept"
	}
	return txtar.Format(&txtar.Archive{
		Comment: []byte(fmt.Sprintf("seed %d\n", c.Seed)),
		Files: []txtar.File{
			{Name: "ruleset.nft", Data: []byte(c.Script + "\n")},
			{Name: "packet.json", Data: append(packet, '\n')},
			{Name: "source", Data: []byte(c.Probes[0].Src.String() + "\n")},
			{Name: "leave", Data: []byte(fmt.Sprintln(c.Leave))},
			{Name: "raw", Data: []byte(fmt.Sprintln(c.Raw))},
			{Name: "kernel", Data: []byte(verdict + "\n")},
		},
	})
}

// ParseCase reads a regression.
func ParseCase(b []byte) (*Case, error) {
	c := &Case{Shapes: make([]Shape, 1), Probes: make([]Probe, 1)}
	for _, f := range txtar.Parse(b).Files {
		s := strings.TrimSpace(string(f.Data))
		var err error
		switch f.Name {
		case "ruleset.nft":
			c.Script = string(f.Data)
		case "packet.json":
			err = json.Unmarshal(f.Data, &c.Shapes[0])
		case "source":
			c.Probes[0].Src, err = netip.ParseAddr(s)
		case "leave":
			var n uint64
			n, err = strconv.ParseUint(s, 10, 32)
			c.Leave = uint32(n)
		case "raw":
			c.Raw = s == "true"
		case "kernel":
			c.Accepted = []bool{s == "accept"}
		}
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", f.Name, err)
		}
	}
	return c, nil
}

// Replay loads a regression and compares again. The kernel must still say what it said.
func (l *Lab) Replay(c *Case) (*Outcome, error) {
	said := c.Accepted[0]
	if err := l.Load(c.Script); err != nil {
		return nil, err
	}
	var err error
	if c.NFT, err = l.Dump(); err != nil {
		return nil, err
	}
	c.Interfaces, c.Host = l.names, l.facts
	for try := 0; ; try++ {
		if c.Accepted, err = l.Fire(c.Shapes, c.Probes); err != nil {
			return nil, err
		}
		if c.Accepted[0] == said {
			break
		}
		if try == 2 {
			return nil, fmt.Errorf("the kernel accepts: %v, and did: %v", c.Accepted[0], said)
		}
		// A packet may be late on a busy machine; rates and sets start anew.
		if err := l.Load(c.Script); err != nil {
			return nil, err
		}
	}
	return c.Compare(nil, 1)
}
