package cli

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/logic/target"
	"github.com/sixfence/sixfence/internal/surface/report"
)

type targetsOptions struct {
	snapshot, format, output, netns, family, zone string
	quiet, noColor                                bool
}

// targetFormats are those of scanners.
var targetFormats = []string{"text", "json", "nmap", "nuclei", "gvm", "gvm-xml"}

func (a *app) targetsCommand() *cobra.Command {
	var o targetsOptions
	cmd := &cobra.Command{
		Use:   "targets",
		Short: "List the addresses of a host for a scanner",
		Long: "targets prints every IPv6 address of this host, or of the host of a Snapshot, as\n" +
			"scanners take them: an IPv6 network cannot be searched, so a scanner has to be told.\n\n" +
			"Left out, and counted on standard error: loopback, addresses that are not in use\n" +
			"(tentative, duplicate, of an interface that is down), IPv4-mapped ones, those of\n" +
			"other network namespaces (--netns), and link-local ones unless --zone names the\n" +
			"interface of the scanner's host. Temporary and deprecated addresses are targets:\n" +
			"they answer. Prefixes that a local route makes the host answer for are named. json\n" +
			"has everything, and why it is left out.",
		Example: "  sudo sixfence targets --format nmap > web1.txt; nmap -6 -iL web1.txt\n" +
			"  sixfence targets --snapshot web1.json --format nuclei --family both | nuclei\n" +
			"  gvm-cli socket --xml \"$(sixfence targets --snapshot web1.json --format gvm-xml)\"",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			code, err := a.targetList(o)
			a.code = code
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.snapshot, "snapshot", "", "list the addresses in the Snapshot `FILE` (- is standard input)")
	f.StringVar(&o.family, "family", "ipv6", "`FAMILY` to list: ipv6, ipv4 or both")
	f.StringVar(&o.netns, "netns", "", "the network namespace `NAME`, or all; by default the host's own")
	f.StringVar(&o.zone, "zone", "", "list link-local addresses, too, by this `INTERFACE` of the scanner's host")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no notes on standard error")
	outputFlags(cmd, &o.format, &o.output, &o.noColor)
	f.Lookup("format").Usage = "output `FORMAT`: text, json, nmap (-iL), nuclei (-l), gvm (a list for OpenVAS), gvm-xml (create_target)"
	completeWords(cmd, "format", targetFormats...)
	completeWords(cmd, "family", "ipv6", "ipv4", "both")
	return cmd
}

func (a *app) targetList(o targetsOptions) (int, error) {
	if o.quiet {
		a.logger(slog.LevelError)
	}
	switch o.family {
	case "ip":
		o.family = "ipv4"
	case "ip6":
		o.family = "ipv6"
	}
	if err := oneOf("--format", o.format, targetFormats...); err != nil {
		return exitUsage, err
	}
	if err := oneOf("--family", o.family, "ipv6", "ipv4", "both"); err != nil {
		return exitUsage, err
	}
	if o.format == "nmap" && o.family == "both" {
		return exitUsage, &usageError{msg: "nmap asks one family a run", hint: "write two lists: --family ipv6 for nmap -6, --family ipv4 for nmap"}
	}
	if z := o.zone; z != "" && (len(z) > 15 || strings.ContainsFunc(z, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/%,<>&\"'#", r) })) {
		return exitUsage, &usageError{msg: fmt.Sprintf("--zone %q is no interface", z), hint: "name one of the host that scans, as in --zone eth0"}
	}
	if o.zone != "" && (o.format == "nuclei" || strings.HasPrefix(o.format, "gvm")) {
		return exitUsage, &usageError{msg: "--format " + o.format + " has no zones", hint: "link-local addresses are for nmap: --format nmap"}
	}
	out, err := a.open(o.output)
	if err != nil {
		return exitUsage, err
	}
	snap, err := a.facts(source{snapshot: o.snapshot}, out.file, o.quiet)
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	all, gaps, found := target.Of(snap, target.Options{NetNS: o.netns, LinkLocal: o.zone != ""})
	if !found {
		out.abort()
		var names []string
		for _, n := range snap.Namespaces {
			names = append(names, n.Name)
		}
		return exitUsage, &usageError{msg: fmt.Sprintf("there is no network namespace %q", o.netns), hint: "one of: " + strings.Join(slices.Compact(append(names[:min(len(names), 20)], target.All)), ", ")}
	}
	prefixes := slices.DeleteFunc(target.Prefixes(snap, target.Options{NetNS: o.netns}), func(p netip.Prefix) bool { return o.family != "both" && p.Addr().Is4() != (o.family == "ipv4") })
	ts := slices.DeleteFunc(all, func(t target.Target) bool { return o.family != "both" && t.Family != o.family })
	list := addresses(ts, o.zone)
	name := snap.Host.Hostname.Or("")
	if err := out.write(func(w io.Writer) error {
		switch o.format {
		case "json":
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			e.SetEscapeHTML(false)
			for i := range ts {
				ts[i].NetNS, ts[i].Interface = report.Clean(ts[i].NetNS), report.Clean(ts[i].Interface)
			}
			return e.Encode(target.Document{SchemaVersion: target.Version, Host: report.Clean(name), Targets: ts, Prefixes: prefixes})
		case "text":
			return targetsText(w, ts)
		}
		_, err := io.WriteString(w, scannerList(o.format, report.Clean(name), list))
		return err
	}); err != nil {
		return exitUsage, err
	}
	if h := snap.Home(); o.netns == "" && h != nil && !h.IsSelf && !h.IsInit {
		a.log.Warn("the Snapshot does not say which network namespace is the host's own; the first is taken", "netns", h.Name)
	}
	if len(prefixes) > 0 {
		a.log.Warn("a local route makes the host answer for whole prefixes, whose addresses cannot be listed", "prefixes", prefixes)
	}
	if strings.HasPrefix(o.format, "gvm") && len(list) > maxHosts {
		a.log.Warn("OpenVAS takes no more hosts than this in one target, unless its --max-ips-per-target says otherwise", "hosts", maxHosts, "here", len(list))
	}
	a.targetNotes(ts, gaps, o)
	if len(gaps) > 0 {
		return exitUnknown, nil
	}
	if len(list) == 0 && o.format != "json" && o.format != "text" {
		return exitUnknown, nil // an empty list scans nothing, and looks like a clean host
	}
	return exitClean, nil
}

// maxHosts is what gvmd takes as one target.
const maxHosts = 4095

// addresses are those to be asked, each once.
func addresses(ts []target.Target, zone string) []netip.Addr {
	var out []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, t := range ts {
		x := t.Address
		if t.Scope == "link-local" && x.Is6() {
			x = x.WithZone(zone)
		}
		if t.Excluded == "" && !seen[x] {
			seen[x] = true
			out = append(out, x)
		}
	}
	return out
}

// scannerList writes addresses as a scanner reads them.
func scannerList(format, host string, as []netip.Addr) string {
	var b strings.Builder
	var words []string
	for _, x := range as {
		w := x.String()
		if format == "nuclei" && x.Is6() {
			w = "[" + w + "]" // the host of a URL
		}
		words = append(words, w)
	}
	switch {
	case len(words) == 0:
	case format == "gvm":
		b.WriteString(strings.Join(words, ",") + "\n")
	case format == "gvm-xml":
		b.WriteString("<create_target><name>")
		_ = xml.EscapeText(&b, []byte("sixfence "+host)) // a Builder takes everything
		b.WriteString("</name><hosts>" + strings.Join(words, ",") + "</hosts><port_range>T:1-65535</port_range></create_target>\n")
	default:
		b.WriteString(strings.Join(words, "\n") + "\n")
	}
	return b.String()
}

func targetsText(w io.Writer, ts []target.Target) error {
	var b strings.Builder
	rows := [][]string{{"ADDRESS", "SCOPE", "INTERFACE", "NAMESPACE", "NOTES"}}
	for _, t := range ts {
		if t.Excluded == "namespace" {
			continue
		}
		notes := slices.Clone(t.Labels)
		if t.ValidSeconds > 0 {
			notes = append(notes, fmt.Sprintf("for %d s", t.ValidSeconds))
		}
		if t.Excluded != "" {
			notes = append(notes, "left out: "+t.Excluded)
		}
		rows = append(rows, []string{t.Address.String(), t.Scope, report.Clean(t.Interface), report.Clean(t.NetNS), strings.Join(notes, ", ")})
	}
	var widths [5]int
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], report.Width(c))
		}
	}
	for _, r := range rows {
		line := ""
		for i, c := range r {
			line += c + strings.Repeat(" ", widths[i]-report.Width(c)+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (a *app) targetNotes(ts []target.Target, gaps []string, o targetsOptions) {
	for _, g := range gaps {
		a.log.Warn("the addresses of a namespace are not known", "netns", g)
	}
	if o.format == "json" {
		return
	}
	n := map[string]int{}
	for _, t := range ts {
		n[t.Excluded]++
	}
	for _, x := range []struct{ why, text string }{
		{"namespace", "other network namespaces (--netns all)"},
		{"link-local", "link-local addresses (--format nmap --zone IF)"},
		{"tentative", "tentative"},
		{"duplicate", "duplicates of somebody else's"},
		{"interface-down", "interfaces that are down"},
		{"mapped", "IPv4-mapped, which are asked over IPv4"},
		{"no-address", "no address of one host: the Snapshot is damaged"},
	} {
		if n[x.why] > 0 && (x.why == "namespace" || o.format != "text") {
			a.log.Warn("left out: "+x.text, "addresses", n[x.why])
		}
	}
	if n[""] == 0 {
		a.log.Warn("no address is left for a scanner")
	}
}
