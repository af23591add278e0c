package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// careful is what the standard decoder makes of a line.
func careful(line []byte) (question, error) {
	var q question
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	err := d.Decode(&q)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = fmt.Errorf("more on the line")
		}
	}
	return q, err
}

// FuzzFastQuestion: what the tight decoder takes, it reads as the careful one does.
func FuzzFastQuestion(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"family":"ipv6","hook":"input","iif":"eth0","saddr":"2001:db8::1","proto":"tcp","sport":40001,"dport":22,"ct":"new","exthdr":["hop"],"hoplimit":64}`,
		`{"id":"a b","tcpFlags":"syn,ack","mark":0}`, `{"exthdr":[]}`, `{"id":01}`, `{"sport":-0}`, `{}`, `{"id":1,"id":2}`, `{"id":1} x`, `{"exthdr":["hop",]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var fast question
		if !fastQuestion(line, &fast) {
			return
		}
		slow, err := careful(line)
		if err != nil {
			t.Fatalf("%q: the careful decoder refuses it: %v", line, err)
		}
		if !reflect.DeepEqual(fast, slow) {
			t.Fatalf("%q: %+v, carefully %+v", line, fast, slow)
		}
	})
}

// dropTelnet is a ruleset that drops port 23 and accepts the rest.
func dropTelnet() *spaces {
	t := &rs.Table{Family: rs.Inet, Name: "f"}
	c := &rs.Chain{Table: t, Name: "input", Base: &rs.Base{Type: "filter", Hook: rs.Input, Policy: rs.Accept}}
	r := &rs.Rule{Chain: c, Handle: 2, Exprs: []rs.Expr{
		rs.Meta{Key: 16}, rs.Cmp{Data: []byte{6}}, rs.Payload{Base: rs.TransportHeader, Offset: 2, Len: 2}, rs.Cmp{Data: []byte{0, 23}}, rs.Conclude{Verdict: rs.Drop},
	}}
	c.Rules, t.Chains = []*rs.Rule{r}, []*rs.Chain{c}
	return &spaces{only: reach.FromRuleset(&rs.Ruleset{Tables: []*rs.Table{t}}, reach.OrderOf("little"))}
}

func TestBatch(t *testing.T) {
	in := strings.Join([]string{
		`{"id":1,"family":"ipv6","hook":"input","saddr":"2001:db8::1","proto":"tcp","dport":23}`,
		`{"id":"two","family":"ipv4","hook":"input","saddr":"192.0.2.1","proto":"tcp","dport":22}`,
		`{"id":3,"family":"ipv6","hook":"input","saddr":"2001:db8::1","proto":"tcp"}`,
		`{"id":4,"family":"ipv6","hook":"sideways"}`,
		`not json`,
		`{"id":6,"family":"ipv6","hook":"input","colour":"red"}`,
		`{"id":"\u202e","family":"ipv6","hook":"input","proto":17}`,
	}, "\n")
	var out bytes.Buffer
	if err := answerBatch(&out, strings.NewReader(in), dropTelnet(), ""); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"id":1,"verdict":"drop"}`,
		`{"id":"two","verdict":"accept"}`,
		`{"id":3,"verdict":"unknown","may":["accept","drop"],"needs":["dport"]}`,
		`{"id":4,"error":`, `{"id":null,"error":`, `{"id":6,"error":`,
		`{"id":"\u202e","verdict":"accept"}`,
	}
	got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d answers: %s", len(got), out.String())
	}
	for i, w := range want {
		if !strings.HasPrefix(got[i], w) || !json.Valid([]byte(got[i])) {
			t.Errorf("line %d: %s, want %s", i+1, got[i], w)
		}
	}
}

// TestBatchKeepsOrder: workers finish in any order, answers do not.
func TestBatchKeepsOrder(t *testing.T) {
	var in, out bytes.Buffer
	const n = 5000
	for i := range n {
		fmt.Fprintf(&in, "{\"id\":%d,\"family\":\"ipv6\",\"hook\":\"input\",\"proto\":\"tcp\",\"dport\":%d}\n", i, i%100)
	}
	if err := answerBatch(&out, &in, dropTelnet(), ""); err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		word := "accept"
		if i%100 == 23 {
			word = "drop"
		}
		if want := fmt.Sprintf(`{"id":%d,"verdict":"%s"}`, i, word); line != want {
			t.Fatalf("line %d: %s, want %s", i, line, want)
		}
	}
}

func BenchmarkBatch(b *testing.B) {
	line := []byte(`{"id":1,"family":"ipv6","hook":"input","iif":"eth0","saddr":"2001:db8::1","daddr":"2001:db8::2","proto":"tcp","sport":40001,"dport":22,"ct":"new"}`)
	w := batcher{spaces: dropTelnet()}
	w.home = w.spaces.only
	out := make([]byte, 0, 256)
	for b.Loop() {
		out = w.line(out[:0], line)
	}
}
