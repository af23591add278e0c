package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The page keeps what is around the marks, the table has every row, the plot is XML, and
// writing again changes nothing.
func TestWriteReach(t *testing.T) {
	var rows []reachRow
	for _, c := range reachCases {
		for _, n := range c.sizes {
			list := []sample{{wall: time.Duration(n) * 2000, cpu: time.Duration(n) * 1000, rss: int64(n)}}
			rows = append(rows, reachRow{shape: c.shape, what: c.what, n: n, dump: list, decode: list, analysis: list, verb: list, nft: list})
		}
	}
	dir := t.TempDir()
	page := filepath.Join(dir, "performance.md")
	if err := os.WriteFile(page, []byte("before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeReach(dir, rows); err == nil {
		t.Error("a page without marks was written")
	}
	if err := os.WriteFile(page, []byte("before\n"+reachBegin+"\nold\n"+reachEnd+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var last string
	for range 2 {
		if err := writeReach(dir, rows); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if last != "" && string(b) != last {
			t.Error("writing again changes the page")
		}
		last = string(b)
	}
	if !strings.HasPrefix(last, "before\n") || !strings.HasSuffix(last, "\nafter\n") || strings.Contains(last, "old") {
		t.Errorf("the page is\n%s", last)
	}
	if n := strings.Count(last, "\n| 1"); n != len(rows) {
		t.Errorf("%d rows of %d", n, len(rows))
	}
	if !strings.Contains(last, "| 1,000,000 | elements of interval sets | 2,000 (1) | 2,000 (1) | 2,000 (1) | 6,000 | 3,000 | 2,000 (1) | 3.00 |") {
		t.Errorf("the page is\n%s", last)
	}
	f, err := os.Open(filepath.Join(dir, "img", "reach-scaling.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := 0
	for d := xml.NewDecoder(f); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 2*len(reachCases) {
		t.Errorf("%d curves", lines)
	}
}
