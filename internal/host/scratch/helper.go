package scratch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/run"
)

var self = run.Helper{Name: "sixfence-scratch", Life: maxTime, Main: func(nft string) int { return help(nft, os.Stdin, os.Stdout) }}

func init() { self.Hook() }

// help is the helper: it makes the namespace a jail, says that it is ready, and
// answers one request.
func help(nft string, in io.Reader, out io.Writer) int {
	w := bufio.NewWriterSize(out, 1<<16)
	say := func(kind byte, v any) int {
		b, err := json.Marshal(v)
		if err != nil {
			fmt.Fprintln(os.Stderr, "write answer:", err)
			return 1
		}
		writeFrame(w, kind, b)
		if err := w.Flush(); err != nil {
			return 1 // nobody listens any more
		}
		return 0
	}
	tool, err := jail(nft)
	if err == nil {
		err = bound()
	}
	if err != nil {
		f := failure{Why: err.Error()}
		if e := unix.Errno(0); errors.As(err, &e) {
			f.Errno = int(e)
		}
		return say(frameSetup, f)
	}
	if say(frameReady, nil) != 0 {
		return 1
	}
	r, texts, err := readRequest(in)
	if err != nil {
		return 1 // the caller is gone
	}
	go func() {
		_, _ = io.Copy(io.Discard, in) // the caller writes nothing more
		run.CallerEnded()
	}()
	l := loader{tool: tool, r: r, stubs: map[string]uint32{}}
	e := l.load(texts, func(kind byte, b []byte) { writeFrame(w, kind, b) })
	return say(frameEnd, e)
}

func readRequest(in io.Reader) (request, [][]byte, error) {
	var r request
	kind, b, err := readFrame(in, 64<<20)
	if err != nil || kind != frameRequest {
		return r, nil, errors.Join(err, errFrame)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, nil, fmt.Errorf("read request: %w", err)
	}
	texts := make([][]byte, len(r.Files))
	for i := range texts {
		if kind, texts[i], err = readFrame(in, maxInclude+1<<20); err != nil || kind != frameText {
			return r, nil, errors.Join(err, errFrame)
		}
	}
	return r, texts, nil
}

// bound limits what this process and all that it starts may write.
func bound() error {
	for _, l := range []struct {
		what  int
		value uint64
	}{{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_FSIZE, maxInclude + 1<<20}} {
		lim := unix.Rlimit{Cur: l.value, Max: l.value}
		if err := unix.Setrlimit(l.what, &lim); err != nil {
			return fmt.Errorf("limit resources: %w", err)
		}
	}
	return nil
}

// confine leaves the calling thread, and the programs that it starts, one capability:
// CAP_NET_ADMIN over the empty network. The thread must be locked to its goroutine.
func confine() error {
	for v := uintptr(0); v < 64; v++ {
		if v == unix.CAP_NET_ADMIN {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, v, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capabilities: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	d := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN}}
	if err := unix.Capset(&h, &d[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// trimmed is the first so many bytes, for messages.
func trimmed(b []byte, n int) string {
	b = bytes.TrimSpace(b)
	if len(b) > n {
		return string(b[:n]) + "…"
	}
	return string(b)
}
