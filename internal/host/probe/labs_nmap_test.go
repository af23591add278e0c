package probe

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// nmapWord is what nmap calls a state: it has one word for a drop and a rejection, and
// none for an address that cannot be reached.
func nmapWord(proto string, s model.State) string {
	switch s {
	case model.Rejected, model.Unreachable:
		return "filtered"
	case model.Filtered:
		if proto == "udp" {
			return "open|filtered"
		}
	}
	return string(s)
}

// runNmap asks the same lab with nmap, with bare packets and with connections, and says in
// words how it did. A difference that nobody has explained is an error.
func runNmap(t *testing.T, c labCase) string {
	l := build(t, c)
	var said []string
	differ := ""
	modes := []string{"-sS", "-sT"}
	if strings.HasPrefix(c.ports, "udp") {
		modes = []string{"-sU"}
	}
	for _, mode := range modes {
		begin := time.Now()
		wrong, ports := 0, 0
		for _, w := range c.want {
			a := w.addr(l)
			truth := map[string]string{}
			for k, s := range parsed(t, w.states) {
				proto, _, _ := strings.Cut(k, "/")
				if proto == "tcp" && mode != "-sU" || proto == "udp" && mode == "-sU" {
					truth[k] = nmapWord(proto, s)
				}
			}
			got := l.nmap(t, a, mode, truth)
			ds := differences(truth, got)
			ports += len(truth)
			if wrong += len(ds); len(ds) > 0 {
				t.Logf("%s %s: %s", mode, a, strings.Join(ds, "; "))
				if differ == "" {
					differ = ds[0]
				}
			}
		}
		said = append(said, fmt.Sprintf("%s: %d of %d ports alike, %.1f s", mode, ports-wrong, ports, time.Since(begin).Seconds()))
	}
	if differ != "" {
		if c.nmap == "" {
			t.Errorf("nmap says something else, and nobody knows why: %s", differ)
		}
		said = append(said, "e.g. "+strings.ReplaceAll(differ, "|", " or ")+": "+c.nmap)
	}
	return strings.Join(said, "; ")
}

type nmapState struct {
	State string `xml:"state,attr"`
}

// nmap asks the ports of one protocol.
func (l *lab) nmap(t *testing.T, a netip.Addr, mode string, ports map[string]string) map[string]string {
	t.Helper()
	var list model.Ports
	proto := "tcp"
	for p := range ports {
		pr, n, _ := strings.Cut(p, "/")
		x, _ := strconv.Atoi(n)
		proto = pr
		list.Add(uint16(x))
	}
	args := []string{mode, "-n", "-Pn", "-oX", "-", "-p", list.List()}
	if !a.Is4() {
		args = append(args, "-6")
	}
	c := l.client.Command(testlab.RequireTool(t, "nmap"), append(args, a.String())...)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("nmap %v: %v\n%s", args, err, out)
	}
	var doc struct {
		Hosts []struct {
			Status nmapState `xml:"status"`
			Ports  struct {
				Extra []struct {
					nmapState
					Reasons []struct {
						Ports string `xml:"ports,attr"`
					} `xml:"extrareasons"`
				} `xml:"extraports"`
				Port []struct {
					ID    string    `xml:"portid,attr"`
					State nmapState `xml:"state"`
				} `xml:"port"`
			} `xml:"ports"`
		} `xml:"host"`
	}
	if err := xml.NewDecoder(bytes.NewReader(out)).Decode(&doc); err != nil {
		t.Fatalf("nmap: %v\n%s", err, out)
	}
	got := map[string]string{}
	for _, h := range doc.Hosts {
		for _, e := range h.Ports.Extra {
			for _, r := range e.Reasons {
				var in model.Ports
				if err := in.AddList(r.Ports); err != nil {
					t.Fatalf("nmap: %v\n%s", err, out)
				}
				for p := range in.All {
					got[proto+"/"+strconv.Itoa(int(p))] = e.State
				}
			}
		}
		for _, p := range h.Ports.Port {
			got[proto+"/"+p.ID] = p.State.State
		}
	}
	if len(got) == 0 { // "host down": it asked the neighbour, -Pn or not
		for p := range ports {
			got[p] = "filtered"
		}
	}
	return got
}
