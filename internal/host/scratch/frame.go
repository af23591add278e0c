package scratch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kinds of frames between the program and its helper.
const (
	frameReady   = 'R' // the namespace waits
	frameSetup   = 'F' // it could not be set up: failure as JSON
	frameRequest = 'Q' // request as JSON
	frameText    = 'X' // text of a file, in the order of the request
	frameTable   = 't'
	frameChain   = 'c'
	frameRule    = 'r'
	frameSet     = 's'
	frameElement = 'e'
	frameObject  = 'o'
	frameEnd     = 'E' // end as JSON
)

// frameHeader is a kind and a length.
const frameHeader = 5

// writeFrame writes to a buffer whose Flush tells the error.
func writeFrame(w io.Writer, kind byte, b []byte) {
	h := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(b)))
	_, _ = w.Write(h)
	_, _ = w.Write(b)
}

var errFrame = errors.New("an answer that is too long")

// readFrame reads a frame of at most limit bytes. Memory grows with what comes, not
// with what a header promises.
func readFrame(r io.Reader, limit int) (byte, []byte, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	n := int64(binary.BigEndian.Uint32(h[1:]))
	if n > int64(limit) {
		return 0, nil, errFrame
	}
	if n <= 1<<16 {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return 0, nil, fmt.Errorf("read frame: %w", noEOF(err))
		}
		return h[0], b, nil
	}
	b, err := io.ReadAll(io.LimitReader(r, n))
	if err == nil && int64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	return h[0], b, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
