// Package report writes a finding.Report in the formats people and machines
// read: one file a format.
//
// Names in a Report come from attackers (interfaces, processes, files, a Snapshot
// from a stranger). Every writer passes through Neutralise, so that no output
// can move a cursor, reverse a line, hide text or be pasted into a shell by mistake.
package report
