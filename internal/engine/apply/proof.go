package apply

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/engine/connect"
	"github.com/sixfence/sixfence/internal/host/store"
)

// Socket is an established TCP connection.
type Socket struct {
	Local, Remote netip.AddrPort
	Inode         uint64
}

func (s Socket) key() string { return s.Local.String() + " " + s.Remote.String() }

func (s Socket) family() string {
	if s.Remote.Addr().Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// Sockets reads the established TCP connections of the caller's network namespace.
func Sockets() ([]Socket, error) { return procSockets("tcp", "01") }

// Incoming tells the connections that were made to this host from those that it made
// itself, as an agent does which people reach through its server: somebody listens on the
// port of the former, or did (ports below 1024 are given to nobody by chance).
func Incoming() (func(Socket) bool, error) {
	ss, err := procSockets("tcp", "0A")
	if err != nil {
		return nil, err
	}
	listening := map[uint16]bool{}
	for _, s := range ss {
		listening[s.Local.Port()] = true
	}
	return func(s Socket) bool { return listening[s.Local.Port()] || s.Local.Port() < 1024 }, nil
}

// procSockets reads the sockets of a protocol, over both families, that are in one of
// the states as /proc writes them.
func procSockets(proto string, states ...string) ([]Socket, error) {
	var out []Socket
	for _, name := range []string{proto, proto + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue // no such family here
		}
		if err != nil {
			return nil, fmt.Errorf("read connections: %w", err)
		}
		sc := bufio.NewScanner(f)
		sc.Scan() // names of the columns
		for sc.Scan() {
			w := strings.Fields(sc.Text())
			if len(w) < 10 || !slices.Contains(states, w[3]) {
				continue
			}
			l, ok1 := procAddr(w[1])
			r, ok2 := procAddr(w[2])
			inode, err := strconv.ParseUint(w[9], 10, 64)
			if ok1 && ok2 && err == nil {
				out = append(out, Socket{Local: l, Remote: r, Inode: inode})
			}
		}
		err = sc.Err()
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read connections: %w", err)
		}
	}
	return out, nil
}

// procAddr reads an address of /proc/net/tcp: words of 32 bits in the host's order.
func procAddr(s string) (netip.AddrPort, bool) {
	a, p, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(a)
	port, err2 := strconv.ParseUint(p, 16, 16)
	if !ok || err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		for i := 0; i < len(b); i += 4 {
			b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
		}
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}

// Ancestors are the sockets that a process and those that started it hold.
func Ancestors(pid int) (map[uint64]bool, error) {
	if pid == 0 {
		pid = os.Getpid()
	}
	out := map[uint64]bool{}
	for range 64 {
		if pid <= 1 {
			return out, nil
		}
		dir := "/proc/" + strconv.Itoa(pid)
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", dir, err)
		}
		for _, f := range fds {
			l, err := os.Readlink(dir + "/fd/" + f.Name())
			if err != nil {
				continue
			}
			if n, ok := strings.CutPrefix(l, "socket:["); ok {
				if i, err := strconv.ParseUint(strings.TrimSuffix(n, "]"), 10, 64); err == nil {
					out[i] = true
				}
			}
		}
		b, err := os.ReadFile(dir + "/stat")
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", dir, err)
		}
		_, rest, _ := strings.Cut(string(b[strings.LastIndex(string(b), ")")-1:]), ") ")
		w := strings.Fields(rest)
		if len(w) < 2 {
			return nil, fmt.Errorf("read %s/stat: not understood", dir)
		}
		if pid, err = strconv.Atoi(w[1]); err != nil {
			return nil, fmt.Errorf("read %s/stat: %w", dir, err)
		}
	}
	return out, nil
}

// socketsFile has the connections that were there when all was applied: one that came
// after the arming, and before the rules, was let in by none of them.
const socketsFile = "sockets"

func (t *transaction) noteSockets() error {
	now, err := Sockets()
	if err != nil {
		return err
	}
	keys := []string{}
	for _, s := range now {
		keys = append(keys, s.key())
	}
	return t.put(socketsFile, keys)
}

// put writes something into a file of the transaction, whole or not at all.
func (t *transaction) put(file string, what any) error {
	b, err := json.Marshal(what)
	if err == nil {
		err = t.dir.Replace(file, b, store.Attr{})
	}
	if err != nil {
		return fmt.Errorf("note %s: %w", file, err)
	}
	return nil
}

// oldSockets are the connections that prove nothing.
func (t *transaction) oldSockets() ([]string, error) {
	b, _, err := t.dir.Read(socketsFile, maxJournal)
	if errors.Is(err, unix.ENOENT) { // an older program applied it
		return t.j.Sockets, nil
	}
	if err != nil {
		return nil, err
	}
	var keys []string
	if err := json.Unmarshal(b, &keys); err != nil {
		return nil, fmt.Errorf("read the connections of then: %w", err)
	}
	return append(keys, t.j.Sockets...), nil
}

func (t *transaction) readProof() (p proof) {
	b, _, err := t.dir.Read(proofFile, 1<<20)
	if err == nil {
		_ = json.Unmarshal(b, &p)
	}
	return p
}

func (t *transaction) prove(p proof) error { return t.put(proofFile, p) }

// check answers one of a plan's checks. A new filter may need a moment, so it is tried three times.
func (e *Engine) check(ctx context.Context, raw string) error {
	f := e.Check
	if f == nil {
		f = connect.Check
	}
	var err error
	for try := range 3 {
		if try > 0 {
			select {
			case <-time.After(time.Duration(try) * 300 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err = f(ctx, raw); err == nil {
			return nil
		}
	}
	return err
}
