package testlab

import (
	"strings"
	"testing"
	"time"
)

// kernelRAOff is every sysctl that a hardening guide sets.
var kernelRAOff = []string{"net/ipv6/conf/all/accept_ra=0", "net/ipv6/conf/default/accept_ra=0"}

func TestNetworkdTakesRAsInUserspace(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "nwd", kernelRAOff...)
	d := p.Victim.Networkd(map[string]string{"10-v0.network": "[Match]\nName=v0\n[Network]\nIPv6AcceptRA=yes\n"})
	Eventually(t, 10*time.Second, "default route although accept_ra is 0", func() bool {
		p.Wire.SendRA(rogueRA())
		time.Sleep(200 * time.Millisecond)
		return strings.Contains(p.Victim.DefaultRoute(), "proto ra")
	})
	if v := p.Victim.ReadSysctl("net/ipv6/conf/v0/accept_ra"); v != "0" {
		t.Errorf("accept_ra = %s, want 0: then this shows nothing", v)
	}
	if out, err := d.Inside("cat", "/etc/systemd/network/10-v0.network").CombinedOutput(); err != nil || !strings.Contains(string(out), "IPv6AcceptRA=yes") {
		t.Errorf("Inside does not see the daemon's files: %v %s", err, out)
	}
}

func TestDHCPCDTakesRAsInUserspace(t *testing.T) {
	t.Parallel()
	p := NewPair(t, "dhc", kernelRAOff...)
	p.Victim.DHCPCD("v0", "")
	Eventually(t, 10*time.Second, "default route although accept_ra is 0", func() bool {
		p.Wire.SendRA(rogueRA())
		time.Sleep(200 * time.Millisecond)
		return strings.Contains(p.Victim.DefaultRoute(), "proto ra")
	})
	if v := p.Victim.ReadSysctl("net/ipv6/conf/v0/accept_ra"); v != "0" {
		t.Errorf("accept_ra = %s, want 0: then this shows nothing", v)
	}
}
