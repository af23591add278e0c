package apply

import (
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
)

// seeded is a table with the connections that are open right now, which its rules would
// otherwise take for new ones. They are in a list of their own that forgets, and no part
// of what the plan says.
func seeded(i change.Image) (change.Image, error) {
	if i.Absent {
		return i, nil
	}
	sockets, err := Sockets()
	if err != nil {
		return i, err
	}
	var live []plan.Live
	for _, s := range sockets {
		live = append(live, plan.Live{Proto: 6, Local: s.Local, Remote: s.Remote})
	}
	i.Text += plan.Seed(i.Text, live)
	return i, nil
}
