// Package check is the control catalogue: what can be wrong with a host's IPv6
// side, how the kernel really decides it, and what closes it.
//
// One file holds one family of controls as an explicit slice; catalogue.go
// joins them. A Control is data plus one pure function over a Context: no I/O, no
// clock, no randomness. A control answers once per subject and has three
// answers: pass and fail are claims about the kernel, unknown names the Gap that
// keeps it from claiming. It never returns pass because something is missing.
package check
