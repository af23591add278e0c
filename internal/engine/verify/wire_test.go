package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	hostprobe "github.com/sixfence/sixfence/internal/host/probe"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// frame is one that left the client.
type frame struct {
	at   time.Time
	what string // for whom, in words
	ip   bool   // a probe, not what the kernel asks a neighbour
}

// capture hears every frame that leaves by an interface, from the device itself: no rule
// and no socket option is between.
func capture(t *testing.T, n *testlab.NS, ifname string) (stop func() []frame) {
	t.Helper()
	fd := -1
	n.Do(func() {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			t.Error(err)
			return
		}
		all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			t.Error(err)
			return
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}); err != nil {
			t.Error(err)
		}
	})
	if fd < 0 || t.Failed() {
		t.FailNow()
	}
	done := make(chan struct{})
	var frames []frame
	var all sync.WaitGroup
	all.Go(func() {
		buf, oob := make([]byte, 2048), make([]byte, 256)
		for {
			k, ok, _, from, err := unix.Recvmsg(fd, buf, oob, 0)
			if err != nil {
				select {
				case <-done:
					return
				default:
					continue
				}
			}
			if l, is := from.(*unix.SockaddrLinklayer); !is || l.Pkttype != unix.PACKET_OUTGOING {
				continue
			}
			f := describe(buf[:k])
			if ms, err := unix.ParseSocketControlMessage(oob[:ok]); err == nil {
				for _, m := range ms {
					if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
						f.at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
					}
				}
			}
			frames = append(frames, f)
		}
	})
	return func() []frame {
		close(done)
		all.Wait()
		if s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err != nil || s.Drops > 0 {
			t.Errorf("the capture lost frames: %+v %v", s, err)
		}
		unix.Close(fd)
		return frames
	}
}

// describe says for whom a frame is.
func describe(b []byte) frame {
	switch typ := binary.BigEndian.Uint16(b[12:]); {
	case typ == unix.ETH_P_ARP && len(b) >= 42:
		return frame{what: "ARP for " + netip.AddrFrom4([4]byte(b[38:42])).String()}
	case typ == unix.ETH_P_IP && len(b) >= 34:
		return frame{what: netip.AddrFrom4([4]byte(b[30:34])).String(), ip: true}
	case typ == unix.ETH_P_IPV6 && len(b) >= 54:
		dst := netip.AddrFrom16([16]byte(b[38:54]))
		if nd, _, target, ok := testlab.ND(b); ok && (nd == 135 || nd == 136) {
			return frame{what: map[uint8]string{135: "solicitation for ", 136: "advertisement of "}[nd] + target.String()}
		}
		return frame{what: dst.String(), ip: true}
	}
	return frame{what: fmt.Sprintf("%x", b[:14])}
}

// wireLab is a client, c0, and a target that drops nearly everything, with a router between
// or without.
func wireLab(t *testing.T, routed bool) (client *testlab.NS) {
	host := func(hint string) *testlab.NS {
		n := testlab.NewNS(t, hint)
		for _, k := range []string{"default", "all"} {
			n.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
			n.Sysctl("net/ipv6/conf/"+k+"/router_solicitations", "0")
		}
		return n
	}
	client = host("wirc")
	target := host("wirt")
	if routed {
		router := host("wirr")
		router.Sysctl("net/ipv4/ip_forward", "1")
		router.Sysctl("net/ipv6/conf/all/forwarding", "1")
		testlab.Link(client, "c0", router, "r0")
		testlab.Link(router, "r1", target, "t0")
		router.IP("addr", "add", "198.51.100.254/24", "dev", "r0")
		router.IP("addr", "add", "192.0.2.254/24", "dev", "r1")
		router.AddAddr("r0", "2001:db8:c::fe/64")
		router.AddAddr("r1", "2001:db8::fe/64")
		client.IP("addr", "add", "198.51.100.1/24", "dev", "c0")
		client.AddAddr("c0", "2001:db8:c::1/64")
		target.IP("addr", "add", "192.0.2.2/24", "dev", "t0")
		target.AddAddr("t0", "2001:db8::2/64")
		client.IP("route", "add", "default", "via", "198.51.100.254")
		client.IP("-6", "route", "add", "default", "via", "2001:db8:c::fe")
		target.IP("route", "add", "default", "via", "192.0.2.254")
		target.IP("-6", "route", "add", "default", "via", "2001:db8::fe")
	} else {
		testlab.Link(client, "c0", target, "t0")
		client.IP("addr", "add", "192.0.2.1/24", "dev", "c0")
		client.AddAddr("c0", "2001:db8::1/64")
		target.IP("addr", "add", "192.0.2.2/24", "dev", "t0")
		target.AddAddr("t0", "2001:db8::2/64")
	}
	c := target.Command(testlab.RequireTool(t, "nft"), "-f", "-")
	c.Stdin = strings.NewReader("table inet f {\nchain i {\ntype filter hook input priority 0; policy drop;\nmeta l4proto { icmp, icmpv6 } accept\ntcp dport 22 accept\nudp dport 5000-5001 accept\n}\n}\n")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	return client
}

// TestWire: whatever is asked and found, frames go to the addresses that were named, to
// those of the neighbour or router on the way there, and to nobody else; and no faster than
// the documented rates.
func TestWire(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var rows []string
	if path := os.Getenv("VERIFY_LAB_REPORT"); path != "" {
		t.Cleanup(func() {
			slices.Sort(rows)
			if err := os.WriteFile(path, []byte(strings.Join(rows, "")), 0o600); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range []struct {
		name           string
		routed, client bool
		ports          string
		rate           int
		also           []string // whom the kernel asks
	}{
		{
			name: "on the link", ports: "tcp/1-10000 udp/5000-5003 echo", rate: hostprobe.RateOnLink,
			also: []string{"ARP for 192.0.2.2", "ARP for 192.0.2.77", "solicitation for 2001:db8::2", "solicitation for 2001:db8::77", "advertisement of 2001:db8::1"},
		},
		{
			name: "on the link, connecting", client: true, ports: "tcp/1-1000 udp/5000-5003 echo", rate: hostprobe.RateOnLink,
			also: []string{"ARP for 192.0.2.2", "ARP for 192.0.2.77", "solicitation for 2001:db8::2", "solicitation for 2001:db8::77", "advertisement of 2001:db8::1"},
		},
		{
			name: "behind a router", routed: true, ports: "tcp/1-2000 udp/5000-5003 echo", rate: hostprobe.RateRouted,
			also: []string{"ARP for 198.51.100.254", "solicitation for 2001:db8:c::fe", "advertisement of 2001:db8:c::1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := wireLab(t, c.routed)
			stop := capture(t, client, "c0")
			spec := &probe.Spec{}
			for w := range strings.FieldsSeq(c.ports) {
				if err := spec.Parse(w); err != nil {
					t.Fatal(err)
				}
			}
			named := []string{"192.0.2.2", "192.0.2.77", "2001:db8::2", "2001:db8::77"} // nobody has .77
			var targets []Target
			for _, a := range named {
				targets = append(targets, Target{Name: a, Addrs: []netip.Addr{netip.MustParseAddr(a)}})
			}
			client.Do(func() {
				if c.client { // sockets are opened all the time, and on this thread alone in the namespace
					for _, a := range named {
						p, err := hostprobe.Open(hostprobe.Options{Target: a, Addr: netip.MustParseAddr(a), Spec: spec, Connect: true, Patience: 3 * time.Second})
						if err == nil {
							err = p.Run(context.Background())
							p.Close()
						}
						if err != nil {
							t.Errorf("%s: %v", a, err)
						}
					}
					return
				}
				r, err := Open(Options{Targets: targets, Spec: spec, Patience: 3 * time.Second})
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				if err := r.Do(context.Background()); err != nil {
					t.Error(err)
				}
			})
			frames := stop()
			// The kernel's own: groups it joins, and the answers it gives.
			allowed := append(slices.Clone(named), c.also...)
			seen := map[string]int{}
			var times []time.Time
			for _, f := range frames {
				seen[f.what]++
				if f.ip && slices.Contains(named, f.what) {
					times = append(times, f.at)
				}
			}
			for what, n := range seen {
				own := what == "ff02::16" || strings.HasPrefix(what, "advertisement of fe80::") || strings.HasPrefix(what, "solicitation for fe80::")
				if !slices.Contains(allowed, what) && !own {
					t.Errorf("%d frames for %s, whom nobody named", n, what)
				}
			}
			if seen["192.0.2.2"] < 1000 || seen["2001:db8::2"] < 1000 {
				t.Errorf("the capture heard too little: %v", seen)
			}
			most, all := fastest(times)
			// A packet may be two milliseconds early.
			if limit := c.rate/10 + c.rate/500 + 50; most > limit {
				t.Errorf("%d packets in a tenth of a second, more than %d", most, limit)
			}
			var kernel []string
			for what := range seen {
				if !slices.Contains(named, what) {
					kernel = append(kernel, what)
				}
			}
			slices.Sort(kernel)
			mu.Lock()
			defer mu.Unlock()
			rows = append(rows, fmt.Sprintf("| %s | %s | %d | %d | %d | %s |\n", c.name, c.ports, len(times), all, most*10, strings.Join(kernel, ", ")))
		})
	}
}

// fastest is the number of packets in the fullest tenth of a second, and the average over
// a second of the whole.
func fastest(ts []time.Time) (most, average int) {
	slices.SortFunc(ts, time.Time.Compare)
	from := 0
	for i, t := range ts {
		for t.Sub(ts[from]) > 100*time.Millisecond {
			from++
		}
		most = max(most, i-from+1)
	}
	if len(ts) > 1 {
		average = int(float64(len(ts)) / max(0.001, ts[len(ts)-1].Sub(ts[0]).Seconds()))
	}
	return most, average
}
