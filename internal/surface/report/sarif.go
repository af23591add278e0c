package report

import (
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// The part of SARIF 2.1.0 (OASIS, errata 01) that an audit fills. Section numbers
// are the standard's.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct { // §3.14
		Tool        sarifTool           `json:"tool"`
		Invocations []sarifInvocation   `json:"invocations"`
		Bases       map[string]sarifURI `json:"originalUriBaseIds"`
		ColumnKind  string              `json:"columnKind"`
		Results     []sarifResult       `json:"results"`
		Properties  map[string]any      `json:"properties,omitempty"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct { // §3.19
		Name            string      `json:"name"`
		Version         string      `json:"version,omitempty"`
		SemanticVersion string      `json:"semanticVersion,omitempty"`
		Rules           []sarifRule `json:"rules"`
	}
	sarifRule struct { // §3.49
		ID         string         `json:"id"`
		Short      sarifText      `json:"shortDescription"`
		Full       *sarifText     `json:"fullDescription,omitempty"`
		Help       *sarifText     `json:"help,omitempty"`
		Default    sarifDefault   `json:"defaultConfiguration"`
		Properties map[string]any `json:"properties,omitempty"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown,omitempty"`
	}
	sarifInvocation struct { // §3.20
		Successful    bool                `json:"executionSuccessful"`
		EndTime       string              `json:"endTimeUtc,omitempty"`
		Machine       string              `json:"machine,omitempty"`
		Notifications []sarifNotification `json:"toolExecutionNotifications"`
	}
	sarifNotification struct { // §3.58
		Descriptor sarifRef       `json:"descriptor"`
		Level      string         `json:"level"`
		Message    sarifText      `json:"message"`
		Properties map[string]any `json:"properties,omitempty"`
	}
	sarifRef struct {
		ID string `json:"id"`
	}
	sarifResult struct { // §3.27
		RuleID       string             `json:"ruleId"`
		RuleIndex    int                `json:"ruleIndex"`
		Kind         string             `json:"kind"`
		Level        string             `json:"level"`
		Message      sarifText          `json:"message"`
		Locations    []sarifLocation    `json:"locations"`
		Fingerprints map[string]string  `json:"partialFingerprints"`
		Suppressions []sarifSuppression `json:"suppressions"`
		Properties   map[string]any     `json:"properties"`
	}
	sarifLocation struct { // §3.28
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifURI     `json:"artifactLocation"`
		Region   *sarifRegion `json:"region,omitempty"`
	}
	sarifURI struct {
		URI  string `json:"uri"`
		Base string `json:"uriBaseId,omitempty"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct { // §3.33
		Name string `json:"name"`
		Full string `json:"fullyQualifiedName"`
		Kind string `json:"kind"`
	}
	sarifSuppression struct { // §3.35
		Kind          string `json:"kind"`
		Status        string `json:"status"`
		Justification string `json:"justification,omitempty"`
	}
)

// sarifSchema identifies the official schema that tests validate against.
const sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

// sarifRoot is the base of file locations: the root of the audited tree.
const sarifRoot = "ROOT"

// SARIF writes failed, waived and unknown findings as SARIF 2.1.0: an unknown one
// is a result of kind "open", a waived one carries its suppression. What passed or
// does not apply is left to JSON.
func SARIF(w io.Writer, r finding.Report, controls []check.Control) error {
	r = Neutralise(r)
	run := sarifRun{
		Tool:        sarifTool{Driver: sarifDriver{Name: "sixfence", Version: strings.TrimPrefix(r.Tool, "sixfence ")}},
		Invocations: []sarifInvocation{{Successful: true, Machine: r.Host.Name, Notifications: []sarifNotification{}}},
		Bases:       map[string]sarifURI{sarifRoot: {URI: "file:///"}},
		ColumnKind:  "unicodeCodePoints",
		Results:     []sarifResult{},
		Properties:  map[string]any{"role": r.Role.Name, "mode": r.Host.Mode},
	}
	if v := strings.TrimPrefix(run.Tool.Driver.Version, "v"); semver.MatchString(v) {
		run.Tool.Driver.SemanticVersion = v
	}
	if !r.At.IsZero() && r.At.Year() > 0 && r.At.Year() < 10000 {
		run.Invocations[0].EndTime = r.At.UTC().Format(time.RFC3339)
	}
	index := map[string]int{}
	rules := []sarifRule{}
	for _, c := range controls {
		index[c.ID] = len(rules)
		rules = append(rules, sarifRuleOf(c))
	}
	gaps := map[string]finding.Gap{}
	for _, g := range r.Gaps {
		gaps[g.ID] = g
		run.Invocations[0].Notifications = append(run.Invocations[0].Notifications, sarifNotification{
			Descriptor: sarifRef{ID: g.ID}, Level: "warning", Message: sarifText{Text: string(g.Reason) + ": " + g.What},
			Properties: map[string]any{"reason": g.Reason, "netns": g.NetNS, "controls": g.Controls},
		})
	}
	for _, f := range r.Findings {
		if f.Status == finding.Pass || f.Status == finding.NotApplicable {
			continue
		}
		i, ok := index[f.Control]
		if !ok {
			i = len(rules)
			index[f.Control] = i
			rules = append(rules, sarifRule{ID: f.Control, Short: sarifText{Text: orText(f.Title, f.Control)}, Default: sarifDefault{Level: sarifLevel(f.Severity)}})
		}
		run.Results = append(run.Results, sarifResultOf(f, i, gaps))
	}
	run.Tool.Driver.Rules = rules
	return encode(w, sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}})
}

var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

func sarifLevel(s finding.Severity) string {
	switch s {
	case finding.Critical, finding.High:
		return "error"
	case finding.Medium:
		return "warning"
	}
	return "note"
}

// securitySeverity is the number code scanning services sort by (CVSS bands).
func securitySeverity(s finding.Severity) string {
	return map[finding.Severity]string{finding.Critical: "9.5", finding.High: "8.0", finding.Medium: "5.5", finding.Low: "3.0"}[s]
}

func sarifRuleOf(c check.Control) sarifRule {
	r := sarifRule{
		ID: c.ID, Short: sarifText{Text: orText(c.Title, c.ID)}, Default: sarifDefault{Level: sarifLevel(c.Severity)},
		Help: &sarifText{Text: Explain(c, TextOptions{Width: 100}), Markdown: ControlMarkdown(c, 3)},
	}
	if full := strings.TrimSpace(c.What + " " + c.Why); full != "" {
		r.Full = &sarifText{Text: full}
	}
	tags := []string{"security", "ipv6"}
	for _, p := range c.Positions {
		tags = append(tags, "attacker: "+string(p))
	}
	r.Properties = map[string]any{"tags": tags, "precision": "high", "severity": c.Severity}
	if v := securitySeverity(c.Severity); v != "" {
		r.Properties["security-severity"] = v
	}
	return r
}

func sarifResultOf(f finding.Finding, rule int, gaps map[string]finding.Gap) sarifResult {
	res := sarifResult{
		RuleID: f.Control, RuleIndex: rule, Kind: "fail", Level: sarifLevel(f.Severity),
		Message:      sarifText{Text: orText(f.Message, f.Title)},
		Locations:    sarifLocations(f),
		Fingerprints: map[string]string{"sixfence/v1": f.Fingerprint},
		Suppressions: []sarifSuppression{},
		Properties: map[string]any{
			"severity": f.Severity, "effective": f.Effective, "compliance": f.Compliance,
			"subject": f.Subject, "evidence": f.Evidence, "remediation": f.Remediation,
		},
	}
	if len(f.Positions) > 0 {
		res.Properties["positions"] = f.Positions
	}
	if f.Status == finding.Unknown {
		res.Kind, res.Level = "open", "none" // §3.27.10: a level is for kind "fail" only
		var why []string
		for _, id := range f.Gaps {
			if g, ok := gaps[id]; ok {
				why = append(why, string(g.Reason)+": "+g.What)
			}
		}
		res.Properties["gaps"] = why
	}
	if w := f.Waiver; w != nil {
		s := sarifSuppression{Kind: "external", Status: "rejected", Justification: w.Reason + " (" + w.Owner + ", until " + w.Until + ")"}
		if w.State == finding.WaiverActive {
			s.Status = "accepted"
		} else {
			s.Justification += ": " + w.State + ", " + w.Detail
		}
		res.Suppressions = append(res.Suppressions, s)
	}
	if res.Message.Text == "" {
		res.Message.Text = f.Control
	}
	return res
}

// sarifLocations says where a result is: the lines of files it comes from, and the
// live thing it is about.
func sarifLocations(f finding.Finding) []sarifLocation {
	out := []sarifLocation{}
	seen := map[sarifURI]bool{}
	file := func(name string, line int) {
		if !strings.HasPrefix(name, "/") {
			return
		}
		u := sarifURI{URI: (&url.URL{Path: strings.TrimLeft(name, "/")}).EscapedPath(), Base: sarifRoot}
		if u.URI == "" || seen[u] {
			return
		}
		seen[u] = true
		l := sarifLocation{Physical: &sarifPhysical{Artifact: u}}
		if line > 0 {
			l.Physical.Region = &sarifRegion{StartLine: line}
		}
		out = append(out, l)
	}
	for _, e := range f.Evidence {
		if name, line, ok := strings.Cut(e.At, ":"); ok && strings.HasPrefix(name, "/") {
			if n, err := strconv.Atoi(line); err == nil {
				file(name, n)
			}
		}
	}
	file(f.Subject.File, 0)
	if l := logical(f.Subject); len(l) > 0 {
		out = append(out, sarifLocation{Logical: l})
	}
	return out
}

func logical(s finding.Subject) []sarifLogical {
	var out []sarifLogical
	path := "netns/" + orText(s.NetNS, "init")
	add := func(kind, name string) {
		if name != "" {
			out = append(out, sarifLogical{Name: name, Full: path + "/" + kind + "/" + name, Kind: kind})
		}
	}
	add("interface", s.Interface)
	if s.Port != 0 {
		add("listener", fmt.Sprintf("%s/%d", orText(s.Proto, "any"), s.Port))
	}
	add("address", s.Address)
	add("process", s.Process)
	add("setting", s.Key)
	if len(out) == 0 && s.File == "" {
		out = append(out, sarifLogical{Name: orText(s.NetNS, "host"), Full: path, Kind: "namespace"})
	}
	return out
}

func orText(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
