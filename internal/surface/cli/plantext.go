package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// planText writes a plan for a person who has not read the manual: first what forbids
// it, then what it changes, who reaches what afterwards, and what may break.
type planText struct {
	Options planOptions
	width   int
	b       strings.Builder
}

// shortFile is how many lines of a new file are shown without --verbose.
const shortFile = 12

func (t *planText) write(w io.Writer, p *change.Plan) error {
	switch {
	case len(p.Refusals) > 0:
		fmt.Fprintf(&t.b, "REFUSED: %s in the way. Nothing was changed, and apply would not change it either.\n", plural(len(p.Refusals), "thing stands", "things stand"))
	case len(p.Steps) == 0:
		fmt.Fprintf(&t.b, "Nothing to do: this host is as its intent says.\n")
	default:
		fmt.Fprintf(&t.b, "%s would make this host what its intent says. Nothing was changed yet.\n", plural(len(p.Steps), "change", "changes"))
	}
	for _, r := range p.Refusals {
		fmt.Fprintf(&t.b, "\n  %s\n", cleaned(r.Title))
		t.para("    ", r.Detail)
		t.para("    Way out: ", r.WayOut)
	}
	if !t.Options.quiet {
		t.proof(p.Proof)
		t.phase(p, change.Runtime, "CHANGES NOW", "by apply, in the running kernel; a reboot before confirm brings the old state back")
		t.phase(p, change.Persist, "WRITES", "by confirm, so that it lasts")
		t.phase(p, change.AfterConfirm, "AND THEN", "by confirm, what has no effect before")
		t.exposure(p)
		t.risks(p)
		t.rest(p)
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

// proof is what came of firing at it, in a line or two.
func (t *planText) proof(p *change.Proof) {
	if p == nil {
		return
	}
	t.b.WriteByte('\n')
	switch p.Status {
	case change.Proven, change.Partial:
		did := fmt.Sprintf("%d shots at %s, on kernel %s in namespaces of their own, did what the intent says: %d came through, %d were stopped.", p.Shots, strings.Join(p.Interfaces, ", "), p.Kernel, p.Through, p.Stopped)
		if p.Status == change.Proven {
			t.para("Proven: ", did)
			break
		}
		t.para("PROVEN IN PART: ", did+" But "+p.Reason+". "+p.WayOut+".")
	case change.Failed:
		t.para("NOT PROVEN: ", fmt.Sprintf("%d of %d shots did something else than the intent says.", len(p.Failures), p.Shots))
		for _, f := range p.Failures[:min(len(p.Failures), 3)] {
			t.para("  ", fmt.Sprintf("%s %s (%s): %s, and it ought to be: %s", f.Interface, f.Shot, f.Group, f.Observed, f.Expected))
		}
	default:
		t.para("NOT PROVEN: ", p.Reason+". So nothing was fired at the planned state, and whether it does what the intent says is not known. Apply refuses it. Way out: "+p.WayOut)
	}
	if len(p.Held) > 0 {
		var names []string
		for _, h := range p.Held[:min(len(p.Held), 4)] {
			names = append(names, h.Shot)
		}
		t.para("  ", fmt.Sprintf("Other tables of this host (%s) stop %d more: %s …", strings.Join(p.Together, ", "), len(p.Held), strings.Join(names, "; ")))
	}
	if len(p.NotTogether) > 0 {
		t.para("  Not proven together with ", strings.Join(p.NotTogether, "; "))
	}
	if len(p.NotFiredAt) > 0 {
		t.para("  Nothing was fired at ", strings.Join(p.NotFiredAt, "; "))
	}
	if len(p.Limits) > 0 {
		t.para("  Not as on the host: ", strings.Join(p.Limits, "; "))
	}
}

func (t *planText) title(head, note string) {
	fmt.Fprintf(&t.b, "\n%s\n", strings.TrimRight(head+"   "+note, " "))
}

// para writes text folded to the width, with a lead that later lines are indented to.
func (t *planText) para(lead, text string) {
	if text == "" {
		return
	}
	for i, l := range wrapText(report.Clean(text), t.width-report.Width(lead)) {
		if i > 0 {
			lead = strings.Repeat(" ", report.Width(lead))
		}
		t.b.WriteString(lead + l + "\n")
	}
}

func (t *planText) phase(p *change.Plan, phase change.Phase, head, note string) {
	steps := slices.DeleteFunc(slices.Clone(p.Steps), func(s change.Step) bool { return s.Phase != phase })
	if len(steps) == 0 {
		return
	}
	t.title(head, note)
	for len(steps) > 0 {
		s := steps[0]
		if s.Kind == change.Sysctl {
			n := 1
			for n < len(steps) && steps[n].Kind == change.Sysctl {
				n++
			}
			t.sysctls(steps[:n])
			steps = steps[n:]
			continue
		}
		t.step(p, &s)
		steps = steps[1:]
	}
}

// setting are sysctls that change alike on several interfaces.
type setting struct {
	before, after, from, to string
	why                     []string
	names                   []string
	destroys                []change.Object
}

func (t *planText) sysctls(steps []change.Step) {
	var list []setting
	for _, s := range steps {
		parts := strings.Split(s.Target, "/")
		x := setting{from: imageWord(s.Before), to: imageWord(s.After), why: s.Why, destroys: s.Destroys}
		if len(parts) == 5 && parts[2] == "conf" {
			x.before, x.names, x.after = strings.Join(parts[:3], "/")+"/", []string{parts[3]}, "/"+parts[4]
		} else {
			x.before = s.Target
		}
		i := slices.IndexFunc(list, func(o setting) bool {
			return o.before == x.before && o.after == x.after && o.from == x.from && o.to == x.to && slices.Equal(o.why, x.why) && len(x.names) > 0
		})
		if i >= 0 {
			list[i].names = append(list[i].names, x.names...)
			list[i].destroys = append(list[i].destroys, x.destroys...)
			continue
		}
		list = append(list, x)
	}
	t.b.WriteString("  kernel settings (/proc/sys)\n")
	for _, x := range list {
		name := x.before + x.after
		if len(x.names) == 1 {
			name = x.before + x.names[0] + x.after
		} else if len(x.names) > 1 {
			name = x.before + "{" + strings.Join(x.names, ",") + "}" + x.after
		}
		fmt.Fprintf(&t.b, "    %s: %s → %s%s\n", cleaned(name), cleaned(x.from), cleaned(x.to), whyWords(x.why))
		t.destroys(x.destroys)
	}
}

func (t *planText) destroys(objects []change.Object) {
	for _, o := range objects {
		fmt.Fprintf(&t.b, "      takes away %s %s (kept for the way back)\n", o.Kind, cleaned(o.Target))
	}
}

func whyWords(why []string) string {
	if len(why) == 0 {
		return ""
	}
	return "   because of " + cleaned(strings.Join(why, ", "))
}

// imageWord is an image of one value in a word.
func imageWord(i change.Image) string {
	if i.Absent {
		return "none"
	}
	return i.Text
}

var kindWords = map[change.Kind]string{
	change.File: "file", change.Table: "packet filter: table", change.Neighbour: "permanent neighbour", change.AddressObj: "address", change.RouteObj: "route", change.Unit: "systemd unit", change.Action: "action",
}

func (t *planText) step(p *change.Plan, s *change.Step) {
	name := orWord(kindWords[s.Kind], string(s.Kind))
	fmt.Fprintf(&t.b, "  %s %s", name, cleaned(s.Target))
	switch s.Kind {
	case change.File, change.Table:
		t.text(s, twin(p, s))
		t.destroys(s.Destroys)
		return
	case change.Action:
	default:
		fmt.Fprintf(&t.b, ": %s → %s", cleaned(imageWord(s.Before)), cleaned(imageWord(s.After)))
	}
	t.b.WriteString(whyWords(s.Why) + "\n")
	t.destroys(s.Destroys)
}

// twin is the table of a file of rules, or the file of a table: they have one text, in
// our words in the file and in those of nft in what is loaded.
func twin(p *change.Plan, s *change.Step) *change.Step {
	for i := range p.Steps {
		o := &p.Steps[i]
		if o.Kind != s.Kind && (o.Kind == change.Table || o.Kind == change.File) && o.After.Text == s.After.Text && !s.After.Absent && !o.After.Absent {
			return o
		}
	}
	return nil
}

// text shows a file or a table: whole when it is new and short, else as a diff.
func (t *planText) text(s, twin *change.Step) {
	lines := strings.Count(s.After.Text, "\n")
	before := s.Before
	switch {
	case twin != nil && s.Kind == change.File && !s.Before.Absent && !twin.Before.Absent:
		fmt.Fprintf(&t.b, ": changed as the table above%s\n", whyWords(s.Why))
		return
	case twin != nil && s.Kind == change.Table && !s.Before.Absent && !twin.Before.Absent:
		before = twin.Before
	}
	switch {
	case s.After.Absent:
		fmt.Fprintf(&t.b, ": deleted%s\n", whyWords(s.Why))
		if !t.Options.verbose {
			return
		}
	case s.Before.Absent:
		fmt.Fprintf(&t.b, ": new, %s", plural(lines, "line", "lines"))
		if s.Kind == change.File {
			fmt.Fprintf(&t.b, ", mode %04o", s.After.Mode)
		}
		if lines > shortFile && !t.Options.verbose {
			fmt.Fprintf(&t.b, " (--verbose shows them)%s\n", whyWords(s.Why))
			return
		}
		t.b.WriteString(whyWords(s.Why) + "\n")
	default:
		fmt.Fprintf(&t.b, ": changed%s\n", whyWords(s.Why))
		if s.Before.Mode != s.After.Mode && s.Kind == change.File {
			fmt.Fprintf(&t.b, "      mode %04o → %04o\n", s.Before.Mode, s.After.Mode)
		}
	}
	d := strings.Split(strings.TrimRight(string(diff.Diff("now", []byte(before.Text), "then", []byte(s.After.Text))), "\n"), "\n")
	for i, l := range d {
		if i == 0 && strings.HasPrefix(l, "diff ") || s.Before.Absent && i < 4 {
			continue
		}
		t.b.WriteString("      " + report.Clean(strings.ReplaceAll(l, "\t", "    ")) + "\n")
	}
}

func (t *planText) risks(p *change.Plan) {
	if len(p.Risks) == 0 {
		return
	}
	if len(p.Steps) > 0 || len(p.Refusals) > 0 {
		t.title("WHAT MAY BREAK", "on this host")
	} else {
		t.title("WORTH KNOWING", "as long as this intent is in force")
	}
	for _, r := range p.Risks {
		fmt.Fprintf(&t.b, "  %-7s %s\n", r.Severity, cleaned(r.Title))
		t.para("          ", r.Detail)
		t.para("          seen: ", strings.Join(r.Evidence, "; "))
		t.para("          remedy: ", r.Remedy)
	}
}

func (t *planText) rest(p *change.Plan) {
	if len(p.Gaps) > 0 {
		t.title("NOT KNOWN", "and so not promised")
		for _, g := range p.Gaps {
			t.para("  ", g.What)
		}
	}
	if len(p.Administered) > 0 {
		t.title("YOUR WAY IN", "confirm has to come over a new connection for each family")
		seen := map[string]bool{}
		for _, w := range p.Administered {
			at := fmt.Sprintf("  %s to %s, now from %s\n", w.Family, w.Local, w.Remote.Addr())
			if !seen[at] {
				seen[at] = true
				t.b.WriteString(at)
			}
		}
	}
	if len(p.Refusals) > 0 || len(p.Steps) == 0 {
		return
	}
	file := orWord(t.Options.output, "plan.json")
	t.title("NEXT", "")
	if t.Options.output == "" {
		from := ""
		if f := t.Options.intent.file; f != "" && f != "-" {
			from = " --intent " + f
		}
		fmt.Fprintf(&t.b, "  sudo sixfence harden plan%s -o %s\n", from, file)
	}
	fmt.Fprintf(&t.b, "  sudo sixfence harden apply %s    # takes itself back unless you confirm\n  sudo sixfence harden confirm    # from a new connection\n", file)
}
