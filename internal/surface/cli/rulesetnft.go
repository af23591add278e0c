package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sixfence/sixfence/internal/host/scratch"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// prepared are the files of one ruleset, with what needs rights done: what they include
// was read, and a throw-away namespace waits for nft.
type prepared struct {
	files   []rulesFile
	scripts []scratch.Script
	session *scratch.Session
}

func (p *prepared) close() {
	if p.session != nil {
		p.session.Close()
	}
}

// prepare reads files before the process is sealed.
func (a *app) prepare(paths []string) (*prepared, error) {
	files, err := a.readRules(paths)
	if err != nil {
		return nil, err
	}
	p := &prepared{files: files}
	for i, f := range files {
		if f.format != formatNFT && f.format != formatNFTJSON {
			continue
		}
		s := scratch.Script{Name: f.name, Text: f.text, JSON: f.format == formatNFTJSON}
		// A pipe (standard input, or what a shell substitutes) is in no directory.
		if st, err := os.Stat(paths[i]); paths[i] != "-" && err == nil && st.Mode().IsRegular() {
			s.Path = paths[i]
		}
		if err := s.Gather(); err != nil {
			return nil, loadError(f.name, err)
		}
		p.scripts = append(p.scripts, s)
	}
	if len(p.scripts) == 0 {
		return p, nil
	}
	if p.session, err = scratch.Start(); err != nil {
		return nil, loadError(p.scripts[0].Name, err)
	}
	return p, nil
}

// nft loads nft scripts and JSON, in their order. n is nil without a host.
func (o *offline) nft(p *prepared, n *fact.Namespace) error {
	opt := scratch.Options{Scripts: p.scripts}
	if n != nil {
		links, _ := n.Links.Get()
		for _, l := range links {
			opt.Interfaces = append(opt.Interfaces, scratch.Interface{Name: l.Name, Index: uint32(l.Index)})
		}
	}
	l, err := p.session.Load(context.Background(), opt)
	if err != nil {
		return loadError(p.scripts[0].Name, err)
	}
	tables, err := pfdecode.FromFact(l.NFTables, nativeOrder())
	if err != nil {
		return &rulesetError{msg: "read ruleset: what the kernel made of it", cause: err, hint: "this is a fault of sixfence; please report it"}
	}
	if i := strangeNumber(tables, l.Interfaces); n == nil && i != 0 {
		return &rulesetError{msg: fmt.Sprintf("read ruleset: a rule names an interface by its number %d, and only its host knows which one that is", i), hint: "write the name of the interface, or give the host with --snapshot FILE"}
	}
	o.tables = append(o.tables, tables...)
	o.interfaces = l.Interfaces
	o.notes = append(o.notes, l.Notes...)
	if len(l.Opaque) > 0 {
		o.notes = append(o.notes, fmt.Sprintf("nft's JSON does not say what %d statements are (the first: %s); their rules stay open; iptables-save, or the text of nft list ruleset, says it", len(l.Opaque), l.Opaque[0]))
	}
	for _, u := range l.NFTables.Unexpanded {
		o.notes = append(o.notes, u.Gap.What)
	}
	if n != nil && len(l.Made) > 0 {
		o.notes = append(o.notes, fmt.Sprintf("the rules name interfaces that the host does not have, where nft refuses to load them: %s", strings.Join(l.Made, ", ")))
	}
	return nil
}

// tell says on standard error what the files leave to this machine.
func (a *app) tell(notes []string) {
	for _, n := range notes {
		a.log.Warn(n)
	}
}

// loadError is exit 3: the ruleset is not known, and no part of it is taken for it.
func loadError(name string, err error) error {
	var refused *scratch.RefusedError
	var unavailable *scratch.UnavailableError
	switch {
	case errors.As(err, &refused):
		e := &rulesetError{msg: "read ruleset", cause: err, hint: "nothing was loaded; correct the script: nft -c -f " + name}
		if len(refused.Problems) > 0 && refused.Problems[0].Advice != "" {
			e.hint = refused.Problems[0].Advice
		}
		return e
	case errors.As(err, &unavailable):
		return &rulesetError{msg: "read ruleset " + name, cause: err, hint: unavailable.Hint}
	}
	return &rulesetError{msg: "read ruleset " + name, cause: err, hint: "take a Snapshot where the rules run, and give it instead: sixfence snapshot -o FILE"}
}

// strangeNumber returns a number that rules give to an interface and that belongs to
// none of these; 0 is none.
func strangeNumber(tables []*rs.Table, known map[uint32]string) uint32 {
	const iif, oif = 4, 5 // NFT_META_IIF, NFT_META_OIF
	order := nativeOrder()
	strange := func(b []byte) uint32 {
		if len(b) < 4 || known[order.Uint32(b)] != "" {
			return 0
		}
		return order.Uint32(b)
	}
	for _, t := range tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				loaded := map[rs.Reg]bool{}
				for _, e := range r.Exprs {
					switch x := e.(type) {
					case rs.Meta:
						loaded[x.Dreg] = x.Key == iif || x.Key == oif
					case rs.Payload:
						loaded[x.Dreg] = false
					case rs.Ct:
						loaded[x.Dreg] = false
					case rs.Cmp:
						if i := strange(x.Data); loaded[x.Sreg] && i != 0 {
							return i
						}
					case rs.Lookup:
						if s := t.Sets[x.Set]; loaded[x.Sreg] && s != nil {
							for _, el := range s.Elements {
								if i := strange(el.From); i != 0 {
									return i
								}
							}
						}
					}
				}
			}
		}
	}
	return 0
}
