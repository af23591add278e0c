package check

func tunnelControls() []Control { return nil }

func tunnelDispositions() []Disposition { return nil }
