package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab"
)

// debianNftables is what Debian installs as /etc/nftables.conf.
const debianNftables = `#!/usr/sbin/nft -f

flush ruleset

table inet filter {
	chain input {
		type filter hook input priority filter;
	}
	chain forward {
		type filter hook forward priority filter;
	}
	chain output {
		type filter hook output priority filter;
	}
}
`

// witness runs before an interface comes up, and notes what is in force by then.
const witness = `#!/bin/sh
[ "$IFACE" = eth0 ] || exit 0
{ nft list tables; for k in all default eth0; do echo "$k accept_redirects $(cat /proc/sys/net/ipv6/conf/$k/accept_redirects)"; done; } >/run/witness 2>&1
exit 0
`

// bootLab is a machine whose network ifupdown brings up, with Debian's nftables.
type bootLab struct {
	*testlab.Machine
	t *testing.T
}

func newBootLab(t *testing.T, intent string) *bootLab {
	t.Helper()
	for _, tool := range []string{"ifup", "nft", "sysctl"} {
		testlab.RequireTool(t, tool)
	}
	wire := testlab.NewNS(t, "wire")
	m := testlab.NewMachine(t, map[string]string{
		"/etc/nftables.conf":               debianNftables,
		"/etc/network/if-pre-up.d/witness": witness,
		"/etc/network/interfaces":          "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet static\n\taddress 192.0.2.10/24\niface eth0 inet6 static\n\taddress 2001:db8:1::10/64\n\tgateway 2001:db8:1::1\n\tdad-attempts 0\n",
		"/etc/network/if-up.d/none":        "", "/etc/network/if-down.d/none": "", "/etc/network/if-post-down.d/none": "",
		"/etc/sixfence/sixfence.yaml": intent,
	})
	m.Install(binary, "/usr/local/bin/sixfence")
	m.Enable("nftables.service")
	m.Enable("networking.service")
	m.Wire("eth0", wire, "eth0")
	return &bootLab{Machine: m, t: t}
}

const bootIntent = `apiVersion: sixfence/v1
role: server
families: dual-stack
interfaces:
  eth0:
    addressing: static
services:
  - {name: ssh, ports: [tcp/22], from: ["2001:db8:1::/64", "192.0.2.0/24"]}
tunnels: deny
`

func TestZ(t *testing.T) {
	l := newBootLab(t, bootIntent)
	l.Boot()
	t.Log(l.Run("ip", "a"), l.Run("cat", "/run/witness"))
	x := func(s string) {
		out, err := l.Command("sh", "-c", s).CombinedOutput()
		t.Logf("%s: %v\n%s", s, err, out)
	}
	x("sixfence harden plan -o /root/plan.json")
	x("sixfence harden apply --timeout 20s /root/plan.json")
	x("sixfence harden status; echo $?; systemctl list-timers --all --no-pager; systemctl cat 'sixfence-undo*'")
	x("sixfence harden confirm; sixfence harden status; find /etc/systemd/system -name '*sixfence*' -ls; journalctl -b --no-pager -t sixfence; nft list tables")
	x("sixfence harden plan; systemctl --failed")
	x("systemctl restart nftables; sleep 1; nft list tables; sixfence harden status")
	x("systemctl reload nftables; sleep 1; nft list tables; sixfence harden status")
	l.PowerCut()
	l.Boot()
	x("sixfence harden status; cat /run/witness; systemctl list-units '*sixfence*' --no-pager; journalctl -b --no-pager")
	x("sixfence harden rollback; sixfence harden confirm;  sixfence harden status; nft list tables; find /etc /var -name '*sixfence*'; journalctl -b --no-pager -t sixfence; sixfence harden history")
	_ = exec.Command
	_ = os.Stdout
	_ = strings.Fields
	_ = time.Now
}
