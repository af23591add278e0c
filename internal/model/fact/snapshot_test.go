package fact

import "testing"

func TestHome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		list []Namespace
		want string
	}{
		{"none", nil, ""},
		{"a Snapshot that does not say", []Namespace{{Name: "a"}, {Name: "b"}}, "a"},
		{"the initial one", []Namespace{{Name: "a"}, {Name: "init", IsInit: true}, {Name: "b"}}, "init"},
		{"taken inside another one", []Namespace{{Name: "a"}, {Name: "init", IsInit: true}, {Name: "self", IsSelf: true}}, "self"},
		{"both at once", []Namespace{{Name: "a"}, {Name: "init", IsInit: true, IsSelf: true}}, "init"},
	} {
		got := ""
		if n := (&Snapshot{Namespaces: c.list}).Home(); n != nil {
			got = n.Name
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
