package fact

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// For finds the settings that apply to an interface: what the running manager itself
// said, else the first whose match covers it. The doubt is what keeps us from knowing.
func (m *Manager) For(l *Link) (set *ManagedInterface, doubt *Gap) {
	for i := range m.Interfaces {
		if m.Interfaces[i].Index != 0 && m.Interfaces[i].Index == l.Index {
			return &m.Interfaces[i], nil
		}
	}
	for i := range m.Interfaces {
		mi := &m.Interfaces[i]
		if mi.Index != 0 {
			continue
		}
		switch covers(mi, l) {
		case yes:
			if doubt != nil {
				return mi, doubt
			}
			return mi, nil
		case maybe:
			if doubt == nil {
				doubt = &Gap{Reason: NotCollected, What: fmt.Sprintf("whether %s applies to %s (%s)", mi.Origin.File, l.Name, few(mi.Match))}
			}
			if set == nil {
				set = mi
			}
		}
	}
	return set, doubt
}

// coverage is an answer of covers.
type coverage int

const (
	no coverage = iota
	maybe
	yes
)

// covers tells whether a match is for this interface, by name, MAC and kind.
func covers(mi *ManagedInterface, l *Link) coverage {
	a := yes
	if len(mi.Names) == 0 && len(mi.Match) == 0 {
		return maybe
	}
	if len(mi.Names) > 0 {
		names := append([]string{l.Name}, l.AltNames...)
		if !slices.ContainsFunc(mi.Names, func(g string) bool {
			inverted := strings.HasPrefix(g, "!")
			g = strings.TrimPrefix(g, "!")
			hit := slices.ContainsFunc(names, func(n string) bool { ok, err := path.Match(g, n); return err == nil && ok })
			return hit != inverted
		}) {
			return no
		}
	}
	// Conditions of one key are alternatives, those of different keys must all hold.
	hit := map[string]bool{}
	for _, cond := range mi.Match {
		key, value, _ := strings.Cut(cond, "=")
		of := ""
		switch key {
		case "MACAddress":
			of, value = strings.ToLower(l.MAC), strings.ToLower(value)
		case "Kind":
			of = l.Kind
		case "interface-name":
			if strings.ContainsAny(value, "!|&") {
				a = maybe
				continue
			}
			of = l.Name
		default:
			a = maybe
			continue
		}
		hit[key] = hit[key] || slices.ContainsFunc(strings.Fields(value), func(w string) bool { ok, err := path.Match(w, of); return err == nil && ok })
	}
	for _, ok := range hit {
		if !ok {
			return no
		}
	}
	return a
}

// few lists the first of some conditions.
func few(words []string) string {
	if len(words) <= 3 {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:3], ", "), len(words)-3)
}
