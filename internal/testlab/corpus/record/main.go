// Command record turns what a recipe of the corpus left behind into a file of its
// testdata: the Snapshot of the one namespace, and the rules as text.
//
//	record DIRECTORY RECIPE TESTDATA
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab/corpus"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: record DIRECTORY RECIPE TESTDATA")
		os.Exit(2)
	}
	if err := record(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func record(dir, recipe, out string) error {
	snap, err := os.ReadFile(filepath.Join(dir, "snapshot.json"))
	if err != nil {
		return err
	}
	s, err := store.ReadSnapshot(bytes.NewReader(snap), "snapshot.json", 0)
	if err != nil {
		return err
	}
	e := corpus.Entry{Name: strings.TrimSuffix(filepath.Base(recipe), ".sh")}
	text, err := os.ReadFile(recipe)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "# what: "); ok {
			e.What = v
		}
		if v, ok := strings.CutPrefix(line, "# tool: "); ok {
			e.Tool = v
		}
	}
	version, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil {
		return err
	}
	e.Version = strings.TrimSpace(string(version))
	if e.Snapshot, err = prune(s); err != nil {
		return err
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	rules, err := rulesText(dir, e)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, e.Name+".json.gz"), z.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Printf("   %s: %d bytes, %d of text\n", e.Name, z.Len(), len(rules))
	return os.WriteFile(filepath.Join(out, e.Name+".rules"), rules, 0o644)
}

// prune keeps the namespace of the recipe and what its analysis asks the host.
func prune(s *fact.Snapshot) (*fact.Snapshot, error) {
	var own *fact.Namespace
	for i := range s.Namespaces {
		if n := &s.Namespaces[i]; n.IsSelf || n.IsInit {
			own = n
		}
	}
	if own == nil {
		return nil, errors.New("the snapshot does not hold its own namespace")
	}
	n := *own
	n.Name, n.Paths = "host", nil
	n.Owner, n.Neighbours, n.ProxyNeighbours, n.NeighbourTable, n.Multicast = fact.Known[fact.UserNS]{}, fact.Known[[]fact.Neighbour]{}, fact.Known[[]fact.Neighbour]{}, fact.Known[fact.NeighbourTable]{}, fact.Known[[]fact.Membership]{}
	if t, ok := n.Sysctls.Get(); ok {
		n.Sysctls = fact.Value(keep(t))
	}
	if socks, ok := n.Sockets.Get(); ok {
		for i := range socks {
			socks[i].Owners = fact.Known[[]int]{}
		}
		n.Sockets = fact.Value(socks)
	}
	out := &fact.Snapshot{SchemaVersion: s.SchemaVersion, Namespaces: []fact.Namespace{n}}
	out.Host.Kernel, out.Host.ByteOrder, out.Host.WordSize, out.Host.Mode = s.Host.Kernel, s.Host.ByteOrder, s.Host.WordSize, s.Host.Mode
	out.Host.BPF.NetfilterLinks = fact.Value([]fact.NetfilterLink{})
	return out, nil
}

// keep is the settings that decide about packets.
func keep(t fact.Sysctls) fact.Sysctls {
	out := fact.Sysctls{Values: map[string]string{}}
	for k, v := range t.Values {
		switch k[strings.LastIndexByte(k, '/')+1:] {
		case "rp_filter", "forwarding", "ip_forward", "disable_ipv6", "accept_local", "route_localnet", "accept_ra", "bridge-nf-call-iptables", "bridge-nf-call-ip6tables",
			"nf_conntrack_tcp_loose", "nf_conntrack_helper", "bindv6only", "tcp_l3mdev_accept", "udp_l3mdev_accept":
			out.Values[k] = v
		}
	}
	return out
}

// rulesText is what the tools print, in one file.
func rulesText(dir string, e corpus.Entry) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s: %s\n# made by: %s (%s)\n", e.Name, e.What, e.Tool, e.Version)
	for _, f := range []string{"ipset.txt", "nft.txt", "iptables-nft.txt", "ip6tables-nft.txt", "iptables-legacy.txt", "ip6tables-legacy.txt"} {
		text, err := os.ReadFile(filepath.Join(dir, f))
		if errors.Is(err, fs.ErrNotExist) || len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "\n# %s\n", strings.TrimSuffix(f, ".txt"))
		for line := range strings.Lines(string(text)) {
			b.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
	}
	return b.Bytes(), nil
}
