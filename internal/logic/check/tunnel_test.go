package check

func tunnelStates() map[string][]state { return nil }
