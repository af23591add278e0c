package check

func raControls() []Control { return nil }

func raDispositions() []Disposition { return nil }
