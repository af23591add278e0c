package scratch

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// What `nft -j list ruleset` prints is less than what it read. Statements that it
// cannot say (matches and targets of iptables-nft above all: {"xt": …}) would vanish, and
// a rule without its match accepts more. Such a statement is loaded as a counter with
// a number that nobody counts to, and the messages that come back are changed: the
// counter becomes an expression with a name that no decoder knows, at its very place.
const (
	lostPackets = 0x7369_7866_6c6f_7374 // "sixflost"
	lostName    = "unknown"             // as long as "counter"
)

// statements are those that nft reads as it prints them.
var statements = []string{
	"accept", "drop", "continue", "return", "jump", "goto", "match", "counter", "quota", "limit", "last", "mangle", "flow", "fwd", "notrack", "dup",
	"snat", "dnat", "masquerade", "redirect", "reject", "set", "map", "log", "ct helper", "ct timeout", "ct expectation", "ct count", "meter",
	"queue", "vmap", "synproxy", "tproxy", "secmark",
}

// order is in which order objects are loaded: nft prints verdict maps before the
// chains that they name, and does not read that itself.
var order = []string{"metainfo", "table", "chain", "flowtable", "counter", "quota", "limit", "secmark", "synproxy", "ct helper", "ct timeout", "ct expectation", "set", "map", "element", "rule"}

// item is one object of the list.
type item struct {
	kind string
	raw  json.RawMessage
}

// jsonRules reads the output of `nft -j list ruleset`, and says what its rules lost.
func jsonRules(text []byte) (items []item, lost []string, err error) {
	var doc struct {
		List []map[string]json.RawMessage `json:"nftables"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&doc); err != nil {
		return nil, nil, fmt.Errorf("broken JSON: %w", err)
	}
	if d.More() {
		return nil, nil, errors.New("more than one JSON document")
	}
	for i, m := range doc.List {
		if len(m) != 1 {
			return nil, nil, fmt.Errorf("object %d of the list has %d keys, and each has one", i, len(m))
		}
		for kind, raw := range m {
			if !slices.Contains(order, kind) {
				return nil, nil, fmt.Errorf("object %d of the list is a %q, which nft -j list ruleset does not print", i, kind)
			}
			if why := unsaid(kind, raw); why != "" {
				return nil, nil, fmt.Errorf("object %d of the list, %s: %s", i, trimmed(raw, 200), why)
			}
			if kind == "rule" {
				if raw, err = markLost(raw, &lost); err != nil {
					return nil, nil, fmt.Errorf("object %d of the list: %w", i, err)
				}
			}
			items = append(items, item{kind, raw})
		}
	}
	slices.SortStableFunc(items, func(a, b item) int { return slices.Index(order, a.kind) - slices.Index(order, b.kind) })
	return items, lost, nil
}

// unsaid tells what an object should say and does not: nft 1.0.6 leaves the devices of
// chains out, and prints the flags of tables as something else.
func unsaid(kind string, raw json.RawMessage) string {
	var x struct {
		Hook  string          `json:"hook"`
		Dev   json.RawMessage `json:"dev"`
		Flags json.RawMessage `json:"flags"`
	}
	switch {
	case kind != "table" && kind != "chain":
	case json.Unmarshal(raw, &x) != nil:
		return "it is not understood"
	case kind == "table" && len(x.Flags) > 0:
		return "nft does not read the flags of a table (is it dormant?) back from JSON"
	case (x.Hook == "ingress" || x.Hook == "egress") && len(x.Dev) == 0:
		return "nft did not print the devices of the chain"
	}
	return ""
}

// document is items as nft reads them.
func document(items []item) []byte {
	var b bytes.Buffer
	b.WriteString(`{"nftables":[`)
	for i, x := range items {
		if i > 0 {
			b.WriteString(",\n")
		}
		fmt.Fprintf(&b, "{%q:%s}", x.kind, x.raw)
	}
	b.WriteString("]}\n")
	return b.Bytes()
}

// markLost puts a mark in the place of statements that nft cannot read back.
func markLost(rule json.RawMessage, lost *[]string) (json.RawMessage, error) {
	var r map[string]json.RawMessage
	if err := json.Unmarshal(rule, &r); err != nil {
		return nil, fmt.Errorf("read rule: %w", err)
	}
	var exprs []json.RawMessage
	if err := json.Unmarshal(r["expr"], &exprs); err != nil {
		return nil, fmt.Errorf("read rule: %w", err)
	}
	changed := false
	for i, e := range exprs {
		var s map[string]json.RawMessage
		known := json.Unmarshal(e, &s) == nil && len(s) == 1
		for k := range maps.Keys(s) {
			known = known && slices.Contains(statements, k)
		}
		if known {
			continue
		}
		changed = true
		exprs[i] = fmt.Appendf(nil, `{"counter":{"packets":%d,"bytes":%d}}`, uint64(lostPackets), len(*lost))
		*lost = append(*lost, trimmed(e, 120))
	}
	if !changed {
		return rule, nil
	}
	var err error
	if r["expr"], err = json.Marshal(exprs); err == nil {
		rule, err = json.Marshal(r)
	}
	if err != nil {
		return nil, fmt.Errorf("write rule: %w", err)
	}
	return rule, nil
}

// markOpaque turns the marks into expressions that nobody knows.
func markOpaque(n *fact.NFTables) {
	mark := binary.BigEndian.AppendUint64(nil, lostPackets)
	name := append([]byte("counter"), 0)
	for _, m := range n.Rules {
		if !bytes.Contains(m, mark) || len(m) < 4 {
			continue
		}
		each(m[4:], unix.NFTA_RULE_EXPRESSIONS, func(list []byte) {
			each(list, unix.NFTA_LIST_ELEM, func(expr []byte) {
				each(expr, unix.NFTA_EXPR_NAME, func(b []byte) {
					if bytes.Equal(b, name) && bytes.Contains(expr, mark) {
						copy(b, lostName)
					}
				})
			})
		})
	}
}

// each calls f for every attribute of one type.
func each(b []byte, typ uint16, f func([]byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == typ {
			f(b[4:n])
		}
		b = b[min((n+3)&^3, len(b)):]
	}
}
