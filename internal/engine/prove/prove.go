// Package prove fires at what a plan would make of a host, before it is made.
//
// The host is made again in namespaces of its own (host/arena), with the interfaces,
// addresses, routes and settings of its Snapshot; the steps of the plan are performed
// there, its table is loaded as it is written, and the attack corpus is fired at it by
// this very kernel. What each shot ought to do comes from the intent (logic/attack), never
// from the rules, nor from a model of them.
//
// It has four answers: proven; failed, with the packets that show it; unknown, with the
// reason, when it could not be tried; and partial, when something of the host could not be
// there. Neither of the last two is proven.
package prove

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/arena"
	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Timeout bounds a proof as a whole.
const Timeout = 30 * time.Second

// Prover are the places of a proof, made while the caller still may.
type Prover struct {
	alone, together *arena.Arena
	err             error
	noTun           bool
	// Progress hears how far it is; may be nil.
	Progress func(what string)
	// Elsewhere: the Snapshot is of another host. Its other tables are not loaded here:
	// they could need modules that are not loaded.
	Elsewhere bool
}

// Start makes the namespaces. A Prover that could not make them says so in its proofs.
// missing names what this kernel has as modules that are not loaded, and that a proof
// would load.
func Start(missing []string) *Prover {
	p := &Prover{noTun: slices.Contains(missing, tun)}
	if missing = slices.DeleteFunc(slices.Clone(missing), func(m string) bool { return m == tun }); len(missing) > 0 {
		p.err = &arena.UnavailableError{
			Why:  "a proof would load kernel modules that are not loaded: " + strings.Join(missing, ", "),
			Hint: "load them (modprobe -a " + strings.Join(missing, " ") + ") and plan again",
		}
		return p
	}
	if p.alone, p.err = arena.Start(); p.err == nil {
		p.together, p.err = arena.Start()
	}
	return p
}

// Close ends the namespaces.
func (p *Prover) Close() {
	p.alone.Close()
	p.together.Close()
}

// Needs are the modules that a proof loads, besides those that the planned rules themselves
// load when they are decoded or applied. Without the last nothing is fired at interfaces
// that are no Ethernet, without any other nothing at all.
func Needs() []string { return []string{"veth", "af_packet", tun} }

const tun = "tun"

// Prove fires at a plan; once a Prover. The Snapshot and the namespace in it are the host.
func (p *Prover) Prove(ctx context.Context, pl *change.Plan, snap *fact.Snapshot, ns *fact.Namespace) *change.Proof {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	r := &proof{p: &change.Proof{Status: change.Proven, Kernel: release()}, say: p.Progress, elsewhere: p.Elsewhere}
	err := p.err
	if err == nil {
		err = r.run(ctx, p, pl, snap, ns)
	}
	r.end(err)
	return r.p
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// proof is one in the making.
type proof struct {
	*site
	p         *change.Proof
	say       func(string)
	elsewhere bool
}

func (r *proof) progress(f string, a ...any) {
	if r.say != nil {
		r.say(fmt.Sprintf(f, a...))
	}
}

// end gives the proof its status. What failed before something could not be tried has
// failed all the same.
func (r *proof) end(err error) {
	if r.site != nil {
		r.p.Limits, r.p.NotFiredAt = r.limits, r.notFired
	}
	switch {
	case len(r.p.Failures) > 0:
		r.p.Status = change.Failed
	case err != nil:
		r.p.Status = change.Unproven
	case len(r.p.NotTogether)+len(r.p.NotFiredAt) > 0:
		r.p.Status = change.Partial
		r.p.Reason = "not all of this host could be tried"
		r.p.WayOut = "Apply refuses it: read what is left out, and decide with that open: sixfence harden apply --unproven"
		if r.elsewhere {
			r.p.WayOut = "Apply fires at it again, on the host itself"
		}
	}
	if err == nil {
		return
	}
	r.p.Reason = err.Error()
	r.p.WayOut = "make it possible, or decide without: sixfence harden apply --unproven"
	var u *arena.UnavailableError
	switch {
	case errors.As(err, &u):
		r.p.WayOut = u.Hint + "; or decide without a proof: sixfence harden apply --unproven"
	case errors.Is(err, context.DeadlineExceeded):
		r.p.Reason = fmt.Sprintf("it took longer than the %s it may", Timeout)
	}
}

func (r *proof) fail(m change.Misfire) { r.p.Failures = append(r.p.Failures, m) }

// Words of what becomes of a shot.
const (
	through = "comes through"
	stopped = "is stopped"
)

func word(pass bool) string {
	if pass {
		return through
	}
	return stopped
}

func (r *proof) run(ctx context.Context, p *Prover, pl *change.Plan, snap *fact.Snapshot, ns *fact.Namespace) error {
	switch {
	case pl.Intent == nil:
		return errors.New("the plan does not say what is intended")
	case ns == nil:
		return errors.New("the network namespace is not in the Snapshot")
	}
	s, err := newSite(pl, *pl.Intent, snap, ns, p.noTun)
	if err != nil {
		return err
	}
	r.site = s
	if k, ok := snap.Host.Kernel.Get(); ok && k.Release != r.p.Kernel {
		s.limit("the host has kernel %s", k.Release)
	}
	ours, others := s.tables()
	for _, t := range s.targets {
		r.p.Interfaces = append(r.p.Interfaces, t.name)
	}
	r.progress("making the host again")
	if err := r.make(ctx, p.alone, true); err != nil {
		return err
	}
	if err := r.settingsAlone(ctx, p.alone); err != nil {
		return err
	}
	if err := r.load(ctx, p.alone, ours); err != nil {
		return err
	}
	alone, err := r.fireAll(ctx, p.alone)
	if err != nil {
		return err
	}
	for _, v := range alone {
		r.count(v)
		if v.seen != v.shot.Pass {
			r.fail(v.misfire(word(v.seen)))
		}
	}
	if err := r.advertised(ctx, p.alone); err != nil {
		return err
	}
	if err := r.sendings(ctx, p.alone); err != nil {
		return err
	}
	if len(r.p.Failures) > 0 {
		return nil // what follows takes longest, and nothing makes this good
	}
	if err := r.full(ctx, p.alone, ours); err != nil {
		return err
	}
	return r.beside(ctx, p.together, ours, others, alone)
}

// tables are ours as planned, or as it is where the plan leaves it, and those of others.
func (s *site) tables() (ours table, others *fact.NFTables) {
	all, _ := s.ns.PacketFilter.NFTables.Get()
	for _, st := range s.plan.Steps {
		if st.Kind == change.Table && st.Target == plan.Table {
			ours.text, ours.planned = st.After.Text, true
		}
	}
	mine, rest := split(all)
	if !ours.planned && len(mine.Tables) > 0 {
		ours.raw = mine
	}
	return ours, rest
}

// table is ours: as text, as the kernel holds it, or none.
type table struct {
	text    string
	planned bool
	raw     *fact.NFTables
}

// make makes the host, and performs the settings of the plan.
func (r *proof) make(ctx context.Context, a *arena.Arena, first bool) error {
	failed, err := a.Setup(ctx, r.setup)
	if err != nil {
		return fmt.Errorf("make the host again: %w", err)
	}
	if first {
		for _, f := range failed {
			r.limit("not made again: %s", f)
		}
	}
	failed, err = a.Set(ctx, r.steps())
	if err != nil {
		return fmt.Errorf("perform the settings: %w", err)
	}
	for _, f := range failed {
		if !first {
			break
		}
		if slices.ContainsFunc([]error{unix.ENOENT, unix.EACCES, unix.EPERM, unix.EROFS}, func(e error) bool { return strings.HasSuffix(f, e.Error()) }) {
			r.limit("not tried: %s", f) // no setting of a namespace
			continue
		}
		r.fail(change.Misfire{Group: "settings", Shot: f, Expected: "holds", Observed: "does not hold"})
	}
	return nil
}

// load loads our table, with the connections of the administrators among those that are
// open, as apply does.
func (r *proof) load(ctx context.Context, a *arena.Arena, t table) error {
	switch {
	case t.raw != nil:
		refused, err := a.Replay(ctx, arena.Foreign{NFTables: t.raw})
		if err == nil && len(refused) > 0 {
			err = errors.New(refused[0].What + ": " + refused[0].Why)
		}
		return err
	case t.text == "":
		return nil
	}
	var live []plan.Live
	for _, w := range r.plan.Administered {
		live = append(live, plan.Live{Proto: ndisc.ProtoTCP, Local: w.Local, Remote: w.Remote})
	}
	return a.Load(ctx, t.text+plan.Seed(t.text, live))
}

// verdict is a shot and what became of it.
type verdict struct {
	iface string
	shot  attack.Shot
	seen  bool
}

func (v verdict) misfire(observed string) change.Misfire {
	m := change.Misfire{Interface: v.iface, Group: v.shot.Group, Shot: v.shot.Name, Expected: word(v.shot.Pass), Observed: observed}
	for _, f := range v.shot.Frames {
		m.Frames = append(m.Frames, hex.EncodeToString(f))
	}
	if len(v.shot.Frames) > 0 {
		m.Packet = describe(v.shot.Frames[0])
	}
	return m
}

func (r *proof) count(v verdict) {
	r.p.Shots++
	i := slices.IndexFunc(r.p.Groups, func(g change.Group) bool { return g.Name == v.shot.Group })
	if i < 0 {
		i = len(r.p.Groups)
		r.p.Groups = append(r.p.Groups, change.Group{Name: v.shot.Group})
	}
	g := &r.p.Groups[i]
	g.Shots++
	if v.seen {
		r.p.Through++
		g.Through++
	} else {
		r.p.Stopped++
		g.Stopped++
	}
}

// fireAll fires the corpus at every target.
func (r *proof) fireAll(ctx context.Context, a *arena.Arena) ([]verdict, error) {
	var out []verdict
	for _, t := range r.targets {
		g := t.shots
		r.open(ctx, a, t, &g)
		shots := attack.Corpus(r.in, g)
		shots = append(shots, r.sessions(t, uint32(len(shots)))...)
		r.progress("firing %d shots at %s", len(shots), t.name)
		seen, err := r.fire(ctx, a, t.name, shots)
		if err != nil {
			return nil, err
		}
		for _, s := range shots {
			out = append(out, verdict{t.name, s, seen[s.ID]})
		}
		if t.guest.MAC == (ndisc.MAC{}) {
			continue
		}
		for _, from := range []bool{false, true} {
			shots := attack.Guests(r.in, g, t.guest, from)
			seen, err := r.again(ctx, shots, func(frames [][]byte) ([]uint32, []uint16, error) { return a.Pass(ctx, t.name, from, frames) })
			if err != nil {
				return nil, fmt.Errorf("fire at the guests of %s: %w", t.name, err)
			}
			for _, s := range shots {
				out = append(out, verdict{t.name, s, seen[s.ID]})
			}
		}
	}
	return out, nil
}

// maxAgain is how many shots that were lost are fired once more: a lost packet, or one
// that came when its sender had used up a low limit, is no fault. More are.
const maxAgain = 10

// fire fires shots and says which came through.
func (r *proof) fire(ctx context.Context, a *arena.Arena, link string, shots []attack.Shot) (map[uint32]bool, error) {
	seen, err := r.again(ctx, shots, func(frames [][]byte) ([]uint32, []uint16, error) { return a.Fire(ctx, link, frames) })
	if err != nil {
		return nil, fmt.Errorf("fire at %s: %w", link, err)
	}
	return seen, nil
}

// again fires shots, and some of those that were lost once more.
func (r *proof) again(ctx context.Context, shots []attack.Shot, fire func(frames [][]byte) ([]uint32, []uint16, error)) (map[uint32]bool, error) {
	seen := map[uint32]bool{}
	left := shots
	for try := range 3 {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(1100 * time.Millisecond):
			}
		}
		var frames [][]byte
		for _, s := range left {
			frames = append(frames, s.Frames...)
		}
		six, four, err := fire(frames)
		if err != nil {
			return nil, err
		}
		for _, s := range left {
			seen[s.ID] = seen[s.ID] || !s.IPv4 && slices.Contains(six, s.ID) || s.IPv4 && slices.Contains(four, uint16(s.ID))
		}
		left = slices.DeleteFunc(slices.Clone(left), func(s attack.Shot) bool { return seen[s.ID] || !s.Pass })
		if len(left) == 0 || len(left) > maxAgain {
			break
		}
	}
	return seen, nil
}

// open begins a flow for errors about it to be real, when the intent lets one begin.
func (r *proof) open(ctx context.Context, a *arena.Arena, t target, g *attack.Range) {
	for _, x := range attack.Sendings(r.in, *g) {
		if !x.Pass || x.Proto != ndisc.ProtoUDP || !x.Dst.Addr().Is6() || x.Dst.Port() == 80 {
			continue
		}
		if f, err := a.Begin(ctx, x.Dst); err == nil {
			g.Open.Local, g.Open.Remote = f.Local, f.Remote
		}
		return
	}
}

// sessions are the connections by which people administer the host, and new ones like
// them.
func (r *proof) sessions(t target, last uint32) []attack.Shot {
	var out []attack.Shot
	for _, w := range r.plan.Administered {
		l, rem := w.Local.Addr().Unmap(), w.Remote.Addr().Unmap().WithZone("")
		if t.off && l.Is6() || !slices.ContainsFunc(r.made(t.name).Addresses, func(p netip.Prefix) bool { return p.Addr() == l.WithZone("") }) || !t.shots.Back(rem) && !rem.IsLinkLocalUnicast() {
			continue
		}
		for _, v := range []struct {
			name  string
			port  uint16
			flags uint8
		}{{"the open connection", w.Remote.Port(), 0x10}, {"a new connection", w.Remote.Port() ^ 1, 2}} {
			last++
			s := attack.Shot{ID: last, Group: "sessions", Name: fmt.Sprintf("%s from %s to port %d", v.name, rem, w.Local.Port()), Pass: true, IPv4: l.Is4()}
			s.Frames = [][]byte{r.session(t, l.WithZone(""), rem, v.port, w.Local.Port(), v.flags, last)}
			out = append(out, s)
		}
	}
	return out
}
