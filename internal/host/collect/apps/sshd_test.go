package apps

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestSSHDOracle compares family, ports and addresses with what `sshd -T` says of
// random configurations, with includes and Match blocks.
func TestSSHDOracle(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	sshd := testlab.RequireTool(t, "sshd")
	keygen := testlab.RequireTool(t, "ssh-keygen")
	key := t.TempDir() + "/key"
	if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s", err, out)
	}
	r := rand.New(rand.NewPCG(22, 6))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	line := func() string {
		l := pick("AddressFamily any", "AddressFamily inet", "addressfamily=inet6", "Port 22", "Port 2222", "Port = 22", "ListenAddress ::", "ListenAddress 0.0.0.0", "ListenAddress 127.0.0.1:2200", "ListenAddress [::1]:2201", "ListenAddress \"192.0.2.1\"", "ListenAddress 2001:db8::1", "# AddressFamily inet", "  PermitRootLogin no", "")
		return pick("", "", "\t") + l + pick("", "", "  # comment")
	}
	match := func() string {
		return pick("Match Address 192.0.2.0/24,!192.0.2.7\n  PermitRootLogin yes\n", "Match all\n", "Match User x\nX11Forwarding no\n", "")
	}
	text := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString(line() + "\n")
		}
		return b.String()
	}
	agreed, families := 0, map[string]bool{}
	for i := range 24 {
		files := map[string]string{
			"etc/ssh/sshd_config":           text(r.IntN(3)) + pick("Include /etc/ssh/sshd_config.d/*.conf\n", "include sshd_config.d/*.conf sshd_config.d/a.conf\n", "") + text(r.IntN(4)) + match(),
			"etc/ssh/sshd_config.d/a.conf":  text(r.IntN(3)) + match(),
			"etc/ssh/sshd_config.d/b.conf":  text(r.IntN(3)),
			"etc/ssh/sshd_config.d/z.other": text(2),
		}
		apps, dir := decodeTree(t, files)
		got, ok := apps.SSHD.Get()
		if !ok {
			t.Fatalf("config %d: no value", i)
		}
		script := fmt.Sprintf("mount -t tmpfs tmpfs /run && mkdir -p /run/sshd && mount --bind %s/etc/ssh /etc/ssh && exec %s -T -h %s -f /etc/ssh/sshd_config", dir, sshd, key)
		out, err := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script).CombinedOutput()
		if err != nil {
			// sshd refuses some combinations (an address of the family that is off).
			if strings.Contains(string(out), "not allowed within a Match block") || strings.Contains(string(out), "bad addr or host") || strings.Contains(string(out), "Address family for hostname") {
				continue
			}
			t.Fatalf("config %d: sshd -T: %v\n%s\n%v", i, err, out, files)
		}
		var family string
		var ports, listen []string
		for _, l := range strings.Split(string(out), "\n") {
			k, v, _ := strings.Cut(l, " ")
			switch k {
			case "addressfamily":
				family = v
			case "port":
				ports = append(ports, v)
			case "listenaddress":
				listen = append(listen, v)
			}
		}
		agreed++
		families[family] = true
		if got.AddressFamily != family {
			t.Errorf("config %d: family %s, sshd says %s\n%v", i, got.AddressFamily, family, files)
		}
		if want := strings.Join(ports, " "); want != strings.Trim(fmt.Sprint(got.Ports), "[]") {
			t.Errorf("config %d: ports %v, sshd says %v\n%v", i, got.Ports, want, files)
		}
		if len(got.Listen) > 0 {
			slices.Sort(listen)
			mine := slices.Clone(got.Listen)
			slices.Sort(mine)
			if !slices.Equal(slices.Compact(mine), slices.Compact(listen)) {
				t.Errorf("config %d: listens on %v, sshd says %v\n%v", i, mine, listen, files)
			}
		} else if !slices.ContainsFunc(listen, func(s string) bool { return strings.HasPrefix(s, "[::]") || strings.HasPrefix(s, "0.0.0.0") }) {
			t.Errorf("config %d: no address is set, sshd listens on %v", i, listen)
		}
	}
	if agreed < 12 || len(families) < 3 {
		t.Errorf("only %d configurations compared, families %v: this shows little", agreed, families)
	}
}

func TestSSHDSources(t *testing.T) {
	t.Parallel()
	apps, _ := decodeTree(t, map[string]string{"etc/ssh/sshd_config": "AllowUsers root@192.0.2.* admin@2001:db8::/32 plain\nDenyUsers *@10.0.0.0/8\nMatch User x Address 198.51.100.0/24,!2001:db8:1::1\nMatch Address\n"})
	s, ok := apps.SSHD.Get()
	if !ok {
		t.Fatal("no value")
	}
	var got []string
	for _, m := range s.MatchAddresses {
		got = append(got, fmt.Sprintf("%s %s %s:%d", m.Keyword, m.Pattern, m.Action, m.Origin.Line))
	}
	want := []string{"AllowUsers 192.0.2.* allow:1", "AllowUsers 2001:db8::/32 allow:1", "DenyUsers 10.0.0.0/8 deny:2", "Match Address 198.51.100.0/24 :3", "Match Address !2001:db8:1::1 :3"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if len(apps.Gaps) != 1 || apps.Gaps[0].Reason != fact.ParseGap || apps.Gaps[0].What != "/etc/ssh/sshd_config:4" {
		t.Errorf("gaps %v", apps.Gaps)
	}
	if none, _ := decodeTree(t, nil); none.SSHD.State() != fact.StateAbsent || none.Postgres.State() != fact.StateAbsent || none.Fail2ban.State() != fact.StateAbsent {
		t.Errorf("an empty tree: %+v", none)
	}
}
