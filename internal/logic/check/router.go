package check

func routerControls() []Control { return nil }

func routerDispositions() []Disposition { return nil }
