package bench

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/testlab"
)

// verifyLab is a host behind a filter that drops, and who asks it over one link.
type verifyLab struct {
	asker  *testlab.NS
	bin    string
	target [2]string // over IPv4, over IPv6
}

// Ports that the filter lets in, and of those the ones where something listens.
const (
	verifyAccepted  = "22, 80, 443, 8443, 50000"
	verifyListening = "22 80 443 50000"
)

func newVerifyLab(b *testing.B) *verifyLab {
	b.Helper()
	l := &verifyLab{asker: testlab.NewNS(b, "va"), bin: build(b), target: [2]string{"192.0.2.2", "2001:db8::2"}}
	host := testlab.NewNS(b, "vh")
	testlab.Link(l.asker, "eth0", host, "eth0")
	for ns, n := range map[*testlab.NS]string{l.asker: "1", host: "2"} {
		ns.IP("link", "set", "lo", "up")
		ns.IP("addr", "add", "192.0.2."+n+"/24", "dev", "eth0")
		ns.IP("addr", "add", "2001:db8::"+n+"/64", "dev", "eth0", "nodad")
	}
	file := filepath.Join(b.TempDir(), "rules.nft")
	rules := "table inet filter {\n chain input {\n  type filter hook input priority 0; policy drop;\n" +
		"  icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, echo-request } accept\n  icmp type echo-request accept\n" +
		"  tcp dport { " + verifyAccepted + " } accept\n }\n}\n"
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		b.Fatal(err)
	}
	host.Run(testlab.RequireTool(b, "nft"), "-f", file)
	for _, p := range strings.Fields(verifyListening) {
		hold(b, host, p+"+1@::")
	}
	return l
}

// run is a command of the asker, with its output and its own peak memory.
func (l *verifyLab) run(b *testing.B, user bool, name string, args ...string) (sample, []byte) {
	b.Helper()
	dir := b.TempDir()
	peakFile, out := filepath.Join(dir, "peak"), filepath.Join(dir, "out")
	// The user's program is opened by the user: its directories must let it.
	argv := append([]string{"-o", peakFile, "-f", "%M", name}, args...)
	if user {
		argv = append([]string{"-o", peakFile, "-f", "%M", testlab.RequireTool(b, "setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups", name}, args...)
	}
	c := l.asker.Command(testlab.RequireTool(b, "time"), argv...)
	f, err := os.Create(out)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	c.Stdout = f
	s := measureCommand(b, c)
	text, err := os.ReadFile(peakFile)
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text))
	if len(fields) == 0 {
		b.Fatalf("no peak memory of %s", name)
	}
	if s.rss, err = strconv.ParseInt(fields[len(fields)-1], 10, 64); err != nil {
		b.Fatal(err)
	}
	result, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	return s, result
}

// states are the ports that are not filtered, and how many are.
type states struct {
	filtered int
	others   map[int]string
}

func (s states) String() string {
	var list []string
	for _, p := range slices.Sorted(maps.Keys(s.others)) {
		list = append(list, fmt.Sprintf("%d %s", p, s.others[p]))
	}
	return fmt.Sprintf("%s, %d filtered", strings.Join(list, ", "), s.filtered)
}

func ofSixfence(b *testing.B, text []byte) states {
	b.Helper()
	var doc struct {
		Results []struct {
			Proto, State string
			Port         int
		} `json:"results"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		b.Fatalf("%v: %.300s", err, text)
	}
	s := states{others: map[int]string{}}
	for _, r := range doc.Results {
		if r.Proto != "tcp" {
			continue
		}
		if r.State == "filtered" {
			s.filtered++
		} else {
			s.others[r.Port] = r.State
		}
	}
	return s
}

func ofNmap(b *testing.B, text []byte) states {
	b.Helper()
	type state struct {
		State string `xml:"state,attr"`
	}
	var doc struct {
		Host []struct {
			Extra []struct {
				state
				Count int `xml:"count,attr"`
			} `xml:"ports>extraports"`
			Ports []struct {
				ID    int   `xml:"portid,attr"`
				State state `xml:"state"`
			} `xml:"ports>port"`
		} `xml:"host"`
	}
	if err := xml.Unmarshal(text, &doc); err != nil || len(doc.Host) != 1 {
		b.Fatalf("%v, %d hosts: %.300s", err, len(doc.Host), text)
	}
	s := states{others: map[int]string{}}
	for _, e := range doc.Host[0].Extra {
		if e.State == "filtered" {
			s.filtered += e.Count
		}
	}
	for _, p := range doc.Host[0].Ports {
		if p.State.State == "filtered" {
			s.filtered++
		} else {
			s.others[p.ID] = p.State.State
		}
	}
	return s
}

// verifyCase is a row: a program with its arguments before the target.
type verifyCase struct {
	name  string
	nmap  bool
	user  bool
	ports int
	args  []string
	once  bool // it takes minutes
}

// BenchmarkVerify asks every TCP port of a host whose filter drops, over both families, as
// sixfence and as nmap do it, and writes a table when SIXFENCE_BENCH_DOC names docs/.
func BenchmarkVerify(b *testing.B) {
	l := newVerifyLab(b)
	nmap := testlab.RequireTool(b, "nmap")
	// An ordinary user must be able to run the binary.
	public := filepath.Join(os.TempDir(), "sixfence-bench-"+strconv.Itoa(os.Getpid()))
	b.Cleanup(func() { _ = os.Remove(public) })
	if out, err := exec.Command("install", "-m", "0755", l.bin, public).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	l.bin = public
	runs, err := strconv.Atoi(cmp.Or(os.Getenv("SIXFENCE_BENCH_RUNS"), "5"))
	if err != nil || runs < 1 {
		b.Fatalf("SIXFENCE_BENCH_RUNS: %v", err)
	}
	cases := []verifyCase{
		{name: "`sixfence verify --rate 400000`", args: []string{"--rate", "400000"}, ports: 65535},
		{name: "`sixfence verify` (50,000 a second)", ports: 65535},
		{name: "`sixfence verify --rate 20000`", args: []string{"--rate", "20000"}, ports: 65535},
		{name: "`nmap -sS -T5 --min-rate 20000 --max-retries 1`", nmap: true, args: []string{"-sS", "-T5", "--min-rate", "20000", "--max-retries", "1"}, ports: 65535},
		{name: "`nmap -sS`", nmap: true, args: []string{"-sS"}, ports: 65535, once: true},
		{name: "`sixfence verify`, an ordinary user", user: true, ports: 1000},
		{name: "`nmap -sT`, an ordinary user", nmap: true, user: true, args: []string{"--unprivileged", "-sT"}, ports: 1000},
		{name: "`sixfence verify` (50,000 a second)", ports: 10000},
		{name: "`sixfence verify` (50,000 a second)", ports: 1000},
	}
	var rows []string
	for _, c := range cases {
		row := fmt.Sprintf("| %s | %s |", c.name, thousands(c.ports))
		var peakOf int64
		var seen []string
		for fam, target := range l.target {
			b.Run(fmt.Sprintf("%s/ports=%d/%s", strings.Trim(strings.ReplaceAll(c.name, "`", ""), " "), c.ports, []string{"ipv4", "ipv6"}[fam]), func(b *testing.B) {
				var list []sample
				for range map[bool]int{true: 1, false: runs}[c.once] {
					name, args := l.bin, append([]string{"verify", target, "--quiet", "--format", "json", "--ports", fmt.Sprintf("tcp/1-%d", c.ports)}, c.args...)
					if c.nmap {
						name, args = nmap, append([]string{"-n", "-Pn", "-oX", "-", "-p", fmt.Sprintf("1-%d", c.ports)}, c.args...)
						if fam == 1 {
							args = append(args, "-6")
						}
						args = append(args, target)
					}
					s, out := l.run(b, c.user, name, args...)
					list = append(list, s)
					if c.nmap {
						seen = append(seen, ofNmap(b, out).String())
					} else {
						seen = append(seen, ofSixfence(b, out).String())
					}
				}
				peakOf = max(peakOf, of(list, peak))
				report(b, list)
				row += fmt.Sprintf(" %.2f s |", float64(of(list, wall))/1e9)
			})
		}
		slices.Sort(seen)
		rows = append(rows, row+fmt.Sprintf(" %d | %s |", peakOf>>10, strings.Join(slices.Compact(seen), "; or ")))
	}
	if dir := os.Getenv("SIXFENCE_BENCH_DOC"); dir != "" && len(rows) == len(cases) {
		text := machine() + fmt.Sprintf(". Medians of %d (`nmap -sS`: one run).", runs) + "\n\n| command | TCP ports | IPv4 | IPv6 | MB | states |\n|---|---|---|---|---|---|\n" + strings.Join(rows, "\n") + "\n"
		if err := writeBetween(filepath.Join(dir, "performance.md"), "make bench-verify", text); err != nil {
			b.Fatal(err)
		}
	}
}
