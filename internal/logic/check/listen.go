package check

func listenControls() []Control { return nil }

func listenDispositions() []Disposition { return nil }
