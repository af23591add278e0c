package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// inputs are the files of a run, open and not yet interpreted.
type inputs map[string]*os.File

func (in inputs) open(flag, path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return &usageError{msg: "read " + flag, cause: err, hint: "check the path and its permissions"}
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		f.Close()
		return &usageError{msg: "read " + flag + " " + path + ": it is a directory", hint: "name a file"}
	}
	in[flag] = f
	return nil
}

func (in inputs) close() {
	for _, f := range in {
		f.Close()
	}
}

// maxVerifyInput bounds a file of results, in bytes.
const maxVerifyInput = 256 << 20

func (in inputs) read(flag string, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(in[flag], most+1))
	if err != nil {
		return nil, &usageError{msg: "read " + flag, cause: err, hint: "check the file"}
	}
	if int64(len(b)) > most {
		return nil, &usageError{msg: fmt.Sprintf("read %s: larger than %d bytes", flag, most), hint: "check that it is the right file"}
	}
	return b, nil
}

// previous reads the results of an earlier run, one by one: there may be a million.
func previous(r io.Reader) (expect.Before, error) {
	bounded := &io.LimitedReader{R: r, N: maxVerifyInput + 1}
	d := json.NewDecoder(bounded)
	out := expect.Before{}
	first, some := "", false
	one := func() error {
		var r expect.Result
		if err := d.Decode(&r); err != nil {
			return err
		}
		if !some {
			first, some = r.Via, true
		}
		w := expect.Word(r.State)
		switch {
		case r.Via != first:
			return errors.New("it was seen from several places, which may differ")
		case !slices.Contains([]string{"tcp", "udp", "icmp", "icmpv6"}, r.Proto):
			return fmt.Errorf("%q is no protocol of a result", r.Proto)
		case !r.Address.IsValid():
			return errors.New("a result has no address")
		case r.Port == 0 && (r.Proto == "tcp" || r.Proto == "udp"), r.Port > 255 && strings.HasPrefix(r.Proto, "icmp"):
			return fmt.Errorf("%s/%d is no port of a result", r.Proto, r.Port)
		case !slices.Contains(probe.States(), r.State):
			return fmt.Errorf("%q is no state", r.State)
		case r.Variant != probe.Plain, r.State == probe.Errored:
			return nil
		case r.MayBeOpen:
			w = expect.Silent
		}
		out[expect.Key{Addr: r.Address, Proto: r.Proto, Port: r.Port}] = w
		return nil
	}
	document := func() error {
		if t, err := d.Token(); err != nil || t != json.Delim('{') {
			return cmp.Or(err, errors.New("it is no object"))
		}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return err
			}
			switch name {
			case "schemaVersion":
				var v string
				if err := d.Decode(&v); err != nil {
					return err
				}
				if major, _, _ := strings.Cut(v, "."); major != "1" {
					return fmt.Errorf("schemaVersion is %q, and this sixfence reads 1.x", v)
				}
			case "results":
				if t, err := d.Token(); err != nil || t != json.Delim('[') {
					return cmp.Or(err, errors.New("its results are no list"))
				}
				for d.More() {
					if err := one(); err != nil {
						return err
					}
				}
				if _, err := d.Token(); err != nil {
					return err
				}
			default:
				var skip json.RawMessage
				if err := d.Decode(&skip); err != nil {
					return err
				}
			}
		}
		if _, err := d.Token(); err != nil {
			return err
		}
		if _, err := d.Token(); err != io.EOF {
			return errors.New("something follows the document")
		}
		return nil
	}
	switch err := document(); {
	case bounded.N <= 0:
		return nil, fmt.Errorf("it is larger than %d bytes", maxVerifyInput)
	case err != nil:
		return nil, fmt.Errorf("decode JSON, byte %d: %w", d.InputOffset(), err)
	case !some:
		return nil, errors.New("it has no results")
	}
	return out, nil
}
