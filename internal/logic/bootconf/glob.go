package bootconf

import "strings"

// maxBraces bounds brace expansion: what is beyond it matches nothing more.
const maxBraces = 256

// isGlob is systemd's string_is_glob.
func isGlob(s string) bool { return strings.ContainsAny(s, "*?[") }

// IsGlob tells whether systemd-sysctl treats a key as a pattern.
func IsGlob(key string) bool { return isGlob(key) }

// Match tells whether a sysctl pattern matches a path below /proc/sys, as
// glob(3) with GLOB_BRACE does: component by component, no wildcard for a
// leading dot.
func Match(pattern, path string) bool { return matchAny(expandBraces(pattern), path) }

func matchAny(patterns []string, path string) bool {
	for _, p := range patterns {
		if matchPath(p, path) {
			return true
		}
	}
	return false
}

// expandBraces expands {a,b} as glibc's GLOB_BRACE does.
func expandBraces(s string) []string {
	todo, out := []string{s}, []string(nil)
	for steps := 0; len(todo) > 0 && steps < 4*maxBraces && len(out) < maxBraces; steps++ {
		cur := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		prefix, alts, rest, ok := firstBrace(cur)
		if !ok {
			out = append(out, cur)
			continue
		}
		for i := len(alts) - 1; i >= 0 && len(todo) < maxBraces; i-- {
			todo = append(todo, prefix+alts[i]+rest)
		}
	}
	return out
}

// firstBrace splits s at its first complete brace expression.
func firstBrace(s string) (prefix string, alts []string, rest string, ok bool) {
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
			continue
		}
		if s[i] != '{' || strings.HasPrefix(s[i:], "{}") {
			continue
		}
		depth, start := 0, i+1
		alts = nil
		for j := i; j < len(s); j++ {
			switch s[j] {
			case '\\':
				j++
			case '{':
				depth++
			case ',':
				if depth == 1 {
					alts = append(alts, s[start:j])
					start = j + 1
				}
			case '}':
				if depth--; depth == 0 {
					return s[:i], append(alts, s[start:j]), s[j+1:], true
				}
			}
		}
		return "", nil, "", false
	}
	return "", nil, "", false
}

func matchPath(pattern, path string) bool {
	for {
		p, prest, pmore := strings.Cut(pattern, "/")
		s, srest, smore := strings.Cut(path, "/")
		if strings.HasPrefix(s, ".") && !strings.HasPrefix(p, ".") && !strings.HasPrefix(p, `\.`) {
			return false
		}
		if !matchOne(p, s) {
			return false
		}
		if pmore != smore {
			return false
		}
		if !pmore {
			return true
		}
		pattern, path = prest, srest
	}
}

// matchOne is fnmatch(3) on one component, linear in the length of both for
// each star (the classic last-star backtracking).
func matchOne(p, s string) bool {
	pi, si := 0, 0
	starP, starS := -1, 0
	for si < len(s) {
		if pi < len(p) && p[pi] == '*' {
			starP, starS = pi, si
			pi++
			continue
		}
		if n, ok := matchChar(p[pi:], s[si]); ok {
			pi += n
			si++
			continue
		}
		if starP < 0 {
			return false
		}
		starS++
		pi, si = starP+1, starS
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}

// matchChar matches one pattern element (not a star) with c and returns its length.
func matchChar(p string, c byte) (int, bool) {
	if p == "" {
		return 0, false
	}
	switch p[0] {
	case '?':
		return 1, true
	case '\\':
		if len(p) > 1 {
			return 2, p[1] == c
		}
		return 1, false
	case '[':
		if n, ok, closed := matchSet(p, c); closed {
			return n, ok
		}
		return 1, c == '['
	}
	return 1, p[0] == c
}

// matchSet matches a bracket expression.
func matchSet(p string, c byte) (n int, ok, closed bool) {
	i := 1
	negate := i < len(p) && (p[i] == '!' || p[i] == '^')
	if negate {
		i++
	}
	hit := false
	for first := true; i < len(p); first = false {
		if p[i] == ']' && !first {
			return i + 1, hit != negate, true
		}
		if strings.HasPrefix(p[i:], "[:") {
			if end := strings.Index(p[i:], ":]"); end > 0 {
				hit = hit || inClass(p[i+2:i+end], c)
				i += end + 2
				continue
			}
		}
		lo := p[i]
		if lo == '\\' && i+1 < len(p) {
			i++
			lo = p[i]
		}
		i++
		hi := lo
		if i+1 < len(p) && p[i] == '-' && p[i+1] != ']' {
			hi = p[i+1]
			i += 2
		}
		if lo <= c && c <= hi {
			hit = true
		}
	}
	return 0, false, false
}

func inClass(class string, c byte) bool {
	digit, lower, upper := '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z'
	switch class {
	case "digit":
		return digit
	case "alpha":
		return lower || upper
	case "alnum":
		return digit || lower || upper
	case "lower":
		return lower
	case "upper":
		return upper
	}
	return false
}
