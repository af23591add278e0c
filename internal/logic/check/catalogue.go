package check

import "slices"

// Catalogue returns every implemented control, family by family.
func Catalogue() []Control {
	return slices.Concat(
		inventoryControls(),
		raControls(),
		stackControls(),
		ndpControls(),
		routerControls(),
		listenControls(),
		tunnelControls(),
		firewallControls(),
	)
}

// Dispositions returns the rows of the catalogue that are not implemented here,
// with the reason.
func Dispositions() []Disposition {
	return slices.Concat(
		inventoryDispositions(),
		raDispositions(),
		stackDispositions(),
		ndpDispositions(),
		routerDispositions(),
		listenDispositions(),
		tunnelDispositions(),
		firewallDispositions(),
	)
}

// Find returns the control with this ID.
func Find(id string) (Control, bool) {
	for _, c := range Catalogue() {
		if c.ID == id {
			return c, true
		}
	}
	return Control{}, false
}
