package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/store"
)

// Record is one line of the history. Each holds the hash of the one before, so that
// nobody can take one out, or alter one, unseen.
type Record struct {
	Seq         int       `json:"seq"`
	At          time.Time `json:"at"`
	Event       string    `json:"event"` // armed, confirmed, rolled-back, reverted-by-reboot, restored, fight, corrupt, torn
	Transaction string    `json:"transaction,omitempty"`
	Former      string    `json:"former,omitempty"` // what a rollback takes back
	PlanID      string    `json:"planId,omitempty"`
	IntentHash  string    `json:"intentHash,omitempty"`
	Who         Who       `json:"who,omitzero"`
	Why         string    `json:"why,omitempty"`
	Proof       []string  `json:"proof,omitempty"`
	Conflicts   []string  `json:"conflicts,omitempty"`
	Lost        []string  `json:"lost,omitempty"`
	Failed      []string  `json:"failed,omitempty"`  // what was kept, and could not be done: an initramfs
	Objects     []string  `json:"objects,omitempty"` // that were restored, or are fought over
	Prev        string    `json:"prev"`              // SHA-256 in hex of the line before, without its line feed
}

const (
	historyFile = "history.jsonl"
	maxHistory  = 256 << 20
)

// BrokenError says where the chain of the history breaks.
type BrokenError struct {
	Line int
	Why  string
}

// Error implements error.
func (e *BrokenError) Error() string { return fmt.Sprintf("history line %d: %s", e.Line, e.Why) }

// readHistory reads and checks the chain. tail is what follows the last whole line.
func readHistory(d *store.Dir) (rs []Record, last string, tail []byte, err error) {
	b, _, err := d.Read(historyFile, maxHistory)
	if errors.Is(err, unix.ENOENT) {
		return nil, "", nil, nil
	}
	if err != nil {
		return nil, "", nil, err
	}
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		var r Record
		if !whole || len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &r) != nil {
			if len(bytes.TrimLeft(rest, "\x00")) == 0 {
				return rs, last, b, nil // torn by a crash: it was never relied on
			}
			return rs, last, nil, &BrokenError{Line: len(rs) + 1, Why: "it is no record"}
		}
		if r.Prev != last {
			return rs, last, nil, &BrokenError{Line: len(rs) + 1, Why: "it does not follow the line before: something was taken out or altered"}
		}
		sum := sha256.Sum256(line)
		last = hex.EncodeToString(sum[:])
		rs = append(rs, r)
		b = rest
	}
	return rs, last, nil, nil
}

// record appends to the history, and waits for the disk. A record that is the last
// one already is not written twice.
func (e *Engine) record(d *store.Dir, r Record) error {
	if err := e.boundary("history"); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	rs, last, tail, err := readHistory(d)
	if b := (*BrokenError)(nil); errors.As(err, &b) {
		// The broken one is kept for whoever looks into it, and a new one says so.
		name := historyFile + ".broken"
		for n := 1; d.Has(name); n++ {
			name = fmt.Sprintf("%s.broken-%d", historyFile, n)
		}
		if err := d.Move(historyFile, name); err != nil {
			return err
		}
		rs, last, tail = nil, "", nil
		if err := e.append(d, Record{Seq: 1, Event: "torn", Why: b.Error() + "; it is kept as " + name}, &last); err != nil {
			return err
		}
		rs = append(rs, Record{Seq: 1})
	} else if err != nil {
		return err
	}
	if n := len(rs); n > 0 && r.Transaction != "" && rs[n-1].Transaction == r.Transaction && rs[n-1].Event == r.Event {
		return nil
	}
	if len(tail) > 0 {
		if err := e.mend(d, rs); err != nil {
			return err
		}
	}
	r.Seq = len(rs) + 1
	if err := e.append(d, r, &last); err != nil {
		return err
	}
	journald(r)
	return nil
}

func (e *Engine) append(d *store.Dir, r Record, last *string) error {
	r.At, r.Prev = time.Now().UTC().Truncate(time.Millisecond), *last
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode history: %w", err)
	}
	sum := sha256.Sum256(b)
	*last = hex.EncodeToString(sum[:])
	if err := d.Append(historyFile, append(b, '\n'), true); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

// mend takes off what a crash left behind the last whole record.
func (e *Engine) mend(d *store.Dir, rs []Record) error {
	b, _, err := d.Read(historyFile, maxHistory)
	if err != nil {
		return err
	}
	at := 0
	for range rs {
		at += bytes.IndexByte(b[at:], '\n') + 1
	}
	return d.Replace(historyFile, b[:at], store.Attr{})
}

// History returns every record, and an error where the chain breaks.
func (e *Engine) History() ([]Record, error) {
	d, err := e.layer().Open(e.stateDir())
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	rs, _, _, err := readHistory(d)
	return rs, err
}

// oneLine is a text as the journal's protocol takes it.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// journald tells the system's journal, where there is one.
func journald(r Record) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	priority := 5
	what := "change " + r.Transaction + " " + r.Event
	switch r.Event {
	case "armed", "confirmed":
	case "restored":
		priority, what = 4, "restored "+oneLine(strings.Join(r.Objects, " ")+"; undone by "+r.Why)
	case "fight":
		priority, what = 2, "somebody keeps undoing "+oneLine(strings.Join(r.Objects, " ")+", and it is no longer restored; undone by "+r.Why)
	default:
		priority = 4
	}
	text := fmt.Sprintf("MESSAGE=sixfence harden: %s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=sixfence\nSIXFENCE_TRANSACTION=%s\nSIXFENCE_EVENT=%s\nSIXFENCE_INTENT=%s\n",
		what, priority, r.Transaction, r.Event, r.IntentHash)
	_ = unix.Sendto(fd, []byte(text), 0, &unix.SockaddrUnix{Name: "/run/systemd/journal/socket"})
}
