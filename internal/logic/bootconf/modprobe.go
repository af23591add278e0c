package bootconf

import (
	"path"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Blocking is how modprobe.d keeps a module from loading.
type Blocking string

// The ways, from none to a refusal that also reports failure.
const (
	NotBlocked     Blocking = "none"
	BlacklistOnly  Blocking = "blacklist"     // only loading by alias is stopped; by name and as a dependency it loads
	AliasedAway    Blocking = "alias"         // an alias line gives the name to something else; a dependency still loads it
	InstallFalse   Blocking = "install-false" // loading fails, and says so
	InstallTrue    Blocking = "install-true"  // loading does nothing and reports success
	InstallCommand Blocking = "install-other" // a command decides: it may still load the module
)

// Block is how one module is blocked, and by which line.
type Block struct {
	How Blocking
	By  fact.ModprobeDirective
	// Blacklist is the blacklist line, also when an install line decides.
	Blacklist *fact.ModprobeDirective
}

// Effective tells whether every load through modprobe (by name, by alias, as a
// dependency) is stopped. insmod, modprobe --ignore-install and an initramfs that
// was not rebuilt are not.
func (b Block) Effective() bool { return b.How == InstallFalse || b.How == InstallTrue }

// Canonical is a module's name as the kernel writes it: dashes are underscores.
func Canonical(module string) string { return strings.ReplaceAll(module, "-", "_") }

// Module tells how a module is blocked by the directives of modprobe.d, which
// come in the order in which modprobe reads them.
//
// libkmod takes the first install line whose pattern matches
// (kmod_module_get_install_commands), any blacklist line, and looks a name up
// among the aliases of the configuration before it looks for a module
// (kmod_module_new_from_lookup).
func Module(directives []fact.ModprobeDirective, module string) Block {
	name := Canonical(module)
	var b Block
	var install, away *fact.ModprobeDirective
	for i := range directives {
		d := &directives[i]
		switch d.Verb {
		case "install":
			if install == nil && matchOne(Canonical(d.Module), name) {
				install = d
			}
		case "blacklist":
			if b.Blacklist == nil && Canonical(d.Module) == name {
				b.Blacklist = d
			}
		case "alias":
			if away == nil && matchOne(Canonical(d.Module), name) && Canonical(strings.TrimSpace(d.Args)) != name {
				away = d
			}
		}
	}
	switch {
	case install != nil:
		b.How, b.By = installKind(install.Args), *install
	case away != nil:
		b.How, b.By = AliasedAway, *away
	case b.Blacklist != nil:
		b.How, b.By = BlacklistOnly, *b.Blacklist
	default:
		b.How = NotBlocked
	}
	return b
}

// installKind classifies the command of an install line.
func installKind(command string) Blocking {
	// A comment after the command is part of the shell line.
	command, _, _ = strings.Cut(command, " #")
	f := strings.Fields(command)
	if len(f) == 1 || len(f) == 2 && strings.HasPrefix(f[1], "$CMDLINE_OPTS") {
		switch f[0] {
		case ":":
			return InstallTrue
		case "/bin/false", "/usr/bin/false", "false":
			return InstallFalse
		case "/bin/true", "/usr/bin/true", "true":
			return InstallTrue
		}
	}
	if len(f) == 2 && path.Base(f[0]) == "exit" {
		if f[1] == "0" {
			return InstallTrue
		}
		return InstallFalse
	}
	return InstallCommand
}
