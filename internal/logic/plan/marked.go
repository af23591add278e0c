package plan

import (
	"errors"
	"strings"
)

// Where a manager reads one file only, and knows no directory of drop-ins, our lines
// stand in that file between two lines of ours. What they replace stands there too, as a
// comment: taking the block away gives the file back byte for byte.
const (
	markBegin = "# sixfence begin: from the intent; these lines are its own, write above them"
	markBare  = markBegin + " (the last line had no end)"
	markWas   = "#~"
	markEnd   = "# sixfence end"
)

var errMarks = errors.New("the lines of sixfence in it are not whole")

// unmark gives a file back as it was before our block came into it. What others wrote
// around the block meanwhile stays. had tells whether there was one.
func unmark(text string) (out string, had bool, err error) {
	var b strings.Builder
	inside, bare, below := false, false, false
	for line := range strings.Lines(text) {
		switch t := strings.TrimRight(line, "\r\n"); {
		case t == markBegin || t == markBare:
			if had {
				return "", true, errMarks
			}
			inside, had, bare = true, true, t == markBare
		case t == markEnd:
			if !inside {
				return "", true, errMarks
			}
			inside = false
		case inside:
			if was, ok := strings.CutPrefix(line, markWas); ok {
				b.WriteString(was)
			}
		default:
			below = had
			b.WriteString(line)
		}
	}
	if inside {
		return "", true, errMarks
	}
	out = b.String()
	if bare && !below {
		out = strings.TrimSuffix(out, "\n")
	}
	return out, had, nil
}

// Unmark gives a file back as it was before lines of ours came into it; what others wrote
// around them stays. had tells whether there were any.
func Unmark(text string) (out string, had bool, err error) { return unmark(text) }

// FromBlock is a file from our block on: what stands above it is others', and what came
// below may override it. Empty where there is no block, or not a whole one.
func FromBlock(text string) string {
	if _, had, err := Unmark(text); err != nil || !had {
		return ""
	}
	at := 0
	for line := range strings.Lines(text) {
		if t := strings.TrimRight(line, "\r\n"); t == markBegin || t == markBare {
			break
		}
		at += len(line)
	}
	return strings.TrimSuffix(text[at:], "\n")
}

// marked replaces lines of a file, given with their ends, by a block of ours at that
// place; none: it is appended. The file must not have a block yet.
func marked(before string, replaced []string, after string, lines ...string) string {
	var b strings.Builder
	b.WriteString(before)
	begin := markBegin
	whole := before + strings.Join(replaced, "") + after
	if whole != "" && !strings.HasSuffix(whole, "\n") && after == "" {
		begin = markBare
		if len(replaced) == 0 {
			b.WriteByte('\n')
		}
	}
	b.WriteString(begin + "\n")
	for _, r := range replaced {
		b.WriteString(markWas + strings.TrimSuffix(r, "\n") + "\n")
	}
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	b.WriteString(markEnd + "\n" + after)
	return b.String()
}
