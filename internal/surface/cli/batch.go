package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"unicode/utf8"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/surface/report"
)

const (
	maxLine   = 64 << 10 // bytes of one packet
	chunkSize = 256      // lines handed to a worker at once
)

// chunk is some lines of a batch and, later, their answers.
type chunk struct {
	lines []byte // joined, each with its newline
	at    []int  // the number of each line in the file
	long  bool   // the next line was too long
	out   chan []byte
}

// answerBatch answers one packet a line, in order.
func answerBatch(w io.Writer, in io.Reader, sp *spaces, netns string) error {
	home, err := sp.get(netns)
	if err != nil {
		return err
	}
	n := runtime.GOMAXPROCS(0)
	todo, order := make(chan *chunk, n), make(chan *chunk, 4*n)
	for range n {
		go func() {
			var b batcher
			b.spaces, b.home = sp, home
			for c := range todo {
				c.out <- b.answer(c)
			}
		}()
	}
	readErr := make(chan error, 1)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(order)
		defer close(todo)
		readErr <- readChunks(in, func(c *chunk) bool {
			select {
			case order <- c:
			case <-stop:
				return false
			}
			select {
			case todo <- c:
			case <-stop:
				return false
			}
			return true
		})
	}()
	b := bufio.NewWriterSize(w, 1<<16)
	for c := range order {
		if _, err := b.Write(<-c.out); err != nil {
			return fmt.Errorf("write answers: %w", err)
		}
	}
	if err := <-readErr; err != nil {
		return &usageError{msg: "read batch", cause: err, hint: "one JSON object a line"}
	}
	return b.Flush()
}

// readChunks cuts the input into chunks of whole lines.
func readChunks(in io.Reader, put func(*chunk) bool) error {
	r := bufio.NewReaderSize(in, maxLine)
	c, n, at := &chunk{out: make(chan []byte, 1)}, 0, 0
	flush := func() bool {
		if n == 0 {
			return true
		}
		done := c
		c, n = &chunk{out: make(chan []byte, 1)}, 0
		return put(done)
	}
	for {
		line, err := r.ReadSlice('\n')
		at++
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
			c.long, n = true, n+1
			c.at = append(c.at, at)
			if !flush() {
				return nil
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case len(bytes.TrimSpace(line)) > 0:
			c.at = append(c.at, at)
			c.lines = append(append(c.lines, bytes.TrimRight(line, "\r\n")...), '\n')
			if n++; n == chunkSize && !flush() {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			flush()
			return nil
		}
		// Somebody who types wants the answer at once.
		if r.Buffered() == 0 && !flush() {
			return nil
		}
	}
}

// batcher answers lines; each worker has one.
type batcher struct {
	spaces *spaces
	home   *reach.Space
	q      question
	at     int // number of the line
}

func (b *batcher) answer(c *chunk) []byte {
	out := make([]byte, 0, 64*chunkSize)
	i := 0
	for line := range bytes.Lines(c.lines) {
		b.at = c.at[i]
		out = b.line(out, bytes.TrimRight(line, "\n"))
		i++
	}
	if c.long {
		b.at = c.at[i]
		out = b.wrong(out, nil, fmt.Errorf("it has more than %d bytes", maxLine))
	}
	return out
}

// wrong answers a line that is no question: with its number in the file, and what is
// wrong with it.
func (b *batcher) wrong(out []byte, id json.RawMessage, err error) []byte {
	return appendError(out, id, fmt.Errorf("line %d: %w", b.at, err))
}

func (b *batcher) line(out, line []byte) []byte {
	b.q = question{}
	if !fastQuestion(line, &b.q) {
		b.q = question{}
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		err := d.Decode(&b.q)
		if err == nil {
			if _, more := d.Token(); !errors.Is(more, io.EOF) {
				err = fmt.Errorf("more than one value on a line")
			}
		}
		if err != nil {
			return b.wrong(out, b.id(line), err)
		}
	}
	p, h, err := b.q.packet()
	if err != nil {
		return b.wrong(out, b.q.ID, err)
	}
	sp := b.home
	if b.q.NetNS != "" {
		if sp, err = b.spaces.get(b.q.NetNS); err != nil {
			return b.wrong(out, b.q.ID, err)
		}
	}
	t := sp.Verdict(p, h, b.q.OnlyHook)
	out = append(out, '{')
	if b.q.ID != nil {
		out = append(appendID(append(out, `"id":`...), b.q.ID), ',')
	}
	out = append(append(append(out, `"verdict":"`...), t.Verdict...), '"')
	if t.Limited {
		out = append(out, `,"limited":true`...)
	}
	if t.Verdict == reach.WordUnknown {
		out = appendWords(append(out, `,"may":`...), t.May)
		out = appendWords(append(out, `,"needs":`...), t.Needs)
		if len(t.Unclear) > 0 {
			out = appendWords(append(out, `,"unclear":`...), t.Unclear)
		}
	}
	return append(out, "}\n"...)
}

// id finds the id of a line that is wrong otherwise.
func (b *batcher) id(line []byte) json.RawMessage {
	var v struct {
		ID json.RawMessage `json:"id"`
	}
	if json.Unmarshal(line, &v) != nil {
		return nil
	}
	return v.ID
}

func appendWords(out []byte, list []string) []byte {
	out = append(out, '[')
	for i, s := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendText(out, s)
	}
	return append(out, ']')
}

func appendText(out []byte, s string) []byte {
	j, err := json.Marshal(report.Clean(s))
	if err != nil {
		return append(out, `""`...)
	}
	return append(out, j...)
}

func appendError(out []byte, id json.RawMessage, err error) []byte {
	out = append(out, `{"id":`...)
	if id == nil {
		out = append(out, "null"...)
	} else {
		out = appendID(out, id)
	}
	out = append(out, `,"error":`...)
	return append(appendText(out, err.Error()), "}\n"...)
}

// appendID echoes an id as the same JSON value in ASCII: a terminal must not obey it.
func appendID(out []byte, id json.RawMessage) []byte {
	for i := 0; i < len(id); {
		r, n := utf8.DecodeRune(id[i:])
		switch {
		case r < 0x20:
			// white space between the parts of a value
		case r < 0x7f:
			out = append(out, byte(r))
		case r < 0x10000:
			out = append(out, fmt.Sprintf(`\u%04x`, r)...)
		default:
			r -= 0x10000
			out = append(out, fmt.Sprintf(`\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)...)
		}
		i += n
	}
	return out
}

// fastQuestion reads the flat objects that a batch is made of: strings without
// escapes, integers, booleans, lists of such strings, every key once. Whatever else
// there is, the careful decoder decides; false asks it.
func fastQuestion(b []byte, q *question) bool {
	i := 0
	space := func() {
		for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r') {
			i++
		}
	}
	text := func() (string, bool) {
		if i >= len(b) || b[i] != '"' {
			return "", false
		}
		for j := i + 1; j < len(b); j++ {
			switch c := b[j]; {
			case c == '"':
				s := string(b[i+1 : j])
				i = j + 1
				return s, true
			case c == '\\' || c < 0x20 || c > 0x7e:
				return "", false
			}
		}
		return "", false
	}
	integer := func() (*int64, bool) {
		j := i
		for j < len(b) && (b[j] >= '0' && b[j] <= '9' || b[j] == '-' && j == i) {
			j++
		}
		if j == i || j-i > 1 && b[i] == '0' {
			return nil, false
		}
		n, err := strconv.ParseInt(string(b[i:j]), 10, 64)
		if err != nil {
			return nil, false
		}
		i = j
		return &n, true
	}
	list := func() (words, bool) {
		if i < len(b) && b[i] == '"' {
			s, ok := text()
			return splitWords(s), ok
		}
		if i >= len(b) || b[i] != '[' {
			return nil, false
		}
		i++
		out := words{}
		for {
			space()
			if i < len(b) && b[i] == ']' && len(out) == 0 {
				i++
				return out, true
			}
			s, ok := text()
			if !ok {
				return nil, false
			}
			out = append(out, s)
			space()
			if i >= len(b) {
				return nil, false
			}
			i++
			switch b[i-1] {
			case ']':
				return out, true
			case ',':
			default:
				return nil, false
			}
		}
	}
	space()
	if i >= len(b) || b[i] != '{' {
		return false
	}
	i++
	var seen uint32
	for {
		space()
		key, ok := text()
		if !ok {
			return false
		}
		space()
		if i >= len(b) || b[i] != ':' {
			return false
		}
		i++
		space()
		bit := -1
		str := func(n int, to *string) { bit = n; *to, ok = text() }
		num := func(n int, to **int64) { bit = n; *to, ok = integer() }
		switch key {
		case "id":
			bit = 0
			start := i
			if i < len(b) && b[i] == '"' {
				_, ok = text()
			} else {
				_, ok = integer()
			}
			if ok {
				q.ID = json.RawMessage(b[start:i])
			}
		case "family":
			str(1, &q.Family)
		case "hook":
			str(2, &q.Hook)
		case "iif":
			str(3, &q.IIF)
		case "oif":
			str(4, &q.OIF)
		case "saddr":
			str(5, &q.Saddr)
		case "daddr":
			str(6, &q.Daddr)
		case "proto":
			var s string
			if str(7, &s); !ok {
				return false
			}
			q.Proto = wordOrNumber(s)
		case "sport":
			num(8, &q.Sport)
		case "dport":
			num(9, &q.Dport)
		case "icmpType":
			num(10, &q.ICMPType)
		case "icmpCode":
			num(11, &q.ICMPCode)
		case "ct":
			str(12, &q.Ct)
		case "tcpFlags":
			bit = 13
			q.TCPFlags, ok = list()
		case "exthdr":
			bit = 14
			q.Exthdr, ok = list()
		case "hoplimit":
			num(15, &q.HopLimit)
		case "etherSaddr":
			str(16, &q.EtherSaddr)
		case "mark":
			num(17, &q.Mark)
		case "uid":
			num(18, &q.UID)
		case "netns":
			str(19, &q.NetNS)
		}
		if bit < 0 || !ok || seen>>bit&1 != 0 {
			return false
		}
		seen |= 1 << bit
		space()
		if i >= len(b) {
			return false
		}
		i++
		switch b[i-1] {
		case '}':
			space()
			return i == len(b)
		case ',':
		default:
			return false
		}
	}
}
