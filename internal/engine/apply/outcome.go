package apply

import (
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/model/change"
)

// Pending is a transaction that waits for its confirmation.
type Pending struct {
	ID           string       `json:"id"`
	PlanID       string       `json:"planId"`
	IntentHash   string       `json:"intentHash"`
	Phase        string       `json:"phase"`
	Begun        time.Time    `json:"begun"`
	Deadline     time.Time    `json:"deadline"`
	Remaining    int64        `json:"remainingSeconds"`
	Armed        Arming       `json:"armed"`
	Who          Who          `json:"who"`
	Administered []change.Way `json:"administered,omitempty"`
	Proven       []string     `json:"proven,omitempty"` // families over which a new connection came
	Staged       []string     `json:"staged,omitempty"` // files that confirm puts in their places
	// Left are objects that a rollback leaves alone, since somebody else changed them.
	Left []string `json:"left,omitempty"`
}

// StaleError says that the host is no longer what the plan was made for.
type StaleError struct{ Objects []string }

// Error implements error.
func (e *StaleError) Error() string {
	return "the host has changed since the plan was made: " + strings.Join(e.Objects, "; ")
}

// RefusedError says why nothing was done, and the way out.
type RefusedError struct{ Why, Hint string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Why }

// RolledBackError says that something was begun and is undone.
type RolledBackError struct {
	Cause   error
	Outcome Outcome
}

// Error implements error.
func (e *RolledBackError) Error() string { return "rolled back: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *RolledBackError) Unwrap() error { return e.Cause }

// Outcome is how a transaction ended.
type Outcome struct {
	ID     string `json:"id"`
	Result string `json:"result"` // confirmed, restored, rolled-back, reverted-by-reboot
	Why    string `json:"why,omitempty"`
	// Conflicts are objects that somebody else changed meanwhile, and that were kept.
	Conflicts []string `json:"conflicts,omitempty"`
	// Lost are objects that the change destroyed and that only the kernel can make.
	Lost []string `json:"lost,omitempty"`
	// Ephemeral is what was kept and will be gone after the next boot.
	Ephemeral []string `json:"ephemeral,omitempty"`
	// Failed are objects that could not be set; the transaction stays open for them.
	Failed []string `json:"failed,omitempty"`
}
