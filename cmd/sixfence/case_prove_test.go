package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestWhereNothingCanBeProven takes away what a proof needs, really: nft, then the right to
// make user namespaces. plan says that nothing is proven and why, apply refuses and changes
// nothing, and says how a person decides all the same.
func TestWhereNothingCanBeProven(t *testing.T) {
	nft := testlab.RequireTool(t, "nft")
	host, far := testlab.NewNS(t, "unp"), testlab.NewNS(t, "unpf")
	testlab.Link(host, "eth0", far, "eth0")
	host.AddAddr("eth0", "2001:db8:1::10/64")
	host.IP("address", "add", "192.0.2.10/24", "dev", "eth0")
	dir := t.TempDir()
	intent := "apiVersion: sixfence/v1\nrole: server\ninterfaces:\n  eth0: {addressing: static}\nservices:\n  - {name: web, ports: [tcp/443]}\n"
	if err := os.WriteFile(filepath.Join(dir, "site.yaml"), []byte(intent), 0o600); err != nil {
		t.Fatal(err)
	}
	const private = `mount -t tmpfs tmpfs /mnt; mkdir /mnt/u /mnt/w /mnt/root
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc
mount -t tmpfs -o mode=755 tmpfs /var/lib; mount -t tmpfs -o mode=700 tmpfs /root
mkdir -p /etc/sixfence; rm -rf /etc/sixfence/*; cp "$1/site.yaml" /etc/sixfence/sixfence.yaml; cd /root
say() { "$@" >said 2>&1 && code=0 || code=$?; echo "EXIT $code"; cat said; rm said; }
`
	try := func(script string) string {
		t.Helper()
		c := host.Command("unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c", private+script, "sh", dir, binary, nft)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	want := func(where, out string, words ...string) {
		t.Helper()
		for _, w := range words {
			before, after, ok := strings.Cut(out, w)
			if !ok {
				t.Errorf("%s: no %q in %s", where, w, before)
				return
			}
			out = after
		}
	}
	// The rules that are planned cannot be loaded at all: that refuses the plan.
	out := try(`$2 harden plan -o plan.json >/dev/null
mount --bind /dev/null $3
say $2 harden plan
say $2 harden apply plan.json
say $2 harden apply --unproven plan.json
umount $3; say nft list tables; say $2 harden status`)
	want("without nft", out, "EXIT 4 REFUSED", "nft is not installed", "Way out: install the package nftables",
		"EXIT 4", "could not be fired at: nft is not installed", "EXIT 2", "nft is not installed", "EXIT 0 EXIT 0 No change")
	// Nobody may make a user namespace from within a chroot. Nothing of it is applied, unless
	// a person says so.
	out = try(`mount --rbind / /mnt/root
cat >inside <<'S'
cd /root; say() { "$@" >said 2>&1 && code=0 || code=$?; echo "EXIT $code"; cat said; rm said; }
say $1 harden plan -o plan.json
say $1 harden apply plan.json
say nft list tables
say $1 harden apply --unproven plan.json
say nft list tables
say $1 harden rollback
S
cp inside /mnt/root/root/inside 2>/dev/null || true
chroot /mnt/root sh -eu /root/inside $2
cp plan.json $1/plan.json; say nft list tables`)
	const unknown = "could not be fired at: no scratch namespace could be made: run /proc/self/exe in namespaces: fork/exec /proc/self/exe: operation not permitted"
	want("in a chroot", out, "EXIT 3", "NOT PROVEN: no scratch namespace could be made", "operation not permitted", "So nothing was fired at the planned state",
		"Apply refuses it.", "user namespaces are forbidden here", "--unproven",
		"EXIT 4", unknown, "hint: user namespaces are forbidden here", "EXIT 0 EXIT 0", unknown, "(--unproven: applied all the same)", "harden confirm",
		"EXIT 0 table inet sixfence EXIT 0", "EXIT 0")
	b, err := os.ReadFile(filepath.Join(dir, "plan.json"))
	var p change.Plan
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil || p.Proof == nil || p.Proof.Status != change.Unproven || p.Proof.Shots != 0 {
		t.Errorf("the plan of a chroot: %v, proof %+v", err, p.Proof)
	}
	// The same where the number of them is 0, as in many containers.
	out = try(`unshare --user --map-root-user --net --mount sh -euc '
ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up; ip address add 192.0.2.1/24 dev v0
echo 0 >/proc/sys/user/max_user_namespaces
code=0; $0 harden plan --intent $1/site.yaml || code=$?; echo EXIT $code' $2 $1`)
	want("with no user namespaces", out, "NOT PROVEN: no scratch namespace could be made", "no space left on device", "Apply refuses it.", "user.max_user_namespaces", "EXIT 3")
}
