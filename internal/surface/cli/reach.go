package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/surface/report"
)

type reachOptions struct {
	rules          rulesOptions
	format, output string
	port, from, to string
	quiet, noColor bool
}

// flags are those of reach and of reach diff.
func (o *reachOptions) flags(cmd *cobra.Command, verb string) {
	f := cmd.Flags()
	f.StringVar(&o.port, "port", "", "only this `PORT`: 22 or tcp/22")
	o.rules.flags(cmd, verb)
	outputFlags(cmd, &o.format, &o.output, &o.noColor)
}

func (a *app) reachCommand() *cobra.Command {
	var o reachOptions
	cmd := &cobra.Command{
		Use:   "reach",
		Short: "Say who can reach which port, IPv4 beside IPv6",
		Long: "reach reads the packet filter and the listeners of this host and says, for every\n" +
			"listener, which sources get in over IPv4 and over IPv6, by which rule, with a packet\n" +
			"to show for it. What it does not understand is never called open or closed.",
		Example: "  sudo sixfence reach\n" +
			"  sudo sixfence reach --port tcp/22 --from 2001:db8::/32\n" +
			"  sixfence reach --snapshot host.json --format json\n" +
			"  sixfence reach diff before.json after.json",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			code, err := a.reach(o)
			a.code = code
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "only sources in this `PREFIX`")
	f.StringVar(&o.to, "to", "", "only destinations in this `PREFIX`")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "the matrix only, and no notes")
	o.flags(cmd, "read")
	cmd.AddCommand(a.reachDiffCommand())
	return cmd
}

// reachFilter is what --port, --from, --to and --netns ask for.
type reachFilter struct {
	proto    string
	port     uint16
	from, to netip.Prefix
}

func (o *reachOptions) filter() (f reachFilter, err error) {
	if o.port != "" {
		proto, num, both := strings.Cut(o.port, "/")
		if !both {
			proto, num = "", o.port
		}
		n, err := strconv.ParseUint(num, 10, 16)
		if err != nil || n == 0 || both && proto != "tcp" && proto != "udp" && proto != "sctp" && proto != "udplite" {
			return f, &usageError{msg: fmt.Sprintf("--port %q is no port", o.port), hint: "22, tcp/22 or udp/53"}
		}
		f.proto, f.port = proto, uint16(n)
	}
	for _, x := range []struct {
		flag, v string
		to      *netip.Prefix
	}{{"--from", o.from, &f.from}, {"--to", o.to, &f.to}} {
		if x.v == "" {
			continue
		}
		p, err := netip.ParsePrefix(x.v)
		if a, err2 := netip.ParseAddr(x.v); err2 == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return f, &usageError{msg: x.flag + " " + strconv.Quote(x.v) + " is no prefix", hint: "2001:db8::/32 or 192.0.2.7"}
		}
		*x.to = p.Masked()
	}
	return f, nil
}

func (f *reachFilter) keep(l *reach.Listener) bool {
	return (f.port == 0 || l.Port == f.port) && (f.proto == "" || l.Proto == f.proto)
}

// narrow keeps what --from and --to ask about.
func (f *reachFilter) narrow(vs []reach.V, is4 bool) []reach.V {
	out := []reach.V{}
	for _, v := range vs {
		if f.to.IsValid() {
			v.Daddr = slices.DeleteFunc(slices.Clone(v.Daddr), func(d netip.Prefix) bool { return !f.to.Overlaps(d) })
			if len(v.Daddr) == 0 {
				continue
			}
		}
		if f.from.IsValid() {
			if f.from.Addr().Is4() != is4 {
				continue
			}
			only := packetset.Set{packetset.PrefixInterval(f.from)}
			must, may := setOf(v.Must).Intersect(only), setOf(v.May).Intersect(only)
			v.Must, v.May = nonNil(must.Prefixes(is4)), nonNil(may.Prefixes(is4))
			switch {
			case len(may) == 0:
				v.Sources = "nobody"
			case slices.Equal(must, may):
				v.Sources = reach.Describe(must, only, is4)
			default:
				v.Sources = "perhaps " + reach.Describe(may, only, is4)
			}
		}
		out = append(out, v)
	}
	return out
}

func nonNil(p []netip.Prefix) []netip.Prefix {
	if p == nil {
		return []netip.Prefix{}
	}
	return p
}

func setOf(ps []netip.Prefix) packetset.Set {
	var ivs []packetset.Interval
	for _, p := range ps {
		ivs = append(ivs, packetset.PrefixInterval(p))
	}
	return packetset.Normalise(ivs)
}

func (a *app) reach(o reachOptions) (int, error) {
	if o.quiet {
		a.logger(slog.LevelError)
	}
	if err := oneOf("--format", o.format, "text", "json"); err != nil {
		return exitUsage, err
	}
	if err := o.rules.check(); err != nil {
		return exitUsage, err
	}
	flt, err := o.filter()
	if err != nil {
		return exitUsage, err
	}
	out, err := a.open(o.output)
	if err != nil {
		return exitUsage, err
	}
	sp, err := a.rules(o.rules, out.file, o.quiet)
	if err != nil {
		out.abort()
		return exitUsage, err
	}
	if o.rules.netns != "" {
		if _, err := sp.get(o.rules.netns); err != nil {
			out.abort()
			return exitUsage, err
		}
	}
	doc, view := sp.analyse(o.rules.netns, flt)
	if err := out.write(func(w io.Writer) error {
		if o.format == "json" {
			return writeDocument(w, &doc)
		}
		return view.text(w, doc, o.quiet)
	}); err != nil {
		return exitUsage, err
	}
	return exitClean, nil
}

// reachView is what the text needs besides the document.
type reachView struct {
	loopbacks map[string]bool // netns + interface
	many      bool
}

// analyse answers for the namespaces asked for.
func (s *spaces) analyse(netns string, flt reachFilter) (reach.Document, reachView) {
	doc := reach.Document{SchemaVersion: reach.DocumentVersion, Listeners: []reach.Listener{}, Flows: []reach.Flow{}, Lint: []reach.Lint{}, Gaps: []reach.DocumentGap{}}
	view := reachView{loopbacks: map[string]bool{}}
	for _, n := range s.notes {
		doc.Gaps = append(doc.Gaps, reach.DocumentGap{ID: gapID(n, ""), Reason: fact.NotCollected, What: n, NetNS: netns})
	}
	if s.only != nil {
		s.named(&doc, flt)
		doc.Flows = append(doc.Flows, flt.outbound(s.only.Outbound())...)
		doc.Lint = append(doc.Lint, s.only.Lint()...)
		clean(&doc)
		return doc, view
	}
	view.many = len(s.all) > 1
	neighbours := s.others()
	for _, n := range s.all {
		if netns != "" && n.Name != netns {
			continue
		}
		sp, err := s.get(n.Name)
		if err != nil {
			continue
		}
		links, _ := n.Links.Get()
		for _, l := range links {
			if l.Flags&8 != 0 {
				view.loopbacks[report.Clean(n.Name)+" "+report.Clean(l.Name)] = true
			}
		}
		sp.Others = neighbours
		r := sp.Analyse(flt.keep)
		for _, l := range r.Listeners {
			l.IPv4, l.IPv6 = flt.narrow(l.IPv4, true), flt.narrow(l.IPv6, false)
			doc.Listeners = append(doc.Listeners, l)
		}
		for _, f := range r.Flows {
			if f.Kind == reach.FlowOutbound {
				continue
			}
			if flt.port != 0 && f.Port != flt.port || flt.proto != "" && f.Proto != flt.proto {
				continue
			}
			f.IPv4, f.IPv6 = flt.narrow(f.IPv4, true), flt.narrow(f.IPv6, false)
			doc.Flows = append(doc.Flows, f)
		}
		doc.Flows = append(doc.Flows, flt.outbound(r.Flows)...)
		doc.Lint = append(doc.Lint, r.Lint...)
		for _, g := range r.Gaps[n.Name] {
			doc.Gaps = append(doc.Gaps, reach.DocumentGap{ID: gapID(g.What, n.Name), Reason: g.Reason, What: g.What, NetNS: n.Name})
		}
	}
	clean(&doc)
	return doc, view
}

// maxOthers bounds the namespaces that flows are followed into.
const maxOthers = 256

// others are all namespaces, for those that forward to them.
func (s *spaces) others() []*reach.Space {
	var out []*reach.Space
	for i, n := range s.all {
		if i == maxOthers {
			break
		}
		if sp, err := s.get(n.Name); err == nil {
			out = append(out, sp)
		}
	}
	return out
}

// named answers for the ports that a ruleset without a host names.
func (s *spaces) named(doc *reach.Document, flt reachFilter) {
	starts, whole := s.only.PortStarts()
	if flt.port != 0 {
		starts = []uint16{flt.port}
	} else if !whole {
		what := "ports besides those listed: rules tell them apart by a mask, or beside another field (--port asks about one)"
		doc.Gaps = append(doc.Gaps, reach.DocumentGap{ID: gapID(what, s.only.Name), Reason: fact.UnsupportedGap, What: what, NetNS: s.only.Name})
	}
	for _, proto := range []string{"tcp", "udp"} {
		if flt.proto != "" && flt.proto != proto {
			continue
		}
		for i, p := range starts {
			l := reach.Listener{NetNS: s.only.Name, Proto: proto, Port: p, Address: "any"}
			to := uint16(65535)
			if i+1 < len(starts) {
				to = starts[i+1] - 1
			}
			if flt.port == 0 && to > p && whole {
				l.PortTo = to
			}
			l.IPv4 = flt.narrow([]reach.V{s.only.Any(proto, p, rs.IPv4)}, true)
			l.IPv6 = flt.narrow([]reach.V{s.only.Any(proto, p, rs.IPv6)}, false)
			doc.Listeners = append(doc.Listeners, l)
		}
	}
}

func gapID(what, netns string) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%d:%s|%s", len(what), what, netns))
	return "gap-" + hex.EncodeToString(h[:6])
}

// clean makes every string safe to show, and turns assumptions into ids of gaps.
func clean(d *reach.Document) {
	known := map[string]bool{}
	for i := range d.Gaps {
		g := &d.Gaps[i]
		known[g.ID] = true
		g.What, g.NetNS = report.Clean(g.What), report.Clean(g.NetNS)
	}
	vs := func(netns string, list []reach.V) {
		for i := range list {
			v := &list[i]
			v.Interfaces = cleanEach(v.Interfaces)
			v.DecidedBy = slices.Clone(v.DecidedBy)
			for j := range v.DecidedBy {
				r := &v.DecidedBy[j]
				r.Table, r.Chain, r.Rule = report.Clean(r.Table), report.Clean(r.Chain), report.Clean(r.Rule)
			}
			if v.Witness != nil {
				w := *v.Witness
				w.Interface = report.Clean(w.Interface)
				v.Witness = &w
			}
			ids := []string{}
			for _, what := range v.Assumes {
				id := gapID(what, netns)
				if !known[id] {
					known[id] = true
					d.Gaps = append(d.Gaps, reach.DocumentGap{ID: id, Reason: fact.UnsupportedGap, What: report.Clean(what), NetNS: report.Clean(netns)})
				}
				ids = append(ids, id)
			}
			v.Assumes = ids
		}
	}
	for i := range d.Listeners {
		l := &d.Listeners[i]
		vs(l.NetNS, l.IPv4)
		vs(l.NetNS, l.IPv6)
		l.NetNS, l.Process, l.Unit, l.Device = report.Clean(l.NetNS), report.Clean(l.Process), report.Clean(l.Unit), report.Clean(l.Device)
	}
	for i := range d.Flows {
		f := &d.Flows[i]
		vs(f.NetNS, f.IPv4)
		vs(f.NetNS, f.IPv6)
		f.NetNS, f.Target, f.Process = report.Clean(f.NetNS), report.Clean(f.Target), report.Clean(f.Process)
	}
	for i := range d.Lint {
		x := &d.Lint[i]
		x.NetNS, x.Table, x.Chain, x.Rule, x.Message, x.Remedy = report.Clean(x.NetNS), report.Clean(x.Table), report.Clean(x.Chain), report.Clean(x.Rule), report.Clean(x.Message), report.Clean(x.Remedy)
		x.Evidence = cleanEach(x.Evidence)
	}
}

func cleanEach(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = report.Clean(s)
	}
	return out
}
