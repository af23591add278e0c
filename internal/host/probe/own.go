package probe

import (
	"bytes"
	"os"
	"strconv"
)

// own looks for packets that this host itself drops. A raw socket is told when its packet may
// not leave, and a packet socket hears before any rule does; a connection is told nothing, and
// looks like one that nobody answers. The kernel's counters, which anybody may read, know it.
type own struct {
	f   *os.File
	is4 bool
	buf []byte
}

// openOwn opens the counters of this network namespace; nil where there are none. They are
// opened before files are fenced off.
func openOwn(is4 bool) *own {
	name := "snmp6"
	if is4 {
		name = "snmp"
	}
	f, err := os.Open("/proc/thread-self/net/" + name)
	if err != nil {
		return nil
	}
	o := &own{f: f, is4: is4, buf: make([]byte, 16384)}
	// Transforms (IPsec) count one packet twice, so where much is missing it says nothing.
	if n, _, ok := o.read(); !ok || n > 1000 {
		o.close()
		return nil
	}
	return o
}

func (o *own) close() {
	if o != nil {
		o.f.Close()
	}
}

// read is how many packets this host wanted to send and did not, and how many came and were
// delivered to nobody. ok is false where the kernel (before 6.9) does not count that.
func (o *own) read() (unsent, undelivered int, ok bool) {
	if o == nil {
		return 0, 0, false
	}
	n, err := o.f.ReadAt(o.buf, 0)
	if n == 0 || err == nil { // nothing, or more than fits
		return 0, 0, false
	}
	of := map[string]int{}
	names, values := []string{"InReceives", "InDelivers", "ForwDatagrams", "OutRequests", "OutTransmits"}, [][]byte(nil)
	for line := range bytes.Lines(o.buf[:n]) {
		fields := bytes.Fields(line)
		switch {
		case !o.is4 && len(fields) == 2:
			for _, w := range names {
				if string(fields[0]) == "Ip6"+w || string(fields[0]) == "Ip6Out"+w {
					of[w], _ = strconv.Atoi(string(fields[1]))
				}
			}
		case o.is4 && len(fields) > 0 && string(fields[0]) == "Ip:" && values == nil:
			values = fields // the names come first
		case o.is4 && len(fields) == len(values) && string(fields[0]) == "Ip:":
			for i, w := range values {
				of[string(w)], _ = strconv.Atoi(string(fields[i]))
			}
		}
	}
	_, ok = of["OutTransmits"]
	// What is forwarded is transmitted, too, and was not asked for here.
	return of["OutRequests"] + of["ForwDatagrams"] - of["OutTransmits"], of["InReceives"] - of["InDelivers"] - of["ForwDatagrams"], ok
}

// kept tells whether this host drops what send sends, behind its back.
func (o *own) kept(send func()) bool {
	for range 3 { // somebody else may have sent something at that moment
		before, _, ok := o.read()
		send()
		if after, _, _ := o.read(); !ok || after <= before {
			return false
		}
	}
	return true
}
