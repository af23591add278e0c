package fact

import (
	"strings"
	"unicode/utf8"
)

// InterfaceName returns the text by which a Snapshot knows an interface.
//
// The kernel allows any byte but NUL, '/', ':' and white space in a name
// (dev_valid_name, net/core/dev.c), so a name need not be UTF-8, and JSON would
// fold all broken ones into the same replacement character. Bytes that are not
// UTF-8 become \xNN and then a backslash becomes two: different names stay
// different. Ordinary names, dots included, are unchanged.
func InterfaceName(raw []byte) string {
	if utf8.Valid(raw) && !strings.ContainsRune(string(raw), '\\') {
		return string(raw)
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(raw); {
		r, n := utf8.DecodeRune(raw[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			b.WriteString(`\x`)
			b.WriteByte(hex[raw[i]>>4])
			b.WriteByte(hex[raw[i]&15])
			n = 1
		case r == '\\':
			b.WriteString(`\\`)
		default:
			b.Write(raw[i : i+n])
		}
		i += n
	}
	return b.String()
}
