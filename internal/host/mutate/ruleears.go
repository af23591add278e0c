package mutate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Heard is one transaction of nf_tables, by whomever.
type Heard struct {
	At     time.Time
	Tables []string // that it changed
	// PID and Program are who committed it, as the kernel says; Unit is the systemd unit of
	// that process, if it could be read before it ended.
	PID     int
	Program string
	Unit    string
}

// String names who it was, for people.
func (h *Heard) String() string {
	s := h.Program
	if s == "" {
		s = "a process that the kernel does not name"
	}
	if h.Unit != "" {
		s += " of " + h.Unit
	}
	return fmt.Sprintf("%s (process %d) at %s", s, h.PID, h.At.Local().Format(time.TimeOnly))
}

// RuleEars hears the transactions of nf_tables in the network namespace in which it was
// opened.
type RuleEars struct {
	c      *netlink.Conn
	tables map[string]bool // of the transaction that is being told
}

// HearRules opens RuleEars.
func HearRules() (*RuleEars, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		c.Close()
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	_ = c.SetReadBuffer(4 << 20)
	return &RuleEars{c: c, tables: map[string]bool{}}, nil
}

// Close ends it.
func (l *RuleEars) Close() { l.c.Close() }

// Next returns the next transactions, or none when there was none for a while. missed
// says that there were more, of which the kernel could not tell us.
func (l *RuleEars) Next(wait time.Duration) (hs []Heard, missed bool, err error) {
	for end := time.Now().Add(wait); len(hs) == 0 && !missed && err == nil && time.Now().Before(end); {
		hs, missed, err = l.receive(end)
	}
	return hs, missed, err
}

func (l *RuleEars) receive(end time.Time) (hs []Heard, missed bool, err error) {
	_ = l.c.SetReadDeadline(end)
	ms, err := l.c.Receive()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, false, nil
	case errors.Is(err, unix.ENOBUFS):
		return nil, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("listen to nf_tables: %w", err)
	}
	for _, m := range ms {
		if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
			continue
		}
		a := attributes(m.Data[4:])
		switch uint16(m.Header.Type) & 0xff {
		case unix.NFT_MSG_NEWGEN:
			h := Heard{At: time.Now(), Program: text(a[unix.NFTA_GEN_PROC_NAME])}
			if b := a[unix.NFTA_GEN_PROC_PID]; len(b) == 4 {
				h.PID = int(binary.BigEndian.Uint32(b))
			}
			h.Unit = unitOf(h.PID, h.Program)
			for t := range l.tables {
				h.Tables = append(h.Tables, t)
			}
			clear(l.tables)
			hs = append(hs, h)
		case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM: // packets and timeouts do that
		default:
			l.tables[text(a[unix.NFTA_TABLE_NAME])] = true // every message has its table there
		}
	}
	return hs, false, nil
}

// unitOf is the systemd unit of a process that has just acted. The kernel numbers
// processes as the first PID namespace does; in another one nothing can be told.
func unitOf(pid int, program string) string {
	const firstPIDNamespace = "pid:[4026531836]"
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != firstPIDNamespace || pid <= 0 {
		return ""
	}
	dir := "/proc/" + strconv.Itoa(pid)
	comm, err := os.ReadFile(dir + "/comm")
	if err != nil || strings.TrimSpace(string(comm)) != program {
		return ""
	}
	b, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return ""
	}
	unit := ""
	for line := range strings.Lines(string(b)) {
		for w := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			if strings.HasSuffix(w, ".service") || strings.HasSuffix(w, ".scope") {
				unit = w
			}
		}
	}
	return unit
}

// Generation is a number that changes with every transaction of nf_tables.
func Generation() (uint32, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("read the generation of nf_tables: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	ms, err := c.Execute(nftRequest(unix.NFT_MSG_GETGEN, unix.NFPROTO_UNSPEC, 0))
	if err != nil {
		return 0, fmt.Errorf("read the generation of nf_tables: %w", err)
	}
	for _, m := range ms {
		if len(m.Data) >= 4 {
			if b := attributes(m.Data[4:])[unix.NFTA_GEN_ID]; len(b) == 4 {
				return binary.BigEndian.Uint32(b), nil
			}
		}
	}
	return 0, errors.New("read the generation of nf_tables: the kernel does not say")
}
