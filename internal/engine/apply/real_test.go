package apply

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// background starts a program of somebody else's in the lab and ends it with the test.
func (l *lab) background(t *testing.T, name string, args ...string) {
	t.Helper()
	c := l.ns.Command(testlab.RequireTool(t, name), args...)
	c.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(unix.SIGTERM)
		done := make(chan struct{})
		go func() { _ = c.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = c.Process.Kill()
			<-done
		}
	})
}

// TestRealPrograms has the real BIRD and the real fail2ban change the host during a
// transaction in which something goes wrong: in the end the kernel has what they say that
// it has. `make harden-faults` runs it, which installs them.
func TestRealPrograms(t *testing.T) {
	runs, err := strconv.Atoi(os.Getenv("HARDEN_REAL"))
	if err != nil {
		t.Skip("make harden-faults installs the programs and runs it")
	}
	t.Parallel()
	tally := newTally()
	t.Run("runs", func(t *testing.T) {
		for n := range runs {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				var res faultResult
				defer func() { tally.take(res); tally.add(t, nil) }()
				realRun(t, rand.New(rand.NewPCG(11, uint64(n))), &res)
			})
		}
	})
	tally.report(t, 4, "Beside the real BIRD and the real fail2ban", map[string]int{"runs": runs})
}

func realRun(t *testing.T, r *rand.Rand, res *faultResult) {
	l := newLab(t)
	dir := l.dir + "/theirs"
	for _, d := range []string{"", "/f2b", "/f2b/action.d", "/f2b/filter.d"} {
		if err := os.Mkdir(dir+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// BIRD: static routes, exported into the kernel.
	var routes []string
	configure := func() {
		routes = nil
		var b strings.Builder
		b.WriteString("router id 192.0.2.1;\nprotocol device { }\nprotocol kernel { metric 3000; ipv6 { export all; }; }\nprotocol static {\n ipv6;\n")
		for n := range 6 {
			if r.IntN(3) == 0 {
				continue
			}
			dst := fmt.Sprintf("2001:db8:f0%02x::/48", n)
			routes = append(routes, dst)
			fmt.Fprintf(&b, " route %s via %s;\n", dst, []string{"fe80::98%eth1", "fe80::99%eth0", "fe80::97%eth1"}[r.IntN(3)])
		}
		b.WriteString("}\n")
		file("bird.conf", b.String())
	}
	configure()
	l.background(t, "bird", "-f", "-c", dir+"/bird.conf", "-s", dir+"/bird.ctl", "-P", dir+"/bird.pid")
	// fail2ban: bans by hand, in a set of its own table.
	common, err := os.ReadFile("/etc/fail2ban/action.d/nftables.conf")
	if err != nil {
		t.Fatal(err)
	}
	file("f2b/action.d/nftables.conf", string(common))
	file("f2b/filter.d/lab.conf", "[Definition]\nfailregex = ^never <HOST>$\n")
	file("f2b/fail2ban.conf", "[Definition]\nloglevel = INFO\nlogtarget = "+dir+"/f2b.log\nsyslogsocket = auto\nsocket = "+dir+"/f2b.sock\npidfile = "+dir+"/f2b.pid\ndbfile = None\ndbpurgeage = 1d\n")
	file("f2b/jail.conf", "[lab]\nenabled = true\nfilter = lab\nbackend = polling\nlogpath = "+dir+"/empty.log\nbantime = 3600\nfindtime = 600\nmaxretry = 5\nport = ssh\nprotocol = tcp\nchain = INPUT\naction = nftables[name=lab, port=ssh, protocol=tcp]\n")
	file("empty.log", "")
	f2b := func(args ...string) (string, error) {
		c := l.ns.Command("fail2ban-client", append([]string{"-c", dir + "/f2b", "-s", dir + "/f2b.sock", "-p", dir + "/f2b.pid"}, args...)...)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	l.background(t, "fail2ban-server", "-f", "-x", "-c", dir+"/f2b", "-s", dir+"/f2b.sock", "-p", dir+"/f2b.pid", "start")
	testlab.Eventually(t, patience, "fail2ban to answer", func() bool { _, err := f2b("status", "lab"); return err == nil })
	bird := func(args ...string) (string, error) {
		out, err := exec.Command("birdc", append([]string{"-s", dir + "/bird.ctl"}, args...)...).CombinedOutput()
		return string(out), err
	}
	testlab.Eventually(t, patience, "bird to write its routes", func() bool {
		_, err := bird("show", "status")
		return err == nil && strings.Count(l.ns.IP("-6", "route", "show", "proto", "bird"), "2001:db8:f0") == len(routes)
	})

	p := l.random(r)
	l.write(p)
	x := &trial{l: l, p: p, timeout: time.Minute, undo: "none:0", again: "rollback", faults: map[string]string{}, before: l.projection(p)}
	x.want = func() []string { return intended(t, p) }
	x.ending = []string{"expire", "confirm", "rollback"}[r.IntN(3)]
	if x.ending == "expire" {
		x.timeout = 2 * time.Second
	}
	// In a third of the runs nothing goes wrong but that the others write, too.
	x.faults[[]string{"apply", x.ending, "nobody"}[r.IntN(3)]] = fmt.Sprintf("%s:%d", []string{"kill", "hup", "eperm", "enospc"}[r.IntN(4)], aim(r, 90))
	stop, stopped := make(chan struct{}), make(chan struct{})
	operations := 0
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			configure()
			_, _ = bird("configure")
			verb := []string{"banip", "unbanip"}[r.IntN(2)]
			_, _ = f2b("set", "lab", verb, fmt.Sprintf("192.0.2.%d", 1+r.IntN(9)))
			operations += 2
		}
	}()
	x.run(t, map[string]int{})
	close(stop)
	<-stopped
	x.res.operations = operations
	*res = x.res

	// What they say is what there is.
	confirmedOff := slices.ContainsFunc(p.Steps, func(s change.Step) bool { return s.ID == "all-off" }) && slices.Contains(x.res.counts, "ended as intended")
	if !confirmedOff {
		testlab.Eventually(t, patience, "BIRD's routes to be the kernel's", func() bool {
			want, _ := bird("show", "route")
			have := l.ns.IP("-6", "route", "show", "proto", "bird")
			for n := range 6 {
				dst := fmt.Sprintf("2001:db8:f0%02x::/48", n)
				if strings.Contains(want, dst) != strings.Contains(have, dst) {
					return false
				}
			}
			return true
		})
	}
	testlab.Eventually(t, patience, "fail2ban's bans to be the kernel's", func() bool {
		banned, err := f2b("get", "lab", "banip")
		if err != nil {
			return false
		}
		want := addressWord.FindAllString(banned, -1)
		slices.Sort(want)
		out, _ := l.ns.Command("nft", "list", "table", "inet", "f2b-table").CombinedOutput()
		have := addressWord.FindAllString(string(out), -1)
		slices.Sort(have)
		return slices.Equal(want, have)
	})
}
