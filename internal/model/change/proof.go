package change

// Proof is what came of firing at the planned state, in namespaces of its own, before it
// is loaded where it matters. What each shot ought to do comes from the intent alone.
type Proof struct {
	Status ProofStatus `json:"status"`
	// Reason and WayOut say why nothing, or not all, could be proven.
	Reason string `json:"reason,omitempty"`
	WayOut string `json:"wayOut,omitempty"`
	// Kernel is the release of the kernel that decided.
	Kernel     string   `json:"kernel,omitempty"`
	Interfaces []string `json:"interfaces,omitempty"` // that were fired at
	Shots      int      `json:"shots"`                // of them, Through came through and Stopped did not
	Through    int      `json:"through"`
	Stopped    int      `json:"stopped"`
	Groups     []Group  `json:"groups,omitempty"`
	// Failures are shots that did not do what the intent says.
	Failures []Misfire `json:"failures,omitempty"`
	// Held are shots that our rules let through and other tables of this host stop.
	Held []Misfire `json:"held,omitempty"`
	// Together are the tables of others that were loaded beside ours; NotTogether those
	// that could not be, with the reason: nothing is proven about what they do.
	Together    []string `json:"together,omitempty"`
	NotTogether []string `json:"notTogether,omitempty"`
	// NotFiredAt are interfaces at which nothing could be fired, with the reason.
	NotFiredAt []string `json:"notFiredAt,omitempty"`
	// Limits say where the place of the proof differs from the host.
	Limits []string `json:"limits,omitempty"`
}

// ProofStatus is how a proof ended.
type ProofStatus string

// The ends of a proof. Only the first lets apply go on by itself.
const (
	Proven   ProofStatus = "proven"
	Failed   ProofStatus = "failed"  // the planned state does not do what the intent says
	Unproven ProofStatus = "unknown" // it could not be tried
	// Partial: what was fired at did what the intent says, but something of the host could
	// not be there: NotTogether and NotFiredAt say what.
	Partial ProofStatus = "partial"
)

// Group are shots of one sort.
type Group struct {
	Name    string `json:"name"`
	Shots   int    `json:"shots"`
	Through int    `json:"through"`
	Stopped int    `json:"stopped"`
}

// Misfire is a shot that did something else than it ought to.
type Misfire struct {
	Interface string `json:"interface,omitempty"`
	Group     string `json:"group"`
	Shot      string `json:"shot"`
	Expected  string `json:"expected"`
	Observed  string `json:"observed"`
	// Packet is the witness in a line, Frames the same as it was on the wire, in hex.
	Packet string   `json:"packet,omitempty"`
	Frames []string `json:"frames,omitempty"`
}
