package apply

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/model/change"
)

// The foreign writers are five programs that change the host all the time, each what is
// its own: kube-proxy, Docker, fail2ban, a routing daemon, a DHCPv6 client. Each looks,
// before its next step, whether all that it made is still as it made it, and says at the
// end what it expects to find. An operation that the kernel refuses changes nothing of
// what it expects: while we have IPv6 switched off, nobody can add to it or take from it.

// foreignObject finds an address or an interface that is a foreign writer's.
var foreignObject = regexp.MustCompile(`\b(2001:db8:f[0-3]|dk(br|veth|peer)\b)`)

// foreignAddress tells the addresses that the foreign writers use.
func foreignAddress(s string) bool { return foreignObject.MatchString(s) }

// foreignLink tells the interfaces of the one that plays Docker.
func foreignLink(name string) bool { return strings.HasPrefix(name, "dk") }

// seen are readings of what a writer owns: the same function reads it for the writer and
// for the judge.
var seen = map[string]func(arg string) string{
	"table": func(arg string) string { // a whole nft table, in the words of nft
		out, err := exec.Command("nft", append([]string{"-s", "list", "table"}, strings.Fields(arg)...)...).CombinedOutput()
		if err != nil {
			return "is absent"
		}
		return base64.StdEncoding.EncodeToString(out)
	},
	"set": func(arg string) string { // the addresses in a set, without what remains of their time
		out, err := exec.Command("nft", append([]string{"list", "set"}, strings.Fields(arg)...)...).CombinedOutput()
		if err != nil {
			return "is absent"
		}
		as := addressWord.FindAllString(string(out), -1)
		slices.Sort(as)
		return strings.Join(as, " ")
	},
	"route": func(arg string) string { // the next hops of a route, and whose it is
		out, _ := exec.Command("ip", append([]string{"-6", "route", "show"}, strings.Fields(arg)...)...).Output()
		var hops []string
		proto := ""
		for _, m := range hopWords.FindAllStringSubmatch(string(out), -1) {
			hops = append(hops, m[1]+" "+m[2])
		}
		if m := protoWord.FindStringSubmatch(string(out)); m != nil {
			proto = m[1]
		}
		switch slices.Sort(hops); {
		case len(hops) > 0:
			return proto + ": " + strings.Join(hops, ", ")
		case len(bytes.TrimSpace(out)) > 0:
			return proto + ": " + strings.Fields(string(out))[0]
		}
		return "is absent"
	},
	"address": func(arg string) string { // whether it is there, and with a lifetime
		a, ifname, _ := strings.Cut(arg, " ")
		out, _ := exec.Command("ip", "-o", "address", "show", "dev", ifname, "to", a).Output()
		switch s := string(out); {
		case len(s) == 0:
			return "is absent"
		case strings.Contains(s, "forever"):
			return "for ever"
		}
		return "for a time"
	},
	"link": func(arg string) string {
		out, err := exec.Command("ip", "-o", "link", "show", "dev", arg).Output()
		if err != nil {
			return "is absent"
		}
		if m := masterWord.FindStringSubmatch(string(out)); m != nil {
			return "in " + m[1]
		}
		return "present"
	},
	"sysctl": func(arg string) string {
		b, err := os.ReadFile("/proc/sys/" + arg)
		if err != nil {
			return "is absent"
		}
		return strings.TrimSpace(string(b))
	},
}

var (
	addressWord = regexp.MustCompile(`\b(?:192\.0\.2\.\d+|2001:db8:f3[0-9a-f:]*)`)
	hopWords    = regexp.MustCompile(`via (\S+) dev (\S+)`)
	protoWord   = regexp.MustCompile(`proto (\S+)`)
	masterWord  = regexp.MustCompile(`master (\S+)`)
)

// owner is what one writer expects: reading and its argument, to what is read.
type owner struct {
	name string
	want map[[2]string]string
	ops  int
	lost []string
	past []string // what it did of late, for whoever looks for a mistake
}

func (o *owner) set(reading, arg string) { o.want[[2]string{reading, arg}] = seen[reading](arg) }

// do runs a program; false when it failed, and so changed nothing.
func (o *owner) do(stdin, name string, args ...string) bool {
	c := exec.Command(name, args...)
	c.Stdin = strings.NewReader(stdin)
	o.ops++
	begun := time.Now()
	err := c.Run()
	o.past = append(o.past, fmt.Sprintf("%s+%v %v: %v", begun.Format("05.000"), time.Since(begun).Round(time.Millisecond), args, err))
	return err == nil
}

// check looks whether all that no switch of ours can take away is as it was left.
func (o *owner) check() {
	for k, want := range o.want {
		if k[0] != "table" && k[0] != "set" && k[0] != "link" && k[0] != "sysctl" {
			continue
		}
		if now := seen[k[0]](k[1]); now != want {
			o.lost = append(o.lost, fmt.Sprintf("%s: %s %s: %s, was left %s", o.name, k[0], k[1], now, want))
			o.want[k] = now
		}
	}
}

// kubeProxy writes its tables anew in transactions, and flushes its chains.
func kubeProxy(o *owner, r *rand.Rand) {
	var b strings.Builder
	for _, f := range []string{"ip", "ip6"} {
		t := f + " kube-proxy"
		fmt.Fprintf(&b, "add table %[1]s\nadd chain %[1]s services { type nat hook prerouting priority -100; }\nadd chain %[1]s endpoints\nadd set %[1]s cluster { type %[2]s_addr; }\nflush chain %[1]s services\nflush chain %[1]s endpoints\nflush set %[1]s cluster\n", t, map[string]string{"ip": "ipv4", "ip6": "ipv6"}[f])
		for n := range 1 + r.IntN(4) {
			if f == "ip" {
				fmt.Fprintf(&b, "add element %s cluster { 192.0.2.%d }\nadd rule %[1]s endpoints tcp dport %d dnat to 10.0.0.%d:80\n", t, 100+n, 1000+r.IntN(5000), n+1)
			} else {
				fmt.Fprintf(&b, "add element %s cluster { 2001:db8:f300::%d }\nadd rule %[1]s endpoints tcp dport %d dnat to [2001:db8:f300::%d]:80\n", t, n, 1000+r.IntN(5000), n+1)
			}
		}
		fmt.Fprintf(&b, "add rule %s services jump endpoints\n", t)
	}
	if o.do(b.String(), "nft", "-f", "-") {
		o.set("table", "ip kube-proxy")
		o.set("table", "ip6 kube-proxy")
	}
}

// docker lets a bridge, a veth pair, addresses and rules of iptables come and go.
func docker(o *owner, r *rand.Rand) {
	six := ""
	if o.want[[2]string{"link", "dkbr"}] == "present" {
		o.do("", "iptables-nft", "-F", "DOCKER")
		o.do("", "ip6tables-nft", "-F", "DOCKER")
		o.do("", "ip", "link", "del", "dkveth")
		o.do("", "ip", "link", "del", "dkbr")
	} else {
		o.do("", "iptables-nft", "-N", "DOCKER")
		o.do("", "ip6tables-nft", "-N", "DOCKER")
		o.do("", "ip", "link", "add", "dkbr", "type", "bridge")
		o.do("", "ip", "link", "add", "dkveth", "type", "veth", "peer", "name", "dkpeer")
		o.do("", "ip", "link", "set", "dkveth", "master", "dkbr", "up")
		o.do("", "ip", "link", "set", "dkpeer", "up")
		o.do("", "ip", "link", "set", "dkbr", "up")
		n := r.IntN(3)
		o.do("", "ip", "address", "add", fmt.Sprintf("172.18.%d.1/24", n), "dev", "dkbr")
		if a := fmt.Sprintf("2001:db8:f2%02x::1/64", n); o.do("", "ip", "address", "add", a, "dev", "dkbr") {
			six = a
		}
		o.do("", "iptables-nft", "-A", "DOCKER", "-p", "tcp", "--dport", fmt.Sprint(8000+r.IntN(99)), "-j", "ACCEPT")
		o.do("", "ip6tables-nft", "-A", "DOCKER", "-p", "tcp", "--dport", fmt.Sprint(8000+r.IntN(99)), "-j", "ACCEPT")
	}
	o.set("table", "ip filter")
	o.set("table", "ip6 filter")
	o.set("link", "dkbr")
	o.set("link", "dkveth")
	for n := range 3 {
		o.set("address", fmt.Sprintf("172.18.%d.1/24 dkbr", n))
		a := fmt.Sprintf("2001:db8:f2%02x::1/64", n) // a look may come while IPv6 is off
		o.want[[2]string{"address", a + " dkbr"}] = map[bool]string{true: "for ever", false: "is absent"}[a == six]
	}
}

// fail2ban bans and unbans in a set whose elements have their time.
func fail2ban(o *owner, r *rand.Rand) {
	b := "add table inet f2b-table\nadd set inet f2b-table addr-set-sshd { type ipv4_addr; flags timeout; }\nadd chain inet f2b-table f2b-chain { type filter hook input priority -1; }\n"
	key := [2]string{"set", "inet f2b-table addr-set-sshd"}
	a := fmt.Sprintf("192.0.2.%d", 1+r.IntN(30))
	if slices.Contains(strings.Fields(o.want[key]), a) {
		b = fmt.Sprintf("delete element inet f2b-table addr-set-sshd { %s }\n", a)
	} else {
		b += fmt.Sprintf("add element inet f2b-table addr-set-sshd { %s timeout %ds }\n", a, 3600+r.IntN(600))
	}
	if o.do(b, "nft", "-f", "-") {
		o.set(key[0], key[1])
	}
}

// hops are the gateways of the routing daemon: two on an interface that a plan may
// switch off alone, so that a route loses one of its next hops and not the other.
var hops = []string{"fe80::98 eth1", "fe80::97 eth1", "fe80::99 eth0"}

// routing adds, replaces and withdraws routes, of one next hop or of several.
func routing(o *owner, r *rand.Rand) {
	dst := fmt.Sprintf("2001:db8:f0%02x::/48", r.IntN(6))
	proto := []string{"bird", "zebra"}[r.IntN(2)]
	key := [2]string{"route", dst}
	if w := o.want[key]; w != "" && w != "is absent" && r.IntN(3) == 0 {
		if o.do("", "ip", "-6", "route", "del", dst, "metric", "3000") {
			o.want[key] = "is absent"
		}
		return
	}
	args := []string{"-6", "route", "replace"}
	want := ""
	if r.IntN(4) == 0 {
		args = append(args, "blackhole", dst, "proto", proto, "metric", "3000")
		want = proto + ": blackhole"
	} else {
		args = append(args, dst, "proto", proto, "metric", "3000")
		var use []string
		for len(use) == 0 {
			for _, h := range hops {
				if r.IntN(2) == 0 {
					use = append(use, h)
				}
			}
		}
		for _, h := range use {
			via, dev, _ := strings.Cut(h, " ")
			if len(use) > 1 {
				args = append(args, "nexthop")
			}
			args = append(args, "via", via, "dev", dev)
		}
		slices.Sort(use)
		want = proto + ": " + strings.Join(use, ", ")
	}
	if o.do("", "ip", args...) {
		o.want[key] = want
	}
}

// dhcp renews an address, and now and then gets another.
func dhcp(o *owner, r *rand.Rand) {
	args := func(verb string, n int) []string {
		return []string{"-6", "address", verb, fmt.Sprintf("2001:db8:f1ff::%x/128", n+1), "dev", "eth1", "valid_lft", fmt.Sprint(3600 + r.IntN(600)), "preferred_lft", "1800", "noprefixroute"}
	}
	key := func(n int) [2]string { return [2]string{"address", fmt.Sprintf("2001:db8:f1ff::%x/128 eth1", n+1)} }
	n := r.IntN(4)
	if o.want[key(n)] == "for a time" && r.IntN(3) == 0 {
		if o.do("", "ip", args("del", n)[:6]...) {
			o.want[key(n)] = "is absent"
		}
		return
	}
	if o.do("", "ip", args("replace", n)...) {
		o.want[key(n)] = "for a time"
	}
}

// administrator sets sysctls that are not ours.
func administrator(o *owner, r *rand.Rand) {
	keys := []string{"net/ipv6/conf/eth1/hop_limit", "net/ipv4/ip_default_ttl", "net/ipv6/conf/p1/max_addresses"}
	k := keys[r.IntN(len(keys))]
	o.ops++
	v := fmt.Sprint(32 + r.IntN(64))
	if os.WriteFile("/proc/sys/"+k, []byte(v), 0) == nil {
		o.want[[2]string{"sysctl", k}] = v
	}
}

// foreign is the process of them all. It runs until its input ends, and then says what
// is to be there.
func foreign(_ *mutate.Host) int {
	var ended atomic.Bool
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		ended.Store(true)
	}()
	all := []struct {
		name  string
		f     func(*owner, *rand.Rand)
		pause int // milliseconds at most, between two steps
	}{
		{"kube-proxy", kubeProxy, 60}, {"docker", docker, 60}, {"fail2ban", fail2ban, 30}, {"routing daemon", routing, 6}, {"DHCPv6 client", dhcp, 6}, {"administrator", administrator, 6},
	}
	var wg sync.WaitGroup
	var first sync.WaitGroup
	owners := make([]*owner, len(all))
	for i, w := range all {
		o := &owner{name: w.name, want: map[[2]string]string{}}
		owners[i] = o
		first.Add(1)
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(i)))
			for n := 0; n == 0 || !ended.Load(); n++ {
				o.check()
				w.f(o, r)
				if n == 0 {
					first.Done()
				}
				time.Sleep(time.Duration(r.IntN(1000*w.pause)) * time.Microsecond)
			}
		})
	}
	first.Wait()
	fmt.Println("ready")
	wg.Wait()
	for _, o := range owners {
		o.check()
		for k, v := range o.want {
			dst, _, _ := strings.Cut(k[1], " ")
			past := slices.DeleteFunc(slices.Clone(o.past), func(s string) bool { return !strings.Contains(s, dst) })
			fmt.Printf("want\t%s\t%s\t%s\t%s\t%s\n", o.name, k[0], k[1], v, strings.Join(past[max(0, len(past)-5):], " | "))
		}
		for _, l := range o.lost {
			fmt.Printf("lost\t%s\n", l)
		}
		fmt.Printf("operations\t%s\t%d\n", o.name, o.ops)
	}
	return 0
}

// writers are the foreign writers of a lab.
type writers struct {
	l    *lab
	c    *exec.Cmd
	in   io.Closer
	said *bytes.Buffer
	past []string // what they did last to the things that are not as they left them
}

// disturb starts the foreign writers, and returns when each has written something.
func (l *lab) disturb() *writers {
	l.t.Helper()
	w := &writers{l: l, c: l.command("foreign"), said: &bytes.Buffer{}}
	ready := make(chan struct{})
	var once sync.Once
	w.c.Stdout = writerFunc(func(b []byte) (int, error) {
		once.Do(func() { close(ready) })
		return w.said.Write(b)
	})
	in, err := w.c.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	w.in = in
	if err := w.c.Start(); err != nil {
		l.t.Fatal(err)
	}
	select {
	case <-ready:
	case <-time.After(patience):
		l.t.Fatal("the foreign writers never began")
	}
	return w
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// end stops the writers and tells what is not as they left it.
func (w *writers) end() (lost []string, operations int) {
	w.l.t.Helper()
	_ = w.in.Close()
	if err := w.c.Wait(); err != nil {
		lost = append(lost, fmt.Sprintf("the foreign writers: %v", err))
	}
	busy := map[string]bool{}
	w.l.ns.Do(func() {
		for line := range strings.Lines(w.said.String()) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			switch {
			case f[0] == "lost":
				lost = append(lost, f[1])
			case f[0] == "want" && len(f) == 6:
				// A program that is started here is started in the namespace.
				if now := seen[f[2]](f[3]); now != f[4] {
					lost = append(lost, fmt.Sprintf("%s: %s %s: %s, was left %s", f[1], f[2], f[3], now, f[4]))
					w.past = append(w.past, f[5])
				}
			case f[0] == "operations" && len(f) == 3:
				n := 0
				_, _ = fmt.Sscan(f[2], &n)
				operations += n
				busy[f[1]] = n > 0
			}
		}
	})
	if len(busy) != 6 || slices.Contains([]bool{busy["kube-proxy"], busy["docker"], busy["fail2ban"], busy["routing daemon"], busy["DHCPv6 client"], busy["administrator"]}, false) {
		lost = append(lost, "a foreign writer did nothing: "+w.said.String())
	}
	return lost, operations
}

// lostForGood tells whether what is not as a foreign writer left it is what the plan, now
// confirmed, was to take away.
func lostForGood(p *change.Plan, what string) bool {
	for _, s := range p.Steps {
		switch s.ID {
		case "all-off":
			if strings.Contains(what, ": route ") && strings.Contains(what, " is absent, was left ") || strings.Contains(what, ": address 2001:") {
				return true
			}
		case "sysctl:net/ipv6/conf/eth0/disable_ipv6":
			if !strings.Contains(what, ": route ") || !strings.Contains(what, "eth0") {
				continue
			}
			_, rest, _ := strings.Cut(what, ": route ")
			_, states, _ := strings.Cut(rest, ": ")
			now, left, _ := strings.Cut(states, ", was left ")
			var without []string
			proto, list, _ := strings.Cut(left, ": ")
			for h := range strings.SplitSeq(list, ", ") {
				if !strings.HasSuffix(h, " eth0") {
					without = append(without, h)
				}
			}
			if len(without) == 0 && now == "is absent" || now == proto+": "+strings.Join(without, ", ") {
				return true
			}
		}
	}
	return false
}
