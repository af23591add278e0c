package probe

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// tables writes all tables of an address.
func tables(a *model.Address) string {
	var out []string
	for _, t := range a.Tables {
		name := t.Proto
		if t.Variant != model.Plain {
			name += "+" + string(t.Variant)
		}
		out = append(out, name+": "+states(t))
	}
	return strings.Join(out, " | ")
}

// parsed reads what tables writes: the state of each port, as tcp/22 or tcp+frag/22.
func parsed(t testing.TB, text string) map[string]model.State {
	t.Helper()
	out := map[string]model.State{}
	for table := range strings.SplitSeq(text, " | ") {
		name, rest, _ := strings.Cut(table, ": ")
		for part := range strings.SplitSeq(rest, "; ") {
			list, state, _ := strings.Cut(part, " ")
			var ports model.Ports
			if err := ports.AddList(list); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			for p := range ports.All {
				out[name+"/"+strconv.Itoa(int(p))] = model.State(state)
			}
		}
	}
	return out
}

// wrong says what is not as it ought to be; empty when all is right.
func (w wanted) wrong(t testing.TB, f *model.Address) string {
	t.Helper()
	var out []string
	if f.Life != w.life {
		out = append(out, fmt.Sprintf("life %q, want %q", f.Life, w.life))
	}
	if got := tables(f); !w.orUnknown && got != w.states {
		return strings.Join(append(out, got+"\nwant "+w.states), "\n")
	}
	if !w.orUnknown {
		return strings.Join(out, "\n")
	}
	truth := parsed(t, w.states)
	for _, table := range f.Tables {
		for p := range table.Want.All {
			is, r := truth[table.Proto+"/"+strconv.Itoa(int(p))], table.At(p)
			switch {
			case r.State == model.Errored && r.Blocked && is != model.Filtered && is != model.Rejected,
				r.State != is && r.State != model.Errored:
				out = append(out, fmt.Sprintf("%s/%d is %q (%s), want %s", table.Proto, p, r.State, r.Why, is))
			}
		}
	}
	return strings.Join(out, "\n")
}

// labRuns is how often every lab is measured: once in the slice that every test run takes.
func labRuns(t testing.TB) int {
	n, err := strconv.Atoi(os.Getenv("VERIFY_LAB_RUNS"))
	if err != nil {
		return 1
	}
	t.Logf("%d runs of every lab", n)
	return n
}

// TestLabs: the kernel and nft say what the state of every port is; so must the probes,
// with bare packets and with connections.
func TestLabs(t *testing.T) {
	t.Parallel()
	n := labRuns(t)
	var page labPage
	// They wait more than they work, so more of them run at once than there are processors.
	room := make(chan struct{}, 16)
	if n > 1 {
		room = make(chan struct{}, 48)
	}
	var all sync.WaitGroup
	start := func(name string, f func(t *testing.T)) {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			t.Run(name, f)
		})
	}
	report := os.Getenv("VERIFY_LAB_REPORT")
	for _, c := range labCases() {
		for _, connect := range []bool{false, true} {
			if n == 1 && (c.slow || connect && !c.both) || connect && c.variants != nil {
				continue
			}
			name := c.name + ", raw"
			if connect {
				name = c.name + ", connect"
			}
			row := &labRow{c: c, connect: connect}
			page.add(row)
			for range n {
				start(name, func(t *testing.T) { runLab(t, row) })
			}
		}
		if report != "" {
			start(c.name+", nmap", func(t *testing.T) { page.addNmap(c.name, runNmap(t, c)) })
		}
	}
	all.Wait()
	if report != "" {
		page.write(t, report)
	}
}

func build(t *testing.T, c labCase) *lab {
	var l *lab
	if c.routed {
		l = newRoutedLab(t, "vfy")
	} else {
		l = newLab(t, "vfy")
	}
	c.build(l)
	return l
}

func runLab(t *testing.T, row *labRow) {
	c := row.c
	l := build(t, c)
	var all sync.WaitGroup
	var mu sync.Mutex
	turns := &Turns{}
	var lim *Limiter
	if c.rate > 0 {
		lim = NewLimiter(c.rate)
	}
	if c.before != nil {
		c.before(l)
	}
	begin := time.Now()
	bad := false
	for _, w := range c.want {
		all.Go(func() {
			a := w.addr(l)
			start := time.Now()
			f := l.probe(Options{Addr: a, Spec: spec(t, strings.Fields(c.ports)...), Connect: row.connect, Variants: c.variants, Patience: c.patience, Turns: turns, OnLink: lim})
			t.Logf("%s: %.1f s, %d packets, %d of %d controls lost", a, time.Since(start).Seconds(), f.Sent, f.Lost, f.Controls)
			if complaint := w.wrong(t, f); complaint != "" {
				t.Errorf("%s: %s\n%v", a, complaint, f.Notes)
				mu.Lock()
				bad = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	row.mu.Lock()
	defer row.mu.Unlock()
	row.took = append(row.took, time.Since(begin))
	if !bad {
		row.right++
	}
}

// labRow is a lab over all its runs.
type labRow struct {
	c       labCase
	connect bool
	mu      sync.Mutex
	right   int
	took    []time.Duration
}

func (r *labRow) String() string {
	if len(r.took) == 0 {
		return "not run"
	}
	slices.Sort(r.took)
	return fmt.Sprintf("%d of %d, %.1f s", r.right, len(r.took), r.took[len(r.took)/2].Seconds())
}

// labPage is the page about all labs.
type labPage struct {
	mu   sync.Mutex
	rows map[string]map[bool]*labRow
	nmap map[string]string
}

func (p *labPage) add(r *labRow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rows == nil {
		p.rows = map[string]map[bool]*labRow{}
	}
	if p.rows[r.c.name] == nil {
		p.rows[r.c.name] = map[bool]*labRow{}
	}
	p.rows[r.c.name][r.connect] = r
}

func (p *labPage) addNmap(name, said string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nmap == nil {
		p.nmap = map[string]string{}
	}
	p.nmap[name] = said
}

// write appends the rows to the page, in the order of the labs.
func (p *labPage) write(t *testing.T, path string) {
	var b strings.Builder
	for _, c := range labCases() {
		r, ok := p.rows[c.name]
		if !ok {
			continue
		}
		raw, connect := r[false], "bare packets only"
		if x, ok := r[true]; ok {
			connect = x.String()
		}
		var addrs []string
		for _, w := range c.want {
			addrs = append(addrs, w.states)
		}
		addrs = slices.Compact(addrs)
		if len(strings.Join(addrs, "; ")) > 220 {
			addrs = []string{"see the source"}
		}
		fmt.Fprintf(&b, "| %s: %s | %s | %s | %s | %s |\n", c.name, c.what, strings.ReplaceAll(strings.Join(addrs, " / "), "|", "·"), raw.String(), connect, p.nmap[c.name])
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteString(b.String()); err != nil {
		t.Error(err)
	}
}

// differences are ports of which nmap says something else, in words.
func differences(truth, said map[string]string) (out []string) {
	for _, p := range slices.SortedFunc(maps.Keys(truth), byPort) {
		if truth[p] != said[p] {
			out = append(out, fmt.Sprintf("%s is %s, nmap: %s", p, truth[p], said[p]))
		}
	}
	return out
}

func byPort(a, b string) int {
	pa, na, _ := strings.Cut(a, "/")
	pb, nb, _ := strings.Cut(b, "/")
	x, _ := strconv.Atoi(na)
	y, _ := strconv.Atoi(nb)
	if pa != pb {
		return strings.Compare(pa, pb)
	}
	return x - y
}
