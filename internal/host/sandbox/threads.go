//go:build !cgo

package sandbox

// threads tells whether every thread can be reached: the Go runtime knows its own.
func threads() error { return nil }
