package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab"
)

// TestFetchedSnapshot: the rules of the target are read over ssh, as the user that is
// logged in there, and by nobody who lies or is cut off.
func TestFetchedSnapshot(t *testing.T) {
	t.Parallel()
	l := newViaLab(t, ownTemp)
	nftIn(t, l.far, "table inet f {\nchain i {\ntype filter hook input priority 0; policy drop;\nct state established accept\nmeta l4proto { icmp, icmpv6 } accept\n"+
		"tcp dport { 9, 22, 2222 } accept\n}\n}\n")
	ask := []string{"2001:db8:1::2", "--ports", "tcp/9,tcp/22,tcp/80", "--format", "json"}
	answers := func(r outcome) (out []string) {
		for _, x := range r.doc.Results {
			out = append(out, fmt.Sprintf("%d %s %s %s", x.Port, x.State, x.Predicted, x.Verdict))
		}
		return out
	}
	r := l.run(append(ask, "--snapshot", viaHost)...)
	if want := []string{"9 closed closed match", "22 open open match", "80 filtered filtered match"}; !slices.Equal(answers(r), want) || r.code != 0 || r.errOut != "" {
		t.Errorf("root: exit %d %q\n%s", r.code, answers(r), r.errOut)
	}
	l.clean("after root")
	// An ordinary user may not read rules: that is a gap, and says nothing.
	r = l.run(append(ask, "--snapshot", "ssh://probe@192.0.2.2")...)
	if want := []string{"9 closed unknown unknown", "22 open unknown unknown", "80 filtered unknown unknown"}; !slices.Equal(answers(r), want) || r.code != 3 ||
		!strings.Contains(r.errOut, "--snapshot ssh://root@192.0.2.2") {
		t.Errorf("an ordinary user: exit %d %q\n%s", r.code, answers(r), r.errOut)
	}
	l.clean("after an ordinary user")
	// Seen from there, and compared with what the rules there say.
	r = l.run(append(ask, "--snapshot", viaHost, "--via", viaHost)...)
	if r.code != 3 || len(r.doc.Results) != 3 || r.doc.Results[0].Verdict != "unknown" { // it looks at itself
		t.Errorf("from the target itself: exit %d %q\n%s", r.code, answers(r), r.errOut)
	}
	l.clean("after both")
	for _, bad := range []string{"ssh://-oProxyCommand=id", "ssh://a;id", "ssh://"} {
		if r = l.run(append(ask, "--snapshot", bad)...); r.code != 2 || r.out != "" || !strings.Contains(r.errOut, "write ssh://host") {
			t.Errorf("%s: exit %d\n%s", bad, r.code, r.errOut)
		}
	}
	if r = l.run(append(ask, "--snapshot", "ssh://root@[2001:db8:1::2]:9")...); r.code != 2 || r.out != "" || !strings.Contains(r.errOut, "onnection refused") {
		t.Errorf("nobody there: exit %d\n%s", r.code, r.errOut)
	}

	// The line is cut while the program is copied, while it reads the host, and while it sends.
	for _, cut := range []time.Duration{0, 100, 300, 600, 900, 1300} {
		c := l.command(append(ask, "--snapshot", viaHost)...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		testlab.Eventually(t, time.Minute, "the shell there", func() bool { return len(l.there()) > 0 })
		time.Sleep(cut * time.Millisecond)
		_ = c.Process.Kill()
		_ = c.Wait()
		l.clean(fmt.Sprintf("when it was cut after %d ms", cut))
	}

	for name, c := range map[string]struct{ script, want string }{
		"too large":        {`echo '{"size":999999999999}'; sleep 1`, "Snapshot of 999999999999 bytes"},
		"less than none":   {`echo '{"size":-1}'; sleep 1`, "Snapshot of -1 bytes"},
		"cut short":        {`echo '{"size":100}'; echo x`, "connection ended"},
		"no JSON":          {`echo '{"size":4}'; printf '\033[2J'`, "read snapshot of ssh://"},
		"a report":         {`echo '{"size":15}'; echo '{"findings":[]}'`, "not a snapshot"},
		"another version":  {`echo '{"size":25}'; echo '{"schemaVersion":"999.0"}'`, "999"},
		"a claim":          {`printf '%s\n' "$honest"`, "connection ended"},
		"a problem":        {`echo '{"problem":"\u001b[2Jno"}'`, "could not read a Snapshot"},
		"an endless line":  {`cat /dev/zero`, "a line of more than"},
		"it says no more":  {`echo '{"size":100}'; exit 0`, "connection ended"},
		"nothing is known": {`echo '{"size":40}'; echo '{"schemaVersion":"1.0","namespaces":[]}          '`, "no network namespace"},
	} {
		l.write("liar", liar+"ready; "+c.script+"\n")
		if err := os.Chmod(filepath.Join(l.dir, "liar"), 0o755); err != nil {
			t.Fatal(err)
		}
		l.write("authorized", `command="/mnt/liar" `+l.read("home/.ssh/id_ed25519.pub"))
		r := l.run(append(ask, "--snapshot", viaHost)...)
		if r.code != 2 || r.out != "" || !strings.Contains(r.errOut, c.want) || len(r.errOut) > 3000 {
			t.Errorf("%s: exit %d, want a complaint about %q\n%.1000s\n%.1000s", name, r.code, c.want, r.out, r.errOut)
		}
		l.clean(name)
	}
}
