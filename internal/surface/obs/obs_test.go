package obs

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestLoggerNeutralisesAndFilters(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	clean := func(s string) string { return strings.ReplaceAll(s, "\x1b", `\x1b`) }
	l := Logger(&b, slog.LevelInfo, clean).With("at", "eth\x1b0")
	l.Debug("not shown")
	l.Info("read", "name", "a\x1b[2J")
	l.Warn("slow")
	want := "sixfence: read at=eth\\x1b0 name=a\\x1b[2J\nsixfence: warning: slow at=eth\\x1b0\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestBuildHasAVersion(t *testing.T) {
	t.Parallel()
	if b := ReadBuild(); b.Version == "" || !strings.HasPrefix(b.Tool(), "sixfence ") || b.GoVersion == "" {
		t.Errorf("%+v", b)
	}
}
