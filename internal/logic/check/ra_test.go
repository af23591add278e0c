package check

func raStates() map[string][]state { return nil }
