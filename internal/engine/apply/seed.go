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
	var live []plan.Live
	for _, p := range []struct {
		number uint8
		name   string
		states []string
	}{
		// Established; beginning; closed from here, and still being listened to; closed from there.
		{6, "tcp", []string{"01", "02", "04", "05", "08"}},
		{17, "udp", []string{"01"}}, // connected: of the others nobody knows whom they talk to
	} {
		sockets, err := procSockets(p.name, p.states...)
		if err != nil {
			return i, err
		}
		for _, s := range sockets {
			live = append(live, plan.Live{Proto: p.number, Local: s.Local, Remote: s.Remote})
		}
	}
	i.Text += plan.Seed(i.Text, live)
	return i, nil
}
