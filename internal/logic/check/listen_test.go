package check

func listenStates() map[string][]state { return nil }
