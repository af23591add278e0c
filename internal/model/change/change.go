// Package change holds what `harden` would do to a host and what it did: a Plan of
// ordered Steps, each with the image of its object before and after, and nothing
// else. logic/plan makes it, a person reads it, engine/apply performs exactly it and
// journals it, and its inverse is in it.
package change

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// Version is the schemaVersion of Plan in this release.
const Version = "1.0"

// Plan is what apply would do. It holds no time and no pid: the same intent on the
// same host gives the same Plan, byte for byte.
type Plan struct {
	SchemaVersion string `json:"schemaVersion"`
	// ID is the SHA-256, in hex, of this Plan with ID empty and without Proof.
	ID         string `json:"id"`
	IntentHash string `json:"intentHash"` // SHA-256 in hex of the merged intent
	// Intent is the merged intent itself, from which a proof says what ought to happen.
	// The plan of a rollback has none.
	Intent    *intent.Intent `json:"intent,omitempty"`
	Namespace string         `json:"netns"` // as in every other output: init, self, or a name
	// Steps in the order in which apply performs them; the undo goes the other way.
	Steps []Step `json:"steps"`
	// Risks are the trade-offs that apply to this host.
	Risks []Risk `json:"risks,omitempty"`
	// Refusals are reasons not to apply at all. A Plan with one is never performed.
	Refusals []Refusal  `json:"refusals,omitempty"`
	Exposure []Exposure `json:"exposure,omitempty"`
	// Checks must answer before and after, as in the intent.
	Checks []string `json:"checks,omitempty"`
	// Administered are the ways in that must survive, and through each family of
	// which a new connection must come to confirm.
	Administered []Way      `json:"administered,omitempty"`
	Gaps         []fact.Gap `json:"gaps,omitempty"`
	// Proof is what came of firing at the planned state. It is no part of what ID is the
	// hash of: it is made of a whole Plan, it says what a kernel did and not what apply
	// would do, and apply believes none that it did not make itself.
	Proof *Proof `json:"proof,omitempty"`
}

// Phase is when a Step is performed.
type Phase string

// The phases.
const (
	// Runtime changes the running kernel: apply performs it, a reboot undoes it.
	Runtime Phase = "runtime"
	// Persist changes files: apply stages the content, confirm promotes it.
	Persist Phase = "persist"
	// AfterConfirm has no runtime form (initramfs, a unit to enable): confirm does it.
	AfterConfirm Phase = "after-confirm"
)

// Kind is what sort of object a Step changes, and says which member of Image holds.
type Kind string

// The kinds.
const (
	File       Kind = "file"      // Target: absolute path
	Sysctl     Kind = "sysctl"    // Target: path below /proc/sys, slashes: net/ipv6/conf/eth0/accept_ra
	Table      Kind = "table"     // Target: family and name of our own nft table: "inet sixfence"
	Neighbour  Kind = "neighbour" // Target: "eth0 fe80::1"; permanent entries only
	AddressObj Kind = "address"   // Target: "eth0 2001:db8::1/64"
	RouteObj   Kind = "route"     // Target: the route as ip(8) prints it
	Unit       Kind = "unit"      // Target: name of a systemd unit of ours: enabled or not
	Action     Kind = "action"    // Target: name in the list of actions of host/mutate (initramfs, networkctl-reload)
)

// Step changes one object.
type Step struct {
	ID     string `json:"id"` // "sysctl:net/ipv6/conf/eth0/accept_ra"; unique in a Plan
	Kind   Kind   `json:"kind"`
	Phase  Phase  `json:"phase"`
	Target string `json:"target"`
	Before Image  `json:"before"`
	After  Image  `json:"after"`
	// Destroys is what performing it takes away besides (disable_ipv6=1 takes
	// addresses, routes and neighbours): the undo restores them, in the order of RB-03.
	Destroys []Object `json:"destroys,omitempty"`
	// Restores is what performing it makes again, where it is missing: what an earlier
	// change of ours had destroyed. Only the plan of a rollback has it.
	Restores []Object `json:"restores,omitempty"`
	// Why are paths into the intent ("interfaces.eth0.addressing") or controls of the
	// audit ("SYSCTL-RA-01") that ask for it.
	Why []string `json:"why,omitempty"`
}

// Image is the state of an object. Absent means that it does not exist; otherwise
// exactly the members of the Kind are set.
type Image struct {
	Absent bool `json:"absent,omitempty"`
	// Text is a file's content, a sysctl's value, a table's nft script (of ours,
	// rendered), a neighbour's MAC, "enabled"/"disabled" of a unit, or the object as
	// ip(8) would print it.
	Text string `json:"text,omitempty"`
	Mode uint32 `json:"mode,omitempty"` // of a file: permission bits
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"`
	// Label is a file's security.selinux attribute.
	Label string `json:"label,omitempty"`
}

// Object is an address, route or neighbour that a Step destroys. A Plan shows it;
// engine/apply reads it again, with its message, right before the Step is performed.
type Object struct {
	Kind   Kind   `json:"kind"`
	Target string `json:"target"`
	// Interface is the name it hangs on; indices change.
	Interface string `json:"interface,omitempty"`
	// Attributes are what `ip` needs to make it again, one word each.
	Attributes []string `json:"attributes,omitempty"`
	// Lifetimes are seconds at the time of reading; 0 is for ever. What remains of
	// them is what the undo sets.
	ValidLifetime     uint32 `json:"validLifetime,omitempty"`
	PreferredLifetime uint32 `json:"preferredLifetime,omitempty"`
	// Message is what the kernel said of it (rtnetlink, without the nlmsghdr): the
	// attributes that no text shows are in it. Only a journal has it.
	Message []byte `json:"message,omitempty"`
}

// Risk is something that this change breaks, or may, on this host.
type Risk struct {
	ID       string   `json:"id"` // "ra-default-route-expires", "idle-flows", …
	Severity string   `json:"severity"`
	Title    string   `json:"title"`
	Detail   string   `json:"detail,omitempty"`
	Evidence []string `json:"evidence,omitempty"`
	Remedy   string   `json:"remedy,omitempty"`
}

// Refusal is a reason not to apply, with the way out.
type Refusal struct {
	ID     string `json:"id"` // "session-lost", "router-unaccepted", "foreign-drop", …
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	WayOut string `json:"wayOut"`
}

// Exposure is who reaches a port before and after, per family, through every table
// of the host and not ours alone.
type Exposure struct {
	Proto   string       `json:"proto"`
	Port    uint16       `json:"port"`
	Process string       `json:"process,omitempty"`
	IPv4    BeforeAfter  `json:"ipv4"`
	IPv6    BeforeAfter  `json:"ipv6"`
	Address []netip.Addr `json:"address,omitempty"`
	// Published is where rules pass the port on to: who gets there is then in here.
	Published string `json:"published,omitempty"`
}

// BeforeAfter are sources that surely get in, and that may.
type BeforeAfter struct {
	BeforeMust []netip.Prefix `json:"beforeMust"`
	BeforeMay  []netip.Prefix `json:"beforeMay"`
	AfterMust  []netip.Prefix `json:"afterMust"`
	AfterMay   []netip.Prefix `json:"afterMay"`
}

// Way is a connection through which a person administers the host.
type Way struct {
	Family  string         `json:"family"` // ipv4 or ipv6
	Local   netip.AddrPort `json:"local"`
	Remote  netip.AddrPort `json:"remote"`
	Process string         `json:"process,omitempty"`
}
