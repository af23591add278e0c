package cli

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// keeper keeps what is known in a file, for each vantage, so that the next run may go on
// from there. A nil keeper keeps nothing.
type keeper struct {
	path    string
	log     *slog.Logger
	mu      sync.Mutex
	known   probe.Saved
	written time.Time
	failed  bool
}

func newKeeper(path string, log *slog.Logger) *keeper {
	if path == "" {
		return nil
	}
	return &keeper{path: path, log: log, known: probe.Saved{SchemaVersion: probe.SavedVersion, Addresses: []probe.SavedAddress{}}}
}

// read takes over what an earlier run has kept.
func (k *keeper) read(b []byte) (*probe.Saved, error) {
	if err := json.Unmarshal(b, &k.known); err != nil {
		return nil, fmt.Errorf("decode JSON: %w", err)
	}
	if k.known.SchemaVersion != probe.SavedVersion {
		return nil, fmt.Errorf("schemaVersion is %.40q, not %q", k.known.SchemaVersion, probe.SavedVersion)
	}
	return &k.known, k.known.Check()
}

// claimed is what a vantage has claimed earlier.
func (k *keeper) claimed(via string, addrs []netip.Addr) []probe.SavedAddress {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known.Claimed(via, addrs)
}

// look is put for what this host sees.
func (k *keeper) look(a *probe.Address, settled bool) { k.put("", []*probe.Address{a}, settled) }

// writeEvery is how often the file is written while nothing ends.
const writeEvery = 5 * time.Second

// put notes what is known now.
func (k *keeper) put(via string, as []*probe.Address, settled bool) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	news := false
	for i, a := range probe.Save(as).Addresses {
		if len(as[i].Tables) > 0 { // otherwise it was not begun
			a.Via = via
			k.known.Put(a)
			news = true
		}
	}
	if news {
		k.keep(settled)
	}
}

// soaked notes how far a soak is; nil: it is over.
func (k *keeper) soaked(a *probe.Address, s *probe.SavedSoak) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known.PutSoak(a.Addr, a.Vantage.Source, s)
	k.keep(true)
}

// keep writes the file, when it is time. The caller holds the lock.
func (k *keeper) keep(now bool) {
	if !now && time.Since(k.written) < writeEvery {
		return
	}
	k.written = time.Now()
	if err := k.write(); err != nil && !k.failed {
		k.failed = true
		k.log.Warn("the state is not kept", "cause", err)
	}
}

func (k *keeper) write() error {
	b, err := json.Marshal(k.known)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	f, err := store.Create(k.path)
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		f.Abort()
		return err
	}
	return f.Commit()
}
