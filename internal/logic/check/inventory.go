package check

func inventoryControls() []Control { return nil }

func inventoryDispositions() []Disposition { return nil }
