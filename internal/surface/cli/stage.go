package cli

import "github.com/sixfence/sixfence/internal/host/store"

// sealing says what a run still needs once it has read its input.
type sealing struct {
	output *store.Output // nil: standard output only
	root   string        // a directory tree that is still to be read, or empty
}

// collecting keeps only the capabilities that collecting a host needs.
func (a *app) collecting() {}

// seal gives up everything but computing and writing the output. It comes before
// the first collected byte is interpreted. A kernel that cannot do all of it does
// not fail the audit: the facts are as true as before.
func (a *app) seal(sealing) {}
