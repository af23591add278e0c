package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// maxSoak is longer than the largest interval that a querier can name with its defaults for
// the rest.
const maxSoak = 24 * time.Hour

func soakFlag(f *pflag.FlagSet, o *verifyOptions) {
	f.DurationVar(&o.soak, "soak", 0, "also watch, for `TIME`, whether neighbours that do not know it find the target (root, same link); --soak=10m, alone "+probe.SoakTime.String()+": a membership interval of MLD, and some room")
	f.Lookup("soak").NoOptDefVal = probe.SoakTime.String()
}

// soakTime explains why a time after a blank is a target.
func soakTime(args []string) error {
	for _, a := range args {
		if d, err := time.ParseDuration(a); err == nil && d > 0 {
			return &usageError{msg: fmt.Sprintf("%q is no target", a), hint: "a time goes with its flag: --soak=" + a}
		}
	}
	return nil
}

// soakNote says that an address is found still.
func soakNote(a *probe.Address) string {
	m := a.Soak
	if m == nil {
		return ""
	}
	lead := a.Addr.String() + ": "
	if a.Via != "" {
		lead = a.Via + " says of " + lead
	}
	if a.Addr.Is4() {
		if m.Verdict == probe.SoakUnknown {
			return lead + "whether neighbours find it by ARP is not known: " + report.Clean(m.Why)
		}
		if m.Verdict == probe.SoakKept {
			return lead + fmt.Sprintf("found by ARP for %s; that is a broadcast, and no group has to be kept", expect.Seconds(m.Seconds))
		}
		return ""
	}
	if m.Verdict != probe.SoakKept {
		return ""
	}
	n := lead + fmt.Sprintf("neighbours that do not know it still find it after %s (%d of %d questions answered; by what the querier %s says, a group without reports is gone after %s)",
		expect.Seconds(m.Seconds), m.Group.Answered, m.Group.Sent, m.Querier, expect.Seconds(m.Interval))
	if m.Reports > 0 {
		n += fmt.Sprintf("; %d reports of its group came by", m.Reports)
	}
	return n
}

// soakProgress tells a person at a terminal how long it still takes.
func (a *app) soakProgress(quiet bool) func(left time.Duration) {
	width, _, tty := terminal(a.stderr)
	if !tty || quiet || os.Getenv("TERM") == "dumb" {
		return nil
	}
	last := time.Now()
	return func(left time.Duration) {
		if time.Since(last) < time.Second || time.Since(a.told) < 3*time.Second { // the ports come first
			return
		}
		last = time.Now()
		if line := "sixfence: waiting whether neighbours still find it, " + max(left, time.Second).Round(time.Second).String() + " more"; len(line) < width {
			fmt.Fprint(a.stderr, "\r\x1b[K"+line)
		}
	}
}
