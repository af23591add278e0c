package cli

import (
	"fmt"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
)

// ipsetSave reads what ipset save printed. The files may hold iptables-save text, too.
func (o *offline) ipsetSave(files []rulesFile) error {
	for _, f := range files {
		if f.format == formatSaves || o.sets != nil {
			return o.noSaves(f)
		}
		sets, err := pfdecode.ParseIPSets(string(f.text))
		if err != nil {
			return &rulesetError{msg: "read ruleset " + f.name, cause: err, hint: "give the output of ipset save as it is"}
		}
		o.sets = sets
	}
	return nil
}

// iptablesSave reads what iptables-save and ip6tables-save printed. The files may hold
// ipset save text, too; o.sets are those that rules name, nil when no file had any.
func (o *offline) iptablesSave(files []rulesFile) error {
	return o.noSaves(files[0])
}

func (o *offline) noSaves(f rulesFile) error {
	return &rulesetError{msg: fmt.Sprintf("read ruleset %s: this build does not read the output of %s", f.name, f.format), hint: "take a snapshot on the host: sixfence snapshot -o FILE"}
}
