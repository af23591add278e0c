package reach

// Lint is something in a ruleset that does not do what it looks like.
type Lint struct {
	ID       string   `json:"id"`
	NetNS    string   `json:"netns"`
	Table    string   `json:"table"`
	Chain    string   `json:"chain,omitempty"`
	Handle   uint64   `json:"handle,omitempty"`
	Rule     string   `json:"rule,omitempty"`
	Message  string   `json:"message"`
	Evidence []string `json:"evidence"`
}

// Lint looks at the rules.
func (sp *Space) Lint() []Lint { return []Lint{} }
