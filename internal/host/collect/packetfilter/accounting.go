package packetfilter

import (
	"errors"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_acct.h.
const (
	subsysAccounting = 7
	cmdAccountingGet = 1
)

// readAccounting lists the accounting objects that xt_nfacct rules name.
func readAccounting(a *ask.Asker, b *ask.Budget) fact.Known[[][]byte] {
	const module = "nfnetlink_acct"
	if !a.Present(module) {
		if g := a.Doubt(module); g != nil {
			return fact.Missing[[][]byte](*g)
		}
		return fact.Absent[[][]byte]()
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: answerMax})
	if err != nil {
		return fact.Missing[[][]byte](gapOf(err, module))
	}
	defer c.Close()
	_ = c.SetDeadline(b.Deadline())
	a.Note("netlink", "NFNL_MSG_ACCT_GET")
	switch msgs, g, err := listAll(c, b, subsysAccounting<<8|cmdAccountingGet, []byte{unix.AF_UNSPEC, 0, 0, 0}); {
	case g != nil:
		return fact.Missing[[][]byte](*g)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), err == nil && len(msgs) == 0:
		return fact.Absent[[][]byte]() // nfnetlink knows no such subsystem
	case err != nil:
		return fact.Missing[[][]byte](gapOf(err, module))
	default:
		return fact.Value(msgs)
	}
}
