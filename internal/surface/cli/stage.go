package cli

import (
	"strings"

	"github.com/sixfence/sixfence/internal/host/sandbox"
	"github.com/sixfence/sixfence/internal/host/store"
)

// sealing says what a run still needs once it has read its input.
type sealing struct {
	output *store.Output // nil: standard output only
	root   string        // a directory tree that is still to be read, or empty
	// writable is a directory besides that of the output, or empty; network keeps the
	// right to connect.
	writable string
	network  bool
}

// collecting keeps only the capabilities that collecting a host needs.
func (a *app) collecting() {
	if err := sandbox.Collecting(); err != nil {
		a.log.Info("more capabilities than needed while collecting", "cause", err)
	}
}

// seal gives up everything but computing and writing the output. It comes before
// the first collected byte is interpreted. A kernel (or a container) that cannot do
// all of it does not fail the audit, whose facts are as true as before: --verbose
// says what is missing.
func (a *app) seal(s sealing) {
	var o sandbox.Options
	if s.output != nil && s.output.Dir() != "" {
		o.Writable = append(o.Writable, s.output.Dir())
	}
	if s.root != "" {
		o.Readable = append(o.Readable, s.root)
	}
	if s.writable != "" {
		o.Writable = append(o.Writable, s.writable)
	}
	o.Network = s.network
	r, err := sandbox.Seal(o)
	if err != nil {
		a.log.Info("not fully sealed while interpreting", "cause", err)
	}
	if r.Landlock != "" {
		a.log.Info("files are not fenced off while interpreting: no Landlock", "cause", r.Landlock)
	}
	if len(r.Capabilities) > 0 {
		a.log.Info("capabilities kept while interpreting", "held", strings.Join(r.Capabilities, ","))
	}
	if !r.NoNewPrivs {
		a.log.Info("no_new_privs is not set while interpreting")
	}
}
