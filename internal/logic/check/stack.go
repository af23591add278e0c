package check

func stackControls() []Control { return nil }

func stackDispositions() []Disposition { return nil }
