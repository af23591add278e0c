package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
)

// KeepVerb is the verb that the unit calls which restores what others undo.
const KeepVerb = "keep"

const (
	// keepEvery is how often the sysctls are read again: the kernel tells of few of them.
	keepEvery = 2 * time.Second
	// settle is how long it has to be quiet before anything is restored, and settleMost how
	// long that is waited for: whoever flushes loads rules of his own right after.
	settle     = 300 * time.Millisecond
	settleMost = 2 * time.Second
	// An object that was restored fightMost times within fightWithin is not restored again.
	fightMost   = 3
	fightWithin = time.Minute

	fightsFile = "fights"
)

// Fight is an object that somebody keeps undoing. It is left to him until a person has
// seen it.
type Fight struct {
	ID    string    `json:"id"` // of the step
	Since time.Time `json:"since"`
	Times int       `json:"times"` // restored within a minute, in vain
	By    []string  `json:"by"`
}

// keeper is one run of Keep.
type keeper struct {
	*Engine
	heard  []mutate.Heard // since the last look at which all was well
	missed bool
	well   time.Time
	gen    uint32 // at that look
	// What is held, as of a history that ends in last.
	last string
	list []held
}

// Keep restores what somebody else undoes of the kept changes, in the running kernel:
// our own table, values and permanent neighbours, nothing else. It is a change like any
// other, with a journal, and never made while one is under way. What is undone again and
// again is reported instead. It returns when ctx ends.
func (e *Engine) Keep(ctx context.Context) error {
	k := &keeper{Engine: e, well: time.Now()}
	l, err := mutate.HearRules()
	if err != nil {
		e.log("rules are read again and again instead of being listened to", "cause", err)
	} else {
		defer l.Close()
	}
	pause := time.Second
	for ctx.Err() == nil {
		if l == nil {
			select {
			case <-ctx.Done():
			case <-time.After(keepEvery):
			}
		} else if err := k.listen(ctx, l); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		restored, err := k.look(ctx)
		switch {
		case errors.Is(err, store.ErrLocked):
		case err != nil:
			// Somebody else was faster, perhaps; or it cannot be done, and not in a moment either.
			e.log("restore", "cause", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, 30*time.Second)
		default:
			pause = time.Second
		}
		if restored && l != nil {
			k.drain(l)
		}
	}
	return nil
}

// listen waits for a transaction of nf_tables and then until it is quiet, or for the time
// to look anyway.
func (k *keeper) listen(ctx context.Context, l *mutate.RuleEars) error {
	wait := keepEvery
	for end := time.Now().Add(settleMost + keepEvery); time.Now().Before(end) && ctx.Err() == nil; {
		hs, missed, err := l.Next(wait)
		if err != nil {
			return err
		}
		if len(hs) == 0 && !missed {
			return nil
		}
		k.missed = k.missed || missed
		k.heard = append(k.heard, hs...)
		if n := len(k.heard); n > 64 {
			k.heard = slices.Clone(k.heard[n-64:])
		}
		if wait != settle {
			wait, end = settle, time.Now().Add(settleMost)
		}
	}
	return nil
}

// drain forgets what our own restoring made the kernel tell.
func (k *keeper) drain(l *mutate.RuleEars) {
	for {
		hs, missed, err := l.Next(time.Millisecond)
		if err != nil || len(hs) == 0 && !missed {
			return
		}
	}
}

// look compares, and restores.
func (k *keeper) look(ctx context.Context) (restored bool, err error) {
	d, err := k.layer().Open(k.stateDir())
	if errors.Is(err, unix.ENOENT) {
		return false, nil // nothing was ever kept
	}
	if err != nil {
		return false, err
	}
	defer d.Close()
	unlock, err := d.Lock(lockFile, false)
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err := k.resume(d); err != nil {
		return false, err
	}
	if d.Has(pendingDir) {
		return false, nil // it compares for itself
	}
	rs, last, _, err := readHistory(d)
	if err != nil {
		return false, err
	}
	past, err := d.Sub(pastDir)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer past.Close()
	if last != k.last || k.list == nil {
		if k.list, err = keeping(past, rs); err != nil {
			return false, err
		}
		k.last, k.gen = last, 0
	}
	gen, err := mutate.Generation()
	if err != nil {
		gen = 0
	}
	list := k.list
	if gen != 0 && gen == k.gen { // no rule has changed since all was well
		list = slices.DeleteFunc(slices.Clone(list), func(h held) bool { return h.step.Kind == change.Table })
	}
	begun := time.Now()
	strays := slices.DeleteFunc(k.strays(list), func(a astray) bool {
		return a.err != nil || a.step.Phase != change.Runtime || !slices.Contains([]change.Kind{change.Table, change.Sysctl, change.Neighbour}, a.step.Kind)
	})
	fights := readFights(d)
	strays = slices.DeleteFunc(strays, func(a astray) bool {
		return slices.ContainsFunc(fights, func(f Fight) bool { return f.ID == a.step.ID })
	})
	if len(strays) == 0 {
		k.well, k.gen, k.heard, k.missed = begun, gen, nil, false
		if len(fights) > 0 {
			k.gen = 0 // what is fought over may be ours again at any time
		}
		return false, nil
	}
	by := k.blame(strays)
	var again []astray
	for _, a := range strays {
		if n := restoredLately(rs, a.step.ID, begun); n < fightMost {
			again = append(again, a)
		} else {
			fights = append(fights, Fight{ID: a.step.ID, Since: begun.UTC().Truncate(time.Millisecond), Times: n, By: by[a.step.ID]})
			k.log("FIGHT: somebody keeps undoing it; it is left to him until a person has looked (sixfence harden status)", "object", a.step.ID, "by", strings.Join(by[a.step.ID], "; "))
			if err := k.record(d, Record{Event: "fight", Objects: []string{a.step.ID}, Why: strings.Join(by[a.step.ID], "; ")}); err != nil {
				return false, err
			}
			if err := writeFights(d, fights); err != nil {
				return false, err
			}
		}
	}
	if len(again) == 0 {
		return false, nil
	}
	return true, k.restoreStrays(ctx, d, again, by)
}

// blame says of each object who may have undone it.
func (k *keeper) blame(strays []astray) map[string][]string {
	out := map[string][]string{}
	units := unitsSince(k.well)
	for _, a := range strays {
		var by []string
		if a.step.Kind == change.Table {
			name := a.step.Target[strings.IndexByte(a.step.Target, ' ')+1:]
			for _, h := range slices.Backward(k.heard) {
				if slices.Contains(h.Tables, name) {
					by = append(by, h.String())
					break
				}
			}
		}
		for _, u := range units {
			by = append(by, u.String())
		}
		by = append(by, k.suspects(a.step, a.now, k.well)...)
		if k.missed {
			by = append(by, "perhaps others: the kernel could not tell of every change")
		}
		if len(by) == 0 {
			by = []string{"unknown"}
		}
		out[a.step.ID] = by
	}
	return out
}

// restoreStrays sets objects back, as a change of its own.
func (e *Engine) restoreStrays(ctx context.Context, d *store.Dir, strays []astray, by map[string][]string) error {
	p := &change.Plan{SchemaVersion: change.Version}
	var why, objects []string
	for _, a := range strays {
		s := change.Step{ID: a.step.ID, Kind: a.step.Kind, Phase: change.Runtime, Target: a.step.Target, After: a.step.After, Why: a.step.Why}
		switch {
		case a.now == mutate.Absent:
			s.Before = change.Image{Absent: true}
		case s.Kind == change.Sysctl:
			s.Before = change.Image{Text: mutate.Text(a.now)}
		case s.Kind == change.Neighbour:
			s.Before = change.Image{Text: strings.TrimPrefix(a.now, "permanent ")}
		case s.Kind == change.Table:
			text, err := TableText(ctx, s.Target)
			if err != nil {
				return err
			}
			s.Before = change.Image{Text: text}
		}
		p.Steps = append(p.Steps, s)
		objects = append(objects, a.step.ID)
		if w := strings.Join(by[a.step.ID], "; "); !slices.Contains(why, w) {
			why = append(why, w)
		}
	}
	p.ID = p.Sum()
	t, err := e.begin(d, p, Options{Timeout: time.Minute, Who: Who{UID: os.Getuid(), Command: "sixfence harden " + KeepVerb}, restores: objects, why: strings.Join(why, "; ")})
	if err != nil {
		return err
	}
	defer t.close()
	err = e.run(ctx, d, t)
	if err == nil {
		err = t.enter(committed)
	}
	if err != nil {
		_, uerr := e.undo(d, t, err.Error(), false)
		return errors.Join(err, uerr)
	}
	_, err = e.forward(d, t)
	return err
}

// restoredLately counts how often an object was restored within the time that makes a
// fight, since the last one that was noted.
func restoredLately(rs []Record, id string, now time.Time) int {
	n := 0
	for _, r := range slices.Backward(rs) {
		if !slices.Contains(r.Objects, id) {
			continue
		}
		if r.Event == "fight" || now.Sub(r.At) > fightWithin {
			break
		}
		if r.Event == "restored" || r.Event == "rolled-back" { // or could not be restored
			n++
		}
	}
	return n
}

func readFights(d *store.Dir) (out []Fight) {
	if b, _, err := d.Read(fightsFile, 1<<20); err == nil {
		_ = json.Unmarshal(b, &out)
	}
	return out
}

func writeFights(d *store.Dir, fights []Fight) error {
	b, err := json.Marshal(fights)
	if err != nil {
		return fmt.Errorf("encode fights: %w", err)
	}
	if err := d.Replace(fightsFile, b, store.Attr{}); err != nil {
		return fmt.Errorf("note the fight: %w", err)
	}
	return nil
}
