package oracle

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
)

// Recorder writes cases to a file, so that a changed model can be compared with
// the kernel's verdicts without asking it again.
type Recorder struct {
	f *os.File
	w *bufio.Writer
	e *gob.Encoder
}

// NewRecorder makes the file.
func NewRecorder(name string) (*Recorder, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("record cases: %w", err)
	}
	w := bufio.NewWriter(f)
	return &Recorder{f, w, gob.NewEncoder(w)}, nil
}

// Add appends a case.
func (r *Recorder) Add(c *Case) error { return r.e.Encode(c) }

// Close ends the file.
func (r *Recorder) Close() error { return errors.Join(r.w.Flush(), r.f.Close()) }

// ReadCases calls f with every case of a file until it returns false.
func ReadCases(name string, f func(*Case) bool) error {
	in, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read cases: %w", err)
	}
	defer in.Close()
	d := gob.NewDecoder(bufio.NewReader(in))
	for {
		var c Case
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read cases: %w", err)
		}
		if !f(&c) {
			return nil
		}
	}
}
