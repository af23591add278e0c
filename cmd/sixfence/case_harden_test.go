package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// sshLab is a host with its own /etc, /root and /var/lib, and somebody who administers
// it over IPv6.
type sshLab struct {
	t        *testing.T
	admin    *testlab.NS
	dir, key string
}

func newSSHLab(t *testing.T) *sshLab {
	t.Helper()
	host, admin := testlab.NewNS(t, "host"), testlab.NewNS(t, "admin")
	l := &sshLab{t: t, admin: admin, dir: t.TempDir()}
	l.key = filepath.Join(l.dir, "key")
	testlab.Link(host, "eth0", admin, "eth0")
	for ns, a := range map[*testlab.NS]string{host: "10", admin: "20"} {
		ns.IP("address", "add", "2001:db8:1::"+a+"/64", "dev", "eth0", "nodad")
		ns.IP("address", "add", "192.0.2."+a+"/24", "dev", "eth0")
	}
	host.IP("-6", "route", "add", "default", "via", "2001:db8:1::20")
	sshd, keygen := testlab.RequireTool(t, "sshd"), testlab.RequireTool(t, "ssh-keygen")
	testlab.RequireTool(t, "ssh")
	for _, k := range []string{l.key, filepath.Join(l.dir, "hostkey")} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", k).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	script := `mount -t tmpfs tmpfs /mnt; mkdir /mnt/u /mnt/w
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc
[ -d /run/sshd ] || mkdir -p /run/sshd
mount -t tmpfs -o mode=700 tmpfs /root; mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -m 700 /root/.ssh; cp ` + l.key + `.pub /root/.ssh/authorized_keys
mkdir -p /etc/sixfence; rm -f /etc/sixfence/*
cat > /etc/sixfence/sixfence.yaml <<Y
apiVersion: sixfence/v1
role: server
families: dual-stack
interfaces:
  eth0:
    addressing: static
services:
  - {name: ssh, ports: [tcp/22], from: ["2001:db8:1::/64", "192.0.2.0/24"]}
tunnels: deny
Y
exec ` + sshd + ` -D -e -h ` + l.dir + `/hostkey -p 22 -o PidFile=none -o UsePAM=no -o PermitRootLogin=yes`
	c := host.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", script)
	var log bytes.Buffer
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// sshd's sessions are children of their own: all that is in the namespace ends.
		out, _ := exec.Command("ip", "netns", "pids", host.Name).Output()
		for _, pid := range strings.Fields(string(out)) {
			_ = exec.Command("kill", "-9", pid).Run()
		}
		_ = c.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", log.String())
		}
	})
	testlab.Eventually(t, 10*time.Second, "sshd to answer", func() bool { _, err := l.ssh("2001:db8:1::10", "true"); return err == nil })
	return l
}

// ssh runs a command over a connection of its own.
func (l *sshLab) ssh(to, command string, opts ...string) (string, error) {
	return l.sshFor(20*time.Second, to, command, opts...)
}

func (l *sshLab) sshFor(d time.Duration, to, command string, opts ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	args := append([]string{
		"netns", "exec", l.admin.Name, "ssh", "-i", l.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-o", "ConnectTimeout=2", "-o", "BatchMode=yes",
	}, opts...)
	c := exec.CommandContext(ctx, "ip", append(args, "root@"+to, command)...)
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	return string(out), err
}

// TestHardenOverSSH does what a person does: plan, apply, confirm over the same
// connection (refused), confirm over a new one, plan again (nothing), roll back.
func TestHardenOverSSH(t *testing.T) {
	l := newSSHLab(t)
	const to = "2001:db8:1::10"
	must := func(command, want string, code string) {
		t.Helper()
		out, err := l.ssh(to, command+"; echo EXIT $?")
		if err != nil || !strings.Contains(out, "EXIT "+code) || !strings.Contains(out, want) {
			t.Fatalf("%s: %v, want exit %s and %q\n%s", command, err, code, want, out)
		}
	}
	must(binary+" harden plan -o /root/plan.json", "YOUR WAY IN", "0")
	mux := []string{"-o", "ControlMaster=auto", "-o", "ControlPath=" + l.dir + "/mux", "-o", "ControlPersist=60"}
	if out, err := l.ssh(to, binary+" harden apply /root/plan.json", mux...); err != nil || !strings.Contains(out, "harden confirm") {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	if out, err := l.ssh(to, binary+" harden confirm; echo EXIT $?", mux...); err != nil || !strings.Contains(out, "EXIT 4") || !strings.Contains(out, "as old as the change") {
		t.Fatalf("confirm over the multiplexed connection: %v\n%s", err, out)
	}
	must("[ ! -e /etc/sixfence/firewall.nft ] && nft list table inet sixfence >/dev/null", "", "0")
	must(binary+" harden confirm", "is kept", "0")
	must("[ -s /etc/sixfence/firewall.nft ] && "+binary+" harden status", "as it left them", "0")
	must(binary+" harden plan", "Nothing to do", "0")
	if out, err := l.ssh("192.0.2.10", "true"); err != nil {
		t.Errorf("IPv4 after the change: %v\n%s", err, out)
	}
	// What others do shows.
	must("nft flush ruleset; echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_redirects; "+binary+" harden status", "DRIFT", "1")
	must("nft -f /etc/sixfence/firewall.nft; echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_redirects; "+binary+" harden status", "as it left them", "0")
	must(binary+" harden rollback", "in the running kernel", "0")
	must(binary+" harden confirm", "is kept", "0")
	must("ls /etc/sixfence; nft list tables; cat /proc/sys/net/ipv6/conf/eth0/accept_redirects", "\n1\nEXIT", "0")
	out, _ := l.ssh(to, "ls -A /etc/sixfence /var/lib/sixfence/harden; find /etc -name '*sixfence*'; nft list tables")
	for _, bad := range []string{"firewall.nft", "pending", "inet sixfence", "sixfence.conf", ".service"} {
		if strings.Contains(out, bad) {
			t.Errorf("left behind: %s in\n%s", bad, out)
		}
	}
	must(binary+" harden history", "confirmed", "0")
}

// TestHardenCutsItsOwnSession performs a plan that closes the door: nobody can confirm
// it, and the door opens by itself.
func TestHardenCutsItsOwnSession(t *testing.T) {
	l := newSSHLab(t)
	const to = "2001:db8:1::10"
	p := &change.Plan{SchemaVersion: change.Version, IntentHash: "by hand", Namespace: "self", Steps: []change.Step{
		{ID: "sysctl", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/eth0/accept_redirects", Before: change.Image{Text: "1"}, After: change.Image{Text: "0"}},
		{ID: "table", Kind: change.Table, Phase: change.Runtime, Target: "inet sixfence", Before: change.Image{Absent: true}, After: change.Image{Text: "table inet sixfence {\n chain in {\n type filter hook input priority 0; policy drop;\n }\n}\n"}},
		{ID: "sysctl:off", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/all/disable_ipv6", Before: change.Image{Text: "0"}, After: change.Image{Text: "1"}},
	}}
	write := func() {
		t.Helper()
		p.ID = p.Sum()
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.dir+"/plan.json", b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A plan that was made at the console, or from another place, knows nothing of this way in.
	way := change.Way{Family: "ipv6", Local: netip.MustParseAddrPort("[" + to + "]:22"), Remote: netip.MustParseAddrPort("[2001:db8:1::99]:1")}
	for _, made := range [][]change.Way{nil, {way}, {{Family: "ipv4", Local: netip.MustParseAddrPort("192.0.2.10:22"), Remote: netip.MustParseAddrPort("192.0.2.20:1")}}} {
		p.Administered = made
		write()
		if out, err := l.ssh(to, binary+" harden apply --unproven --timeout 6s "+l.dir+"/plan.json; echo EXIT $?"); err != nil || !strings.Contains(out, "EXIT 4") || !strings.Contains(out, "without that way in") {
			t.Fatalf("a plan made for %v: %v\n%s", made, err, out)
		}
	}
	way.Remote = netip.MustParseAddrPort("[2001:db8:1::20]:1")
	p.Administered = []change.Way{way}
	write()
	out, err := l.sshFor(2*time.Second, to, binary+" harden apply --unproven --timeout 6s "+l.dir+"/plan.json")
	if err == nil {
		t.Fatalf("the session lives on: %s", out)
	}
	if out, err := l.sshFor(2*time.Second, "192.0.2.10", "true"); err == nil {
		t.Fatalf("the door is open: %s", out)
	}
	testlab.Eventually(t, 60*time.Second, "the door to open by itself", func() bool { _, err := l.ssh(to, "true"); return err == nil })
	out, err = l.ssh(to, binary+" harden status; echo EXIT $?; nft list tables; cat /proc/sys/net/ipv6/conf/eth0/accept_redirects; ip -6 route show default")
	if err != nil || !strings.Contains(out, "TAKEN BACK") || !strings.Contains(out, "EXIT 5") || strings.Contains(out, "inet sixfence") || !strings.Contains(out, "\n1\n") || !strings.Contains(out, "via 2001:db8:1::20") {
		t.Errorf("afterwards: %v\n%s", err, out)
	}
	if out, err := l.ssh(to, binary+" harden status --acknowledge >/dev/null; "+binary+" harden status; echo EXIT $?"); err != nil || !strings.Contains(out, "EXIT 0") {
		t.Errorf("after it was seen: %v\n%s", err, out)
	}
}
