// Package fact holds the nouns of one host as sixfence saw it: the versioned
// Snapshot that every verb reasons over, and Known, which keeps "could not be
// read" apart from "is not there".
//
// The package imports the standard library only, performs no I/O and knows no
// policy. Field names follow the kernel's and the RFCs' words. Anything added
// here is a promise: a golden Snapshot of every released version must keep
// decoding (see testdata), and a key that an older or foreign Snapshot lacks
// decodes to the Gap "not-collected", never to a zero value.
package fact
