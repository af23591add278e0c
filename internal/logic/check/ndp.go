package check

func ndpControls() []Control { return nil }

func ndpDispositions() []Disposition { return nil }
