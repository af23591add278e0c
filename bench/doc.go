// Package bench measures the sixfence binary as a user runs it, beside its
// peers in the same run. It holds benchmarks only; `make bench` runs them and
// docs/performance.md keeps the numbers.
package bench
