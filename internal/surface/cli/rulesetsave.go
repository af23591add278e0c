package cli

import (
	"errors"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// ipsetSave reads what ipset save printed. The files may hold iptables-save text, too.
func (o *offline) ipsetSave(files []rulesFile) error {
	for _, f := range files {
		text := string(f.text)
		if f.format == formatSaves {
			_, text = pfdecode.SplitSaves(text)
		}
		if o.sets == nil {
			o.sets = pfdecode.NoIPSets()
		}
		if err := o.sets.ParseMore(f.name, text); err != nil {
			return textError(err)
		}
	}
	return nil
}

// iptablesSave reads what iptables-save and ip6tables-save printed. The files may hold
// ipset save text, too; o.sets are those that rules name, nil when no file had any.
func (o *offline) iptablesSave(files []rulesFile) error {
	words := map[rs.Family][2]string{rs.IPv4: {"IPv4", "iptables-save"}, rs.IPv6: {"IPv6", "ip6tables-save"}}
	has := map[rs.Family]bool{}
	saved := map[string]string{} // the file that a table came from
	for _, f := range files {
		text := string(f.text)
		if f.format == formatSaves {
			text, _ = pfdecode.SplitSaves(text)
		}
		s, err := pfdecode.ParseXTables(f.name, text, nativeOrder(), o.sets)
		if err != nil {
			return textError(err)
		}
		for _, t := range s.Tables {
			id := words[t.Family][0] + " table " + t.Name
			if t.Source == rs.NFTables {
				id += " of nf_tables"
			}
			if first := saved[id]; first != "" && first != f.name {
				return &rulesetError{msg: f.name + ": the " + id + " is in " + first + " as well", hint: "give each table of one host once"}
			}
			saved[id] = f.name
		}
		o.tables = append(o.tables, s.Tables...)
		for _, l := range s.Lacks {
			o.lacks = append(o.lacks, lack{l.Family, l.What})
		}
		for _, fam := range s.Families {
			has[fam] = true
		}
	}
	for _, l := range pfdecode.MixedBackends(o.tables) {
		o.lacks = append(o.lacks, lack{l.Family, l.What})
	}
	if o.nftRead {
		return nil // nft's rules are of both families
	}
	for fam, w := range words {
		if !has[fam] {
			o.lacks = append(o.lacks, lack{fam, "the " + w[0] + " rules: no file given holds them, " + w[1] + " prints them"})
		}
	}
	return nil
}

// textError keeps the hint of an error in a text.
func textError(err error) error {
	e := &rulesetError{msg: "read ruleset", cause: err, hint: rulesetHint}
	if t := (*pfdecode.TextError)(nil); errors.As(err, &t) && t.Hint != "" {
		e.hint = t.Hint
	}
	return e
}
