package config

// Nearest returns the words that a typing error away from s, at most three, in the
// order given.
func Nearest(s string, words []string) []string {
	if len(s) > 40 {
		return nil
	}
	var out []string
	best := 4
	if len(s) < 4 {
		best = 2 // everything is near a short word
	}
	limit := best
	for _, w := range words {
		d := distance(s, w)
		if d < best {
			best, out = d, nil
		}
		if d == best && d < limit {
			out = append(out, w)
		}
	}
	return out[:min(len(out), 3)]
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			prev, row[j+1] = row[j+1], min(prev+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
