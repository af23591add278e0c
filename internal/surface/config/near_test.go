package config

import "testing"

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		d    int
	}{{"", "", 0}, {"a", "", 1}, {"kitten", "sitting", 3}, {"RA-01", "RA-10", 2}} {
		if got := distance(c.a, c.b); got != c.d {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.d)
		}
	}
	if got := Nearest("servr", []string{"server", "router", "serve"}); len(got) != 2 || got[0] != "server" || got[1] != "serve" {
		t.Error(got)
	}
	if got := Nearest("ab", []string{"cd", "ac"}); len(got) != 1 || got[0] != "ac" {
		t.Error(got)
	}
}
