package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reachRow is what was measured of one ruleset.
type reachRow struct {
	shape, what                       string
	n                                 int
	dump, decode, analysis, verb, nft []sample
}

// three is dump, decoding and analysis together.
func (r *reachRow) three(by func(sample) int64) int64 {
	return of(r.dump, by) + of(r.decode, by) + of(r.analysis, by)
}

// Marks of the part of docs/performance.md that is written here.
const (
	reachBegin = "<!-- written by make bench-reach: begin -->"
	reachEnd   = "<!-- written by make bench-reach: end -->"
)

// writeBetween puts a text between the marks of whoever writes it, and keeps the rest of
// the page.
func writeBetween(page, by, text string) error {
	begin, end := "<!-- written by "+by+": begin -->", "<!-- written by "+by+": end -->"
	old, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("write table: %s has not the lines %q and %q", page, begin, end)
	}
	if err := os.WriteFile(page, []byte(before+begin+"\n"+text+end+after), 0o644); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// writeReach puts a table into performance.md, and a plot beside it.
func writeReach(dir string, rows []reachRow) error {
	if err := writeBetween(filepath.Join(dir, "performance.md"), "make bench-reach", reachTable(rows)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "img"), 0o755); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "img", "reach-scaling.svg"), []byte(reachPlot(rows)), 0o644); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}

// machine says where the numbers are from.
func machine() string {
	var u unix.Utsname
	kernel := "?"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
		if a := strings.SplitN(kernel, ".", 3); len(a) > 1 {
			kernel = a[0] + "." + strings.TrimRight(a[1], "-+abcdefghijklmnopqrstuvwxyz")
		}
	}
	cpu := "?"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == "model name" {
				cpu = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s", runtime.NumCPU(), cpu, kernel, time.Now().UTC().Format(time.DateOnly))
}

func reachTable(rows []reachRow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. Milliseconds by the clock, medians of %d (of fewer where one took long: then the number is in brackets); CPU is that of the three\n", machine(), reachRuns)
	b.WriteString("parts before it. MB is the peak resident size.\n\n")
	b.WriteString("| n | of what | dump | decoding | analysis | the three | CPU | nft | ratio | the whole verb, JSON | MB, verb | MB, nft |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for i := range rows {
		r := &rows[i]
		fmt.Fprintf(&b, "| %s | %s |", thousands(r.n), r.what)
		for _, list := range [][]sample{r.dump, r.decode, r.analysis} {
			fmt.Fprintf(&b, " %s |", cell(list))
		}
		three, nft := r.three(wall), of(r.nft, wall)
		fmt.Fprintf(&b, " %s | %s | %s | %.2f | %s | %d | %d |\n", short(three), short(r.three(used)), cell(r.nft), float64(three)/float64(nft), cell(r.verb),
			of(r.verb, peak)>>10, of(r.nft, peak)>>10)
	}
	b.WriteString("\n![Analysis and nft list ruleset by size, both axes logarithmic](img/reach-scaling.svg)\n")
	return b.String()
}

func cell(list []sample) string {
	s := short(of(list, wall))
	if len(list) < reachRuns {
		s += fmt.Sprintf(" (%d)", len(list))
	}
	return s
}

// short is a time in milliseconds with two digits that mean something.
func short(d int64) string {
	if x := ms(time.Duration(d)); x < 10 {
		return fmt.Sprintf("%.1f", x)
	}
	return thousands(int(ms(time.Duration(d)) + 0.5))
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// reachPlot draws analysis (a line) and nft (dashes) of every shape, both axes logarithmic.
func reachPlot(rows []reachRow) string {
	const width, height, left, top, right, bottom = 760, 480, 70, 40, 200, 50
	const minX, maxX, minY, maxY = 3, 6, 0, 5 // powers of ten: numbers, milliseconds
	x := func(n int) float64 {
		return left + (math.Log10(float64(n))-minX)/(maxX-minX)*(width-left-right)
	}
	y := func(d int64) float64 {
		v := min(max(math.Log10(ms(time.Duration(d))), minY), maxY)
		return height - bottom - (v-minY)/(maxY-minY)*(height-top-bottom)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="14">Analysis of 50 listeners over both families (lines) and nft list ruleset (dashes)</text>`+"\n", left)
	for p := minX; p <= maxX; p++ {
		at := x(int(math.Pow10(p)))
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", at, top, at, height-bottom, at, height-bottom+18, thousands(int(math.Pow10(p))))
	}
	for p := minY; p <= maxY; p++ {
		at := y(int64(math.Pow10(p)) * int64(time.Millisecond))
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left, at, width-right, at, left-6, at+4, time.Duration(math.Pow10(p))*time.Millisecond)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">rules, or elements of sets</text>`+"\n", left+(width-left-right)/2, height-12)
	colours := []string{"#1b6ca8", "#c0392b", "#27864a", "#8e44ad", "#b9770e", "#34495e"}
	for i, c := range reachCases {
		colour := colours[i%len(colours)]
		for _, line := range []struct {
			dash string
			of   func(*reachRow) int64
		}{{"", func(r *reachRow) int64 { return of(r.analysis, wall) }}, {` stroke-dasharray="5 4"`, func(r *reachRow) int64 { return of(r.nft, wall) }}} {
			var points []string
			for k := range rows {
				if r := &rows[k]; r.shape == c.shape {
					points = append(points, fmt.Sprintf("%.1f,%.1f", x(r.n), y(line.of(r))))
					if line.dash == "" {
						fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(r.n), y(line.of(r)), colour)
					}
				}
			}
			if len(points) > 0 {
				fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.6"%s/>`+"\n", strings.Join(points, " "), colour, line.dash)
			}
		}
		at := top + 14 + 22*i
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="2"/><text x="%d" y="%d">%s</text>`+"\n", width-right+15, at-4, width-right+40, at-4, colour, width-right+46, at, legend[c.shape])
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// legend says a shape in few words.
var legend = map[string]string{
	"srcport": "prefix and port, a chain", "block": "blocked hosts, a chain", "mixed": "accept, drop in turn",
	"chains": "many chains", "set": "interval sets", "concset": "concatenated sets",
}
