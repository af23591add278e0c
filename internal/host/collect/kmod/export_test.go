package kmod

import (
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// BootWanted is the allow-list of boot parameters.
var BootWanted = bootWanted

// AsLive is a directory that is read as if it were the root of this host.
func AsLive(t *tree.Tree) Source { return liveTree{t} }

type liveTree struct{ *tree.Tree }

func (liveTree) Live() bool { return true }

// Raw makes a Dump of the bytes of files.
func Raw(dep, alias, cmdline, osRelease []byte) *Dump {
	return &Dump{
		live: true, release: "6.1", procKernel: true,
		modules: fact.Value([]byte("x 1 0 - Live 0\n")), builtin: fact.Value(dep), dep: fact.Value(dep), alias: fact.Value(alias),
		cmdline: fact.Value(keepWanted(cmdline)), osRelease: fact.Value(osRelease),
	}
}
