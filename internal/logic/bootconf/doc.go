// Package bootconf predicts what a boot makes of sysctl.d and modprobe.d: which
// line decides a key, and how a kernel module is kept from loading.
//
// The two configuration systems have rules that surprise (an explicit line beats
// a later glob; a repeated equal line keeps its first place; a write to "all" is
// copied to the interfaces for four keys and for no other; the first install line
// of a module counts, the last blacklist is as good as the first). They live here
// once, proved against systemd-sysctl and modprobe themselves, so that every
// control tells the same story.
package bootconf
