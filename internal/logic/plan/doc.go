// Package plan says what it takes to make a host what its intent wants: from an Intent
// and a Snapshot comes a change.Plan of ordered steps, with their risks, with the
// reasons not to perform them, and with who reaches what before and after.
//
// It is pure: the same intent on the same host gives the same Plan, byte for byte, and
// a host that is as planned gives a Plan without steps. Export writes the same files
// for people who bring them to the host by themselves.
package plan
