package expect

import "github.com/sixfence/sixfence/internal/model/probe"

// remedy says what to do about a result that is not as it should be. Empty: what the control
// says in general.
func remedy(r *Result) string {
	if r.Verdict == Undecided {
		return doubtRemedy(r)
	}
	switch r.Verdict {
	case PolicyWrong:
		return "change the rules of the target: sixfence reach there names the rule that decides, sixfence harden plan writes new ones from an intent"
	case ModelWrong:
		return "take a new Snapshot on the target (sixfence snapshot -o FILE) and ask again; if it stays so, look for what else answers or filters there: NAT, a proxy, a container"
	case Between:
		return "look at what is on the way: security group, switch, provider, the rules of the host that asks; --via ssh://HOST looks from elsewhere"
	case AllDiffer:
		return "begin on the target: sixfence reach and ss -ltnup say what it does; then look at what is on the way"
	case Match, None, Differs, Undecided:
	}
	want := r.wanted()
	switch {
	case r.State == probe.Unreachable:
		return unreached
	case r.State == probe.Open:
		return "on the target, stop the service or close its port (sixfence reach names the rule that lets it in); if it is meant to be open, expect open"
	case want == Word(probe.Open) && r.State == probe.Closed:
		return "nobody listens there: start the service, or let it listen at this address too (ss -ltnup on the target shows where)"
	case want == Word(probe.Open):
		return "let it in: sixfence reach on the target says whether its rules drop it; if not, something on the way does"
	case r.State == probe.Closed && blocks(want):
		return "nobody listens, and nothing filters: let the rules of the target drop what is not accepted; if that is meant so, expect closed"
	case blocks(want) && (r.State == probe.Rejected || r.State == probe.Filtered):
		return "nothing gets through either way: expect blocked, if it does not matter how"
	}
	return ""
}

const unreached = "see that the target is up, that this host has a route to it (ip route get ADDRESS) and that the routers on the way have one"

// doubtRemedy says how to find out.
func doubtRemedy(r *Result) string {
	switch {
	case r.from != nil && r.from.Vantage.Self:
		return "run sixfence verify on another host, or let one look: --via ssh://HOST"
	case r.Why == "rationed":
		return "give it more time: --patience, as the note below says"
	case r.Why == "lossy":
		return "ask again, more slowly: --rate 500"
	case r.Why == "no-rights":
		return "run it as root"
	case r.Why == "own-rules":
		return "let the output rules of this host send the probes, or look from elsewhere: --via ssh://HOST"
	case r.MayBeOpen:
		return "nothing answers and nothing refuses: ss -lun and sixfence reach on the target tell; --snapshot FILE brings that here"
	case r.State == probe.Unreachable:
		return unreached
	case r.State == probe.Filtered:
		return "let the target answer something (an echo, one service): then its silence means something"
	}
	return ""
}
