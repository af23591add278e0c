// Package obs says what the program is and what it is doing: build information,
// and a logger whose lines are for people at a terminal.
package obs

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// Version is set by the release build (-ldflags "-X …/obs.Version=1.2.3").
var Version = ""

// Build is what binary this is.
type Build struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Modified  bool   `json:"modified,omitempty"` // built from a tree with local changes
	Date      string `json:"date,omitempty"`     // of the commit, RFC 3339
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

// ReadBuild reads what the linker recorded.
func ReadBuild() Build {
	b := Build{Version: Version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.time":
				b.Date = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
		if b.Version == "" && info.Main.Version != "(devel)" {
			b.Version = strings.TrimPrefix(info.Main.Version, "v")
		}
	}
	if b.Version == "" {
		b.Version = "dev"
	}
	return b
}

// Tool is how a Report names this binary.
func (b Build) Tool() string { return "sixfence " + b.Version }

// Logger writes one line a record, "sixfence: message key=value", through clean,
// which neutralises what an attacker may have put into a name.
func Logger(w io.Writer, level slog.Leveler, clean func(string) string) *slog.Logger {
	return slog.New(&handler{w: w, level: level, clean: clean, mu: new(sync.Mutex)})
}

type handler struct {
	w     io.Writer
	level slog.Leveler
	clean func(string) string
	mu    *sync.Mutex
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("sixfence: ")
	if r.Level >= slog.LevelWarn && r.Level < slog.LevelError {
		b.WriteString("warning: ")
	}
	b.WriteString(h.clean(r.Message))
	attr := func(a slog.Attr) bool {
		b.WriteString(" " + h.clean(a.Key) + "=" + h.clean(a.Value.Resolve().String()))
		return true
	}
	for _, a := range h.attrs {
		attr(a)
	}
	r.Attrs(attr)
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, b.String())
	return err
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(as []slog.Attr) slog.Handler {
	n := *h
	n.attrs = append(append([]slog.Attr{}, h.attrs...), as...)
	return &n
}

// WithGroup implements slog.Handler. Groups have no meaning on a terminal.
func (h *handler) WithGroup(string) slog.Handler { return h }
