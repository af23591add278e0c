package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// Origin is a line of a configuration file.
type Origin struct {
	File string `json:"file"`
	Line int    `json:"line"`
}

// String is the form of error messages: file:line.
func (o Origin) String() string { return o.File + ":" + strconv.Itoa(o.Line) }

// decoder fills a Go value from a tree and says everything that does not fit.
type decoder struct {
	origins map[string]*node // by path; nil: not wanted
}

// join appends a key to a path: interfaces.eth0.routers[0].
func join(path, key string) string {
	if strings.ContainsAny(key, ".[]") {
		return path + "[" + key + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// at is a path for a message.
func at(path string) string { return cmp.Or(path, "the file") }

// into decodes n into v. rule names the field that v is, as Type.Field.
func (d *decoder) into(n *node, v reflect.Value, path, rule string) {
	if d.origins != nil && path != "" {
		d.origins[path] = n
	}
	t := v.Type()
	if n.kind == nullKind {
		n.file.fail(n.line, "give it a value, or take the key out", "%s has no value", at(path))
		return
	}
	switch t {
	case reflect.TypeFor[intent.Tunnels]():
		d.tunnels(n, v, path)
		return
	case reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.Prefix]():
		s, ok := d.text(n, path)
		if !ok {
			return
		}
		d.address(n, v, path, s)
		d.check(n, path, rule, fmt.Sprint(v.Interface()))
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path, rule)
	case reflect.Slice:
		d.list(n, v, path, rule)
	case reflect.Pointer:
		p := reflect.New(t.Elem())
		d.into(n, p.Elem(), path, rule)
		v.Set(p)
	case reflect.String:
		s, ok := d.text(n, path)
		if !ok {
			return
		}
		if s, ok = d.check(n, path, rule, s); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if n.kind != scalarKind || n.word != "true or false" {
			n.file.fail(n.line, "write true or false, without quotes", "%s is %s, not true or false", at(path), n.what())
			return
		}
		v.SetBool(n.text == "true")
	case reflect.Uint32:
		u, err := strconv.ParseUint(n.text, 10, 32)
		if n.kind != scalarKind || n.word != "a number" || err != nil {
			n.file.fail(n.line, "write a whole number without quotes, 0 or more", "%s is %s, not a whole number", at(path), described(n))
			return
		}
		if _, ok := d.check(n, path, rule, strconv.FormatUint(u, 10)); ok {
			v.SetUint(u)
		}
	default:
		n.file.fail(n.line, "", "%s cannot be read into %s", at(path), t)
	}
}

func described(n *node) string {
	if n.kind == scalarKind {
		return strconv.Quote(n.text)
	}
	return n.what()
}

// item is the path of an item of a list, not of a key that has to stand in brackets.
var item = regexp.MustCompile(`\[[0-9]+\]$`)

// text wants a scalar that was meant as text.
func (d *decoder) text(n *node, path string) (string, bool) {
	switch {
	case n.kind == mapKind && len(n.fields) == 1:
		n.file.fail(n.line, "put the text in quotes: YAML takes what holds a colon for a mapping", "%s is a mapping, not text", at(path))
		return "", false
	case n.kind != scalarKind:
		n.file.fail(n.line, "write one value, not "+n.what(), "%s is %s, not text", at(path), n.what())
		return "", false
	case n.word != "text":
		if item.MatchString(path) && n.word == "a number" {
			return n.text, true // an item: its own check says more than "put it in quotes"
		}
		n.file.fail(n.line, fmt.Sprintf("put it in quotes: %q", n.text), "%s is %s, not text", at(path), n.word)
		return "", false
	}
	return n.text, true
}

// check holds a text against the rule of its field and returns it in normal form.
func (d *decoder) check(n *node, path, rule, s string) (string, bool) {
	r, ok := rules[rule]
	if !ok {
		return s, true
	}
	if r.words != nil && !slices.Contains(r.words, s) {
		if w, ok := r.also[s]; ok {
			return w, true
		}
		hint := "one of: " + strings.Join(r.words, ", ")
		if h, ok := r.hints[s]; ok {
			hint = h
		} else if near := Nearest(s, r.words); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "? " + hint
		}
		n.file.fail(n.line, hint, "%s is %q, which is not a word for it", at(path), s)
		return "", false
	}
	if r.check == nil {
		return s, true
	}
	norm, why, hint := r.check(s)
	if why != "" {
		n.file.fail(n.line, hint, "%s: %s", at(path), why)
		return "", false
	}
	return norm, true
}

// keysOf are the keys of a struct type in order, with the Go field of each.
func keysOf(t reflect.Type) (keys []string, fields map[string]reflect.StructField) {
	fields = map[string]reflect.StructField{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		keys = append(keys, name)
		fields[name] = f
	}
	return keys, fields
}

func (d *decoder) structure(n *node, v reflect.Value, path string) {
	t := v.Type()
	keys, fields := keysOf(t)
	if n.kind != mapKind {
		n.file.fail(n.line, "write key: value lines below it; the keys are "+strings.Join(keys, ", "), "%s is %s, not a mapping", at(path), n.what())
		return
	}
	for i := range n.fields {
		f := &n.fields[i]
		sf, ok := fields[f.key]
		if !ok {
			f.file.fail(f.line, unknownKey(t, f.key, keys), "unknown key %q in %s", f.key, at(path))
			continue
		}
		d.into(f.value, v.FieldByIndex(sf.Index), join(path, f.key), t.Name()+"."+sf.Name)
	}
	for _, k := range required[t.Name()] {
		if n.get(k) == nil {
			n.file.fail(n.line, missing[t.Name()+"."+k], "%s: %s is missing", at(path), k)
		}
	}
}

// unknownKey is what to write instead of a key that has no meaning where it stands.
func unknownKey(t reflect.Type, key string, keys []string) string {
	if h, ok := wrongKeys[t.Name()+"."+key]; ok {
		return h
	}
	all := "the keys are " + strings.Join(keys, ", ")
	if where := keyBelongs(reflect.TypeFor[intent.Intent](), "", key, 0); where != "" {
		return key + " belongs to " + where + "; here " + all
	}
	if near := Nearest(strings.ToLower(key), lower(keys)); len(near) > 0 {
		return "did you mean " + keys[slices.Index(lower(keys), near[0])] + "?"
	}
	return all
}

func lower(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = strings.ToLower(s)
	}
	return out
}

// keyBelongs finds the first place in the intent that has such a key.
func keyBelongs(t reflect.Type, path, key string, depth int) string {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || depth > 5 || t.PkgPath() == "net/netip" {
		return ""
	}
	keys, fields := keysOf(t)
	if _, ok := fields[key]; ok {
		if path == "" {
			return "the top level"
		}
		return path + ":"
	}
	for _, k := range keys {
		if at := keyBelongs(fields[k].Type, join(path, k), key, depth+1); at != "" {
			return at
		}
	}
	return ""
}

func (d *decoder) mapping(n *node, v reflect.Value, path, rule string) {
	if n.kind != mapKind {
		n.file.fail(n.line, "write name: value lines below it", "%s is %s, not a mapping", at(path), n.what())
		return
	}
	out := reflect.MakeMap(v.Type())
	for i := range n.fields {
		f := &n.fields[i]
		key := f.key
		if r := rules[rule+".key"]; r.check != nil {
			norm, why, hint := r.check(key)
			if why != "" {
				f.file.fail(f.line, hint, "%s: %s", at(path), why)
				continue
			}
			key = norm
		}
		if out.MapIndex(reflect.ValueOf(key)).IsValid() {
			f.file.fail(f.line, "keep one of them", "%s: %s is there twice, written differently", at(path), key)
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if v.Type().Elem().Kind() == reflect.String && f.value.kind == scalarKind && f.value.word == "a number" && strings.Trim(f.value.text, "-0123456789") == "" {
			f.value.word = "text" // the value of a sysctl
		}
		d.into(f.value, e, join(path, key), rule)
		out.SetMapIndex(reflect.ValueOf(key), e)
	}
	v.Set(out)
}

func (d *decoder) list(n *node, v reflect.Value, path, rule string) {
	if n.kind != listKind {
		hint := "write a list: [a, b], or one “- ” line for each item"
		if n.kind == scalarKind {
			hint = "write a list: [" + n.text + "]"
		}
		n.file.fail(n.line, hint, "%s is %s, not a list", at(path), n.what())
		return
	}
	if h := notEmpty[rule]; h != "" && len(n.items) == 0 {
		n.file.fail(n.line, h, "%s is an empty list", at(path))
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, len(n.items))
	seen := map[string]int{}
	for i, item := range n.items {
		e := reflect.New(v.Type().Elem()).Elem()
		d.into(item, e, itemPath(path, item, i), rule)
		if e.Kind() != reflect.Struct || e.Type() == reflect.TypeFor[netip.Prefix]() {
			s := fmt.Sprint(e.Interface())
			if first, twice := seen[s]; twice && item.kind == scalarKind && s != "" && s != "invalid Prefix" {
				item.file.fail(item.line, "keep one of them", "%s has %s twice (items %d and %d)", at(path), s, first+1, i+1)
			}
			seen[s] = i
		}
		out = reflect.Append(out, e)
	}
	v.Set(out)
}

// itemPath names an item by its name where it has one, else by its position.
func itemPath(path string, n *node, i int) string {
	if n.kind == mapKind {
		if name := n.get("name"); name != nil && name.kind == scalarKind && name.text != "" {
			return join(path, name.text)
		}
	}
	return path + "[" + strconv.Itoa(i) + "]"
}

// tunnels reads deny, allow, or a list.
func (d *decoder) tunnels(n *node, v reflect.Value, path string) {
	var t intent.Tunnels
	switch {
	case n.kind == listKind:
		t.Policy = intent.TunnelsList
		d.list(n, reflect.ValueOf(&t.List).Elem(), path, "Tunnels.List")
	case n.kind == scalarKind:
		t.Policy, _ = d.check(n, path, "Tunnels.Policy", n.text)
	default:
		n.file.fail(n.line, "write tunnels: deny, or a list: [{mechanism: wireguard, peer: \"192.0.2.1\"}]", "%s is %s, not deny or a list", at(path), n.what())
	}
	v.Set(reflect.ValueOf(t))
}

// address reads an address or a prefix.
func (d *decoder) address(n *node, v reflect.Value, path, s string) {
	fail := func(hint, why string, a ...any) {
		n.file.fail(n.line, hint, "%s: "+why, append([]any{at(path)}, a...)...)
	}
	example := "2001:db8::/32 or 192.0.2.0/24"
	if v.Type() == reflect.TypeFor[netip.Addr]() {
		example = "fe80::1"
	}
	host, bits, isPrefix := strings.Cut(s, "/")
	if _, zone, ok := strings.Cut(host, "%"); ok {
		fail("leave the zone %"+zone+" out: the interface is said by the entry it stands in", "%q has a zone", s)
		return
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil && isPrefix && strings.Count(host, ".") > 0 && strings.Count(host, ".") < 3 && strings.Trim(host, "0123456789.") == "":
		fail("write all four numbers: 10.0.0.0/8", "%q is no prefix", s)
		return
	case err != nil && (s == "any" || s == "all" || s == "*" || s == "anywhere"):
		fail("leave the key out to mean any; or write both: [\"0.0.0.0/0\", \"::/0\"]", "%q is no prefix", s)
		return
	case err != nil:
		fail("addresses are written as "+example+"; a name is not looked up", "%q is no address", s)
		return
	case a.Is4In6():
		fail("write the IPv4 address itself: "+a.Unmap().String(), "%q is an IPv4-mapped address, which no packet should carry", s)
		return
	}
	if v.Type() == reflect.TypeFor[netip.Addr]() {
		if isPrefix {
			fail("write the address without /"+bits+": "+host, "%q is a prefix, not an address", s)
			return
		}
		v.Set(reflect.ValueOf(a))
		return
	}
	p := netip.PrefixFrom(a, a.BitLen())
	if isPrefix {
		n, err := strconv.Atoi(bits)
		switch {
		case err != nil && strings.Count(bits, ".") == 3:
			fail("write the length instead of the mask: 192.0.2.0/24", "%q has a mask", s)
			return
		case err != nil || strconv.Itoa(n) != bits || n < 0 || n > a.BitLen():
			fail(fmt.Sprintf("a length from 0 to %d: %s", a.BitLen(), example), "%q has no such length", s)
			return
		}
		p = netip.PrefixFrom(a, n)
		if m := p.Masked(); m != p {
			fail(fmt.Sprintf("write %s for the whole network, or %s for the one address", m, a), "%q has bits set behind its length", s)
			return
		}
	}
	v.Set(reflect.ValueOf(p))
}
