package fact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// State tells the four things a fact can be.
type State uint8

// The states of a fact. The zero State is StateGap: a fact nobody collected is
// unknown, never a default value.
const (
	StateGap         State = iota // could not be read, or nobody tried
	StateValue                    // read, and here it is
	StateAbsent                   // the kernel (or the disk) says there is none
	StateUnsupported              // this kernel has no such key or subsystem
)

// String returns the word used in JSON.
func (s State) String() string {
	switch s {
	case StateValue:
		return "value"
	case StateAbsent:
		return "absent"
	case StateUnsupported:
		return "unsupported"
	default:
		return "gap"
	}
}

// Reason classifies a Gap. The set is closed: it is part of the machine interface.
type Reason string

// The reasons for a Gap.
const (
	Permission     Reason = "permission"    // the caller may not read it
	UnsupportedGap Reason = "unsupported"   // the kernel or this build cannot tell
	Truncated      Reason = "truncated"     // a budget of time, objects or bytes was reached
	NotCollected   Reason = "not-collected" // nobody asked, or the question cannot be asked here
	ParseGap       Reason = "parse"         // it was read, and not understood
)

// Gap says why a fact is unknown. What is a short noun phrase for people
// ("owner of socket inode 4711"), never attacker-controlled markup: renderers
// neutralise it like every other string.
type Gap struct {
	Reason Reason `json:"reason"`
	What   string `json:"what"`
}

// Error makes a Gap usable as an error inside collectors.
func (g Gap) Error() string { return fmt.Sprintf("%s: %s", g.What, g.Reason) }

// Known is a fact of type T: a value, absent, unsupported, or a Gap.
// The zero Known is the Gap "not-collected".
type Known[T any] struct {
	state State
	value T
	gap   Gap
}

// Value returns a fact that was read.
func Value[T any](v T) Known[T] { return Known[T]{state: StateValue, value: v} }

// Absent returns the fact that there is no such thing.
func Absent[T any]() Known[T] { return Known[T]{state: StateAbsent} }

// Unsupported returns the fact that this kernel has no such key.
func Unsupported[T any]() Known[T] { return Known[T]{state: StateUnsupported} }

// Missing returns a fact that is unknown because of g.
func Missing[T any](g Gap) Known[T] { return Known[T]{gap: g} }

// Get returns the value and whether there is one.
func (k Known[T]) Get() (T, bool) { return k.value, k.state == StateValue }

// Or returns the value, or def when there is none. Use it for display only: a
// control must look at State first.
func (k Known[T]) Or(def T) T {
	if k.state == StateValue {
		return k.value
	}
	return def
}

// State tells which of the four a fact is.
func (k Known[T]) State() State { return k.state }

// Gap returns why the fact is unknown; ok is false when it is not a Gap.
func (k Known[T]) Gap() (g Gap, ok bool) {
	if k.state != StateGap {
		return Gap{}, false
	}
	if k.gap.Reason == "" {
		return Gap{Reason: NotCollected, What: k.gap.What}, true
	}
	return k.gap, true
}

// IsZero lets `json:",omitzero"` leave never-collected facts out: a missing key
// decodes to the same Gap again.
func (k Known[T]) IsZero() bool { return k.state == StateGap && k.gap == (Gap{}) }

type knownJSON struct {
	State string          `json:"state,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
	Gap   *Gap            `json:"gap,omitempty"`
}

// MarshalJSON writes {"value":…}, {"state":"absent"}, {"state":"unsupported"}
// or {"gap":{"reason":…,"what":…}}.
func (k Known[T]) MarshalJSON() ([]byte, error) {
	switch k.state {
	case StateValue:
		v, err := json.Marshal(k.value)
		if err != nil {
			return nil, err
		}
		return json.Marshal(knownJSON{Value: v})
	case StateAbsent, StateUnsupported:
		return json.Marshal(knownJSON{State: k.state.String()})
	default:
		g, _ := k.Gap()
		return json.Marshal(knownJSON{Gap: &g})
	}
}

// UnmarshalJSON reads what MarshalJSON writes. An object it does not understand
// is a Gap, never a value.
func (k *Known[T]) UnmarshalJSON(b []byte) error {
	*k = Known[T]{}
	if bytes.Equal(bytes.TrimSpace(b), []byte("null")) {
		return nil
	}
	var j knownJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("decode fact: %w", err)
	}
	switch {
	case j.Value != nil:
		if bytes.Equal(bytes.TrimSpace(j.Value), []byte("null")) {
			switch reflect.TypeFor[T]().Kind() {
			case reflect.Slice, reflect.Map: // an empty one may encode to null
				k.state = StateValue
			default: // a number or a word that is not there is not zero
				k.gap = Gap{Reason: ParseGap, What: "a fact without its value"}
			}
			return nil
		}
		if err := json.Unmarshal(j.Value, &k.value); err != nil {
			return fmt.Errorf("decode fact value: %w", err)
		}
		k.state = StateValue
	case j.State == "absent":
		k.state = StateAbsent
	case j.State == "unsupported":
		k.state = StateUnsupported
	case j.Gap != nil:
		k.gap = *j.Gap
	case j.State != "":
		k.gap = Gap{Reason: ParseGap, What: "fact in state " + j.State}
	}
	return nil
}
