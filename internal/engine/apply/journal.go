package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// journalVersion is raised when an older program could misread a journal.
const journalVersion = 1

// maxJournal bounds a journal, in bytes.
const maxJournal = 128 << 20

// Journal is everything that is needed to undo a transaction, or to finish it, by a
// program that knows nothing else. It is written once, before the first change.
type Journal struct {
	ID     string      `json:"id"`
	Plan   change.Plan `json:"plan"`
	Former string      `json:"former,omitempty"` // the transaction that a rollback takes back
	Who    Who         `json:"who"`
	Begun  time.Time   `json:"begun"`
	// Deadline is when the undo acts, by the wall clock: for people. What counts is
	// DeadlineAt, which nobody can set.
	Deadline   time.Time `json:"deadline"`
	BegunAt    int64     `json:"begunAt"`    // milliseconds of CLOCK_BOOTTIME
	DeadlineAt int64     `json:"deadlineAt"` // the same
	Boot       string    `json:"boot"`       // the kernel's boot_id
	Network    string    `json:"network"`    // the network namespace, as /proc names it
	Entries    []Entry   `json:"entries"`    // as Plan.Steps
	// Links are the interfaces at that time, by their index: names may change.
	Links map[uint32]string `json:"links,omitempty"`
	// Sockets are the connections at the time of arming: none of them can confirm.
	Sockets []string `json:"sockets"`
	PID     int      `json:"pid"`      // of the run that applies
	Started string   `json:"pidStart"` // and when it started, in the words of /proc
	// Restores are the objects that are brought back after somebody else, whom Why names as
	// far as is known, undid them. Empty of any other change.
	Restores []string `json:"restores,omitempty"`
	Why      string   `json:"why,omitempty"`
}

// Who started a transaction.
type Who struct {
	UID     int    `json:"uid"`
	User    string `json:"user,omitempty"` // of sudo or login
	Command string `json:"command,omitempty"`
}

// Entry is what the journal knows of one step beyond the Plan: the state of its
// object before, and the state that we give it.
type Entry struct {
	Before string `json:"before"`
	Ours   string `json:"ours"`
	// Overwrites are other sysctls that the step writes; Saved what it destroys, read at
	// SavedAt (milliseconds of CLOCK_BOOTTIME).
	Overwrites []mutate.Value  `json:"overwrites,omitempty"`
	Saved      []change.Object `json:"saved,omitempty"`
	SavedAt    int64           `json:"savedAt,omitempty"`
	Dirs       []string        `json:"dirs,omitempty"` // parents of a file that have to be made
}

// CorruptError says that a journal cannot be used.
type CorruptError struct{ Name, Why, Hint string }

// Error implements error.
func (e *CorruptError) Error() string { return "read journal " + e.Name + ": " + e.Why }

func encodeJournal(j *Journal) ([]byte, error) {
	b, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("encode journal: %w", err)
	}
	sum := sha256.Sum256(b)
	return append(fmt.Appendf(nil, "sixfence-journal %d %s %d\n", journalVersion, hex.EncodeToString(sum[:]), len(b)), b...), nil
}

func decodeJournal(name string, b []byte) (*Journal, error) {
	bad := func(why string) error { return &CorruptError{Name: name, Why: why} }
	head, body, ok := bytes.Cut(b, []byte("\n"))
	w := strings.Fields(string(head))
	if !ok || len(w) != 4 || w[0] != "sixfence-journal" {
		return nil, bad("it is not a journal, or cut short")
	}
	v, err := strconv.Atoi(w[1])
	if err != nil || v < 1 {
		return nil, bad("it is not a journal")
	}
	if v > journalVersion {
		return nil, &CorruptError{Name: name, Why: fmt.Sprintf("version %d is newer than this program (%d)", v, journalVersion), Hint: "use the sixfence that wrote it: a copy lies beside the journal"}
	}
	if n, err := strconv.Atoi(w[3]); err != nil || n != len(body) {
		return nil, bad(fmt.Sprintf("it is cut short: %d bytes of %s", len(body), w[3]))
	}
	sum := sha256.Sum256(body)
	if hex.EncodeToString(sum[:]) != w[2] {
		return nil, bad("its checksum does not fit")
	}
	j := new(Journal)
	if err := json.Unmarshal(body, j); err != nil {
		return nil, bad(err.Error())
	}
	if len(j.Entries) != len(j.Plan.Steps) {
		return nil, bad("its entries do not fit its plan")
	}
	return j, nil
}

// readJournal reads a journal, or its copy.
func readJournal(d *store.Dir) (*Journal, error) {
	var first error
	for _, name := range []string{"journal", "journal.copy"} {
		b, _, err := d.Read(name, maxJournal)
		if err == nil {
			var j *Journal
			if j, err = decodeJournal(d.Path()+"/"+name, b); err == nil {
				return j, nil
			}
		} else if errors.Is(err, unix.ENOENT) {
			err = &CorruptError{Name: d.Path() + "/" + name, Why: "it is missing"}
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// phase is how far a transaction has come. Each is a file in its directory that was
// written beforehand and gets another name: no phase needs room on the disk.
type phase string

const (
	armed     phase = "armed"     // nothing is changed yet
	applying  phase = "applying"  // the running kernel is being changed
	waiting   phase = "waiting"   // for confirm
	committed phase = "committed" // files are being put in their places: forward only
	aborting  phase = "aborting"  // all is being undone: backward only
	undone    phase = "undone"    // all is as before
	done      phase = "done"      // all is as intended
)

// phases in the order in which a later one counts.
var phases = []phase{done, undone, aborting, committed, waiting, applying}

// unseen marks an undo that nobody was there to see.
const unseen = "unseen"

// transaction is one in its directory.
type transaction struct {
	dir *store.Dir
	j   *Journal
	p   progress
}

// kept is the word for its good end.
func (t *transaction) kept() string {
	if t.j.Restores != nil {
		return "restored"
	}
	return "confirmed"
}

func (t *transaction) phase() phase {
	for _, p := range phases {
		if t.dir.Has("is-" + string(p)) {
			return p
		}
	}
	return armed
}

// enter makes a phase durable.
func (t *transaction) enter(p phase) error {
	if t.dir.Has("is-" + string(p)) {
		return t.dir.Sync()
	}
	if err := t.dir.Rename("next-"+string(p), "is-"+string(p)); err != nil {
		return fmt.Errorf("note that the change is %s: %w", p, err)
	}
	return t.dir.Sync()
}

// progress is what was begun and done in the running kernel. It is not waited for:
// what a power cut takes from it, it takes from the kernel too.
type progress struct {
	begun, done, undoing map[int]bool
	restored             map[string]bool // by step and object
	touched              map[string]bool // places to which somebody led another route meanwhile
	saved                map[int]Entry   // what was read right before the step
	over                 map[int][]mutate.Value
	left                 map[int][]mutate.Value // what they were when the undo came
	damaged              bool
}

type note struct {
	What   string         `json:"what"` // begin, done, undo, restored, touched, taken
	Step   int            `json:"step"`
	Object string         `json:"object,omitempty"`
	Entry  *Entry         `json:"entry,omitempty"`
	Over   []mutate.Value `json:"over,omitempty"`
}

func (t *transaction) note(n note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode progress: %w", err)
	}
	if err := t.dir.Append("progress", append(b, '\n'), false); err != nil {
		return fmt.Errorf("note progress: %w", err)
	}
	t.p.take(n)
	return nil
}

func (p *progress) take(n note) {
	switch n.What {
	case "begin":
		p.begun[n.Step] = true
		if n.Entry != nil {
			p.saved[n.Step] = *n.Entry
		}
	case "done":
		p.done[n.Step] = true
		if n.Entry != nil {
			p.saved[n.Step] = *n.Entry
		}
		p.over[n.Step] = n.Over
	case "undo":
		p.undoing[n.Step] = true
		if p.left[n.Step] == nil { // an undo that is repeated sees its own work
			p.left[n.Step] = n.Over
		}
	case "touched", "taken":
		p.touched[n.Object] = n.What == "touched"
	case "restored":
		p.restored[restoredKey(n.Step, n.Object)] = true
	}
}

func restoredKey(step int, object string) string { return fmt.Sprint(step) + " " + object }

func (t *transaction) readProgress() {
	t.p = progress{begun: map[int]bool{}, done: map[int]bool{}, undoing: map[int]bool{}, restored: map[string]bool{}, touched: map[string]bool{}, saved: map[int]Entry{}, over: map[int][]mutate.Value{}, left: map[int][]mutate.Value{}}
	b, _, err := t.dir.Read("progress", maxJournal)
	if err != nil {
		t.p.damaged = !errors.Is(err, unix.ENOENT)
		return
	}
	for line := range bytes.Lines(b) {
		var n note
		if json.Unmarshal(line, &n) != nil || n.Step < 0 || n.Step >= len(t.j.Entries) {
			// A line that was being written when the process died: its step was not begun.
			t.p.damaged = t.p.damaged || bytes.HasSuffix(line, []byte("\n"))
			continue
		}
		t.p.take(n)
	}
}

// openTransaction opens the one in flight; nil when there is none.
func openTransaction(d *store.Dir) (*transaction, error) {
	p, err := d.Sub(pendingDir)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := &transaction{dir: p}
	if t.j, err = readJournal(p); err != nil {
		p.Close()
		return nil, err
	}
	t.readProgress()
	return t, nil
}

func (t *transaction) close() {
	if t != nil {
		t.dir.Close()
	}
}
