package mutate

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/model/change"
)

var tableFamilies = map[string]byte{"inet": unix.NFPROTO_INET, "ip": unix.NFPROTO_IPV4, "ip6": unix.NFPROTO_IPV6, "netdev": unix.NFPROTO_NETDEV, "bridge": unix.NFPROTO_BRIDGE, "arp": unix.NFPROTO_ARP}

// ourTable is the only name that a table of ours has, and that is ever written or deleted.
const ourTable = "sixfence"

func parseTable(target string) (family byte, name string, err error) {
	f, name, ok := strings.Cut(target, " ")
	family, known := tableFamilies[f]
	switch {
	case !ok || !known:
		return 0, "", fmt.Errorf("table %q: not a family and a name", target)
	case name != ourTable:
		return 0, "", fmt.Errorf("table %q: only tables of the name %s are ours to change", target, ourTable)
	}
	return family, name, nil
}

// tableState is the state of a table of the calling thread's namespace: a digest of
// all that the kernel says of it, without handles, counters and what packets leave
// in it.
func tableState(target string) (string, error) {
	family, name, err := parseTable(target)
	if err != nil {
		return "", err
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: 256 << 10})
	if err != nil {
		return "", fmt.Errorf("open nf_tables: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	d, err := dumpTable(c, family, name)
	if err != nil {
		return "", fmt.Errorf("read table %s: %w", target, err)
	}
	if d == nil {
		return Absent, nil
	}
	return "table " + d.digest(), nil
}

// tableDump are the messages of one table.
type tableDump struct {
	table, chains, rules, sets, elements, objects [][]byte
}

func nftRequest(get uint16, family byte, flags netlink.HeaderFlags, attrs ...netlink.Attribute) netlink.Message {
	b, _ := netlink.MarshalAttributes(attrs)
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | get), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, b...),
	}
}

func named(typ uint16, name string) netlink.Attribute {
	return netlink.Attribute{Type: typ, Data: append([]byte(name), 0)}
}

// askNFT repeats a dump that others' changes interrupt.
func askNFT(c *netlink.Conn, m netlink.Message) ([][]byte, error) {
	var err error
again:
	for try := range 100 {
		var ms []netlink.Message
		ms, err = c.Execute(m)
		if errors.Is(err, unix.EINTR) {
			time.Sleep(time.Duration(min(try, 20)) * time.Millisecond)
			continue
		}
		if err != nil {
			return nil, err
		}
		var out [][]byte
		for _, x := range ms {
			if x.Header.Flags&netlink.DumpInterrupted != 0 {
				err = unix.EINTR
				time.Sleep(time.Duration(min(try, 20)) * time.Millisecond)
				continue again
			}
			if len(x.Data) >= 4 {
				out = append(out, x.Data)
			}
		}
		return out, nil
	}
	return nil, err
}

func dumpTable(c *netlink.Conn, family byte, name string) (*tableDump, error) {
	d := &tableDump{}
	var err error
	d.table, err = askNFT(c, nftRequest(unix.NFT_MSG_GETTABLE, family, 0, named(unix.NFTA_TABLE_NAME, name)))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, p := range []struct {
		get, attr uint16
		to        *[][]byte
	}{
		{unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, &d.chains},
		{unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, &d.rules},
		{unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, &d.sets},
		{unix.NFT_MSG_GETOBJ, unix.NFTA_OBJ_TABLE, &d.objects},
	} {
		ms, err := askNFT(c, nftRequest(p.get, family, netlink.Dump, named(p.attr, name)))
		if err != nil {
			return nil, err
		}
		for _, m := range ms { // not every kernel filters
			if a := attributes(m[4:]); m[0] == family && text(a[p.attr]) == name {
				*p.to = append(*p.to, m)
			}
		}
	}
	for _, m := range d.sets {
		a := attributes(m[4:])
		if flags := a[unix.NFTA_SET_FLAGS]; len(flags) == 4 && binary.BigEndian.Uint32(flags)&(unix.NFT_SET_EVAL|unix.NFT_SET_TIMEOUT) != 0 {
			continue // packets fill it
		}
		ms, err := askNFT(c, nftRequest(unix.NFT_MSG_GETSETELEM, family, netlink.Dump, named(unix.NFTA_SET_ELEM_LIST_TABLE, name), named(unix.NFTA_SET_ELEM_LIST_SET, text(a[unix.NFTA_SET_NAME]))))
		if err != nil {
			return nil, err
		}
		d.elements = append(d.elements, ms...)
	}
	return d, nil
}

func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// attributes are those of a message, the last of a kind.
func attributes(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	each(b, func(t uint16, v []byte) { out[t] = v })
	return out
}

func each(b []byte, f func(typ uint16, v []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// keep writes the attributes of a message that are the ruleset's and not the
// moment's, in order of their number.
func keep(b []byte, types ...uint16) []byte {
	a := attributes(b)
	slices.Sort(types)
	var out []byte
	for _, t := range types {
		if v, ok := a[t]; ok {
			out = put(out, t, v)
		}
	}
	return out
}

func put(out []byte, t uint16, v []byte) []byte {
	out = binary.BigEndian.AppendUint16(out, t)
	out = binary.BigEndian.AppendUint32(out, uint32(len(v)))
	return append(out, v...)
}

// expressions writes a list of expressions without what they count.
func expressions(b []byte) []byte {
	var out []byte
	each(b, func(t uint16, v []byte) {
		if t != unix.NFTA_LIST_ELEM {
			out = put(out, t, v)
			return
		}
		a := attributes(v)
		name := text(a[unix.NFTA_EXPR_NAME])
		data := a[unix.NFTA_EXPR_DATA]
		switch name {
		case "counter", "last":
			data = nil
		case "quota":
			data = keep(data, unix.NFTA_QUOTA_BYTES, unix.NFTA_QUOTA_FLAGS)
		}
		out = put(put(out, 1, []byte(name)), 2, data)
	})
	return out
}

func (d *tableDump) digest() string {
	h := sha256.New()
	add := func(what string, b []byte) {
		_, _ = h.Write(put(put(nil, 0, []byte(what)), 0, b))
	}
	for _, m := range d.table {
		add("table", keep(m[4:], unix.NFTA_TABLE_NAME, unix.NFTA_TABLE_FLAGS))
	}
	sorted := func(what string, ms [][]byte, f func(b []byte) []byte) {
		var out [][]byte
		for _, m := range ms {
			out = append(out, f(m[4:]))
		}
		slices.SortFunc(out, bytes.Compare)
		for _, b := range out {
			add(what, b)
		}
	}
	sorted("chain", d.chains, func(b []byte) []byte {
		return keep(b, unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE, nftaChainFlags)
	})
	sorted("set", d.sets, func(b []byte) []byte {
		return keep(b, unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN,
			unix.NFTA_SET_POLICY, unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_GC_INTERVAL)
	})
	// Rules in their order, chain by chain.
	rules := slices.Clone(d.rules)
	slices.SortStableFunc(rules, func(a, b []byte) int {
		return cmp.Compare(text(attributes(a[4:])[unix.NFTA_RULE_CHAIN]), text(attributes(b[4:])[unix.NFTA_RULE_CHAIN]))
	})
	for _, m := range rules {
		a := attributes(m[4:])
		add("rule", a[unix.NFTA_RULE_CHAIN])
		add("expressions", expressions(a[unix.NFTA_RULE_EXPRESSIONS]))
		add("comment", a[unix.NFTA_RULE_USERDATA])
	}
	var elements [][]byte
	for _, m := range d.elements {
		a := attributes(m[4:])
		each(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, v []byte) {
			elements = append(elements, put(put(nil, 0, a[unix.NFTA_SET_ELEM_LIST_SET]), 0,
				keep(v, unix.NFTA_SET_ELEM_KEY, unix.NFTA_SET_ELEM_DATA, unix.NFTA_SET_ELEM_FLAGS, unix.NFTA_SET_ELEM_OBJREF, nftaSetElemKeyEnd)))
		})
	}
	slices.SortFunc(elements, bytes.Compare)
	for _, e := range elements {
		add("element", e)
	}
	sorted("object", d.objects, func(b []byte) []byte {
		types := []uint16{unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE}
		if t := attributes(b)[unix.NFTA_OBJ_TYPE]; len(t) == 4 && binary.BigEndian.Uint32(t) > 2 {
			types = append(types, unix.NFTA_OBJ_DATA) // not a counter, not a quota
		}
		return keep(b, types...)
	})
	return hex.EncodeToString(h.Sum(nil))
}

const (
	nftaChainFlags    = 10
	nftaSetElemKeyEnd = 10
)

// tableWant loads the text into a namespace that is thrown away, on this very kernel,
// and digests what it became. Text that the kernel refuses is refused here, before
// anything is changed.
func tableWant(target, script string) (string, error) {
	family, name, err := parseTable(target)
	if err != nil {
		return "", err
	}
	type answer struct {
		s   string
		err error
	}
	done := make(chan answer, 1)
	var work func()
	work = func() {
		runtime.LockOSThread() // never unlocked: the thread, and the namespace, end with the goroutine
		if unix.Gettid() == unix.Getpid() {
			inner := make(chan struct{})
			go func() { work(); close(inner) }()
			<-inner
			runtime.UnlockOSThread()
			return
		}
		s, err := func() (string, error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return "", fmt.Errorf("make scratch namespace: %w", err)
			}
			return loadAlone(family, name, target, script)
		}()
		done <- answer{s, err}
	}
	go work()
	a := <-done
	return a.s, a.err
}

// loadAlone loads the text beside a table of somebody else's. Text that makes, changes
// or deletes anything but our table is refused.
func loadAlone(family byte, name, target, script string) (string, error) {
	const stranger = "table ip somebody-else { chain c { }; }"
	if err := runNFT(target, stranger); err != nil {
		return "", err
	}
	before, err := tableNames(family, name)
	if err != nil {
		return "", err
	}
	if err := load(family, name, target, script); err != nil {
		return "", err
	}
	after, err := tableNames(family, name)
	if err != nil {
		return "", err
	}
	if !slices.Equal(before, after) {
		return "", fmt.Errorf("load table %s: its text touches other tables", target)
	}
	return tableState(target)
}

// tableNames lists the tables of the calling thread's namespace but one, each with a
// digest.
func tableNames(family byte, but string) ([]string, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	ms, err := askNFT(c, nftRequest(unix.NFT_MSG_GETTABLE, unix.NFPROTO_UNSPEC, netlink.Dump))
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	var out []string
	for _, m := range ms {
		n := text(attributes(m[4:])[unix.NFTA_TABLE_NAME])
		if m[0] == family && n == but {
			continue
		}
		d, err := dumpTable(c, m[0], n)
		if err != nil || d == nil {
			return nil, fmt.Errorf("read table %s: %w", n, err)
		}
		out = append(out, fmt.Sprintf("%d %s %s", m[0], n, d.digest()))
	}
	slices.Sort(out)
	return out, nil
}

// NFTPath is where nft is; empty when it is not installed.
func NFTPath() string {
	for _, p := range []string{"/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"} {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// load replaces the table by the text in one transaction: every packet sees the old
// table or the new one, and a text that is refused leaves the old one.
func load(_ byte, _, target, script string) error {
	return runNFT(target, fmt.Sprintf("table %s\ndelete table %s\n%s\n", target, target, script))
}

func runNFT(target, in string) error {
	if _, err := nft(in, "-f", "-"); err != nil {
		return fmt.Errorf("load table %s: %w", target, err)
	}
	return nil
}

// TableText is a table of ours as nft(8) lists it, in the calling thread's namespace.
func (h *Host) TableText(target string) (string, error) {
	if _, _, err := parseTable(target); err != nil {
		return "", err
	}
	family, name, _ := strings.Cut(target, " ")
	out, err := nft("", "-nn", "list", "table", family, name)
	if err != nil {
		return "", fmt.Errorf("list table %s: %w", target, err)
	}
	return string(out), nil
}

func nft(in string, args ...string) ([]byte, error) {
	path := NFTPath()
	if path == "" {
		return nil, errors.New("nft is not installed")
	}
	r, err := run.Run(context.Background(), run.Program{Path: path, Args: args, Stdin: []byte(in), Timeout: 30 * time.Second})
	if err != nil {
		return nil, err
	}
	if r.Exit != 0 {
		return nil, errors.New(strings.TrimSpace(string(r.Stderr)))
	}
	return r.Stdout, nil
}

func tableSet(target string, i change.Image) error {
	family, name, err := parseTable(target)
	if err != nil {
		return err
	}
	if !i.Absent {
		return load(family, name, target, i.Text)
	}
	// Without nft: whoever takes our table away may have lost the program meanwhile.
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	batch := func(typ uint16) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request}, Data: []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}
	}
	_, err = c.SendMessages([]netlink.Message{
		batch(unix.NFNL_MSG_BATCH_BEGIN),
		nftRequest(unix.NFT_MSG_DELTABLE, family, netlink.Acknowledge, named(unix.NFTA_TABLE_NAME, name)),
		batch(unix.NFNL_MSG_BATCH_END),
	})
	if err == nil {
		_, err = c.Receive()
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete table %s: %w", target, err)
	}
	return nil
}
