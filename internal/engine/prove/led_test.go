package prove_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// docker is what dockerd writes with ip6tables on, for two containers: 8080 leads to the
// first and 8081 to the second.
const docker = `
one() { # tool, net, container, forbidden
	$1 -P FORWARD DROP
	for c in DOCKER DOCKER-USER DOCKER-ISOLATION; do $1 -N $c; done
	$1 -A FORWARD -j DOCKER-USER
	$1 -A FORWARD -j DOCKER-ISOLATION
	$1 -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
	$1 -A FORWARD -o docker0 -j DOCKER
	$1 -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
	$1 -t nat -N DOCKER
	$1 -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
	$1 -t nat -A POSTROUTING -s $2 ! -o docker0 -j MASQUERADE
	for p in 8080 8081; do
		$1 -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport $p -j DNAT --to-destination "$3:80"
		$1 -A DOCKER -d ${4} ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
	done
}
one iptables-$B 172.17.0.0/16 172.17.0.2 172.17.0.2
one ip6tables-$B fd00:17::/64 "[fd00:17::2]" fd00:17::2
`

// TestPublishedPorts: what others lead to containers is a service by the port that the
// sender asked for, over both families.
func TestPublishedPorts(t *testing.T) {
	node := `table ip6 kube { map ports { type inet_proto . inet_service : verdict; elements = { tcp . 30080 : goto a, tcp . 8080 : goto a }; }
 chain a { meta l4proto tcp dnat to [fd00:17::2]:80; }
 chain pre { type nat hook prerouting priority dstnat; policy accept; fib daddr type local meta l4proto . th dport vmap @ports; }; }
table ip kube { chain pre { type nat hook prerouting priority dstnat; policy accept; fib daddr type local tcp dport { 30080, 8080 } dnat to 172.17.0.2:80; }; }`
	in := intent.Intent{Role: intent.RoleServer, Interfaces: one(intent.Static), Services: []intent.Service{ssh(), {Name: "app", Ports: []string{"tcp/8080"}}}, Forwarding: intent.Forwarding{Unmanaged: true}}
	for _, c := range []struct {
		name, script string
		plant        func(t *testing.T, p *change.Plan)
		status       change.ProofStatus
		shots        []string // that fail
	}{
		{"of legacy iptables", strings.ReplaceAll(docker, "$B", "legacy"), nil, change.Proven, nil},
		{"of iptables-nft", strings.ReplaceAll(docker, "$B", "nft"), nil, change.Proven, nil},
		{"of node ports", "nft -f - <<'N'\n" + node + "\nN", nil, change.Proven, nil},
		{"and nobody looks at them", strings.ReplaceAll(docker, "$B", "legacy"), rules("\t\tct state new ct status dnat jump strangers\n", ""), change.Failed, []string{"tcp/8081 from the link", "tcp/8081 from afar (IPv4)"}},
		{"by the port of the container", "nft -f - <<'N'\n" + node + "\nN", rules("ct original proto-dst 8080", "tcp dport 80"), change.Failed, []string{"tcp/30080 from afar", "tcp/30080 from the link (IPv4)"}},
		{"and another firewall keeps it in", strings.ReplaceAll(docker, "$B", "legacy") + "ip6tables-legacy -I DOCKER-USER -p tcp -m conntrack --ctorigdstport 8080 -j DROP", nil, change.Failed, []string{"tcp/8080 from afar"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, tool := range []string{"iptables-legacy", "ip6tables-legacy", "iptables-nft", "nft"} {
				testlab.RequireTool(t, tool)
			}
			v := host(t, "led")
			v.IP("link", "add", "docker0", "type", "bridge")
			v.IP("link", "set", "docker0", "up")
			v.AddAddr("docker0", "fd00:17::1/64")
			v.IP("addr", "add", "172.17.0.1/16", "dev", "docker0")
			v.Sysctl("net/ipv4/ip_forward", "1")
			v.Sysctl("net/ipv6/conf/all/forwarding", "1")
			v.Run("sh", "-ec", c.script)
			s := hostview.Snapshot(t, v)
			p := plan.New(in, s, plan.Options{Namespace: s.Namespaces[0].Name, Decode: hostview.Decode})
			p.Refusals = nil // the model has its own opinion of them
			if c.plant != nil {
				c.plant(t, &p)
			}
			got := proof(t, &p, s)
			missed := slices.DeleteFunc(c.shots, func(w string) bool {
				return slices.ContainsFunc(got.Failures, func(m change.Misfire) bool { return strings.HasPrefix(m.Shot, w) })
			})
			if got.Status != c.status || len(missed) > 0 {
				t.Errorf("want %s, missed %q", c.status, missed)
				report(t, got)
			}
		})
	}
}

// TestGuests: what passes a bridge to its guests is theirs, unless the intent puts the
// guards before them.
func TestGuests(t *testing.T) {
	hypervisor := func(guard bool) intent.Intent {
		return intent.Intent{Role: intent.RoleHypervisor, Interfaces: map[string]intent.Interface{"br0": {Addressing: intent.Static, GuardBridged: guard}}, Services: []intent.Service{ssh()}, Forwarding: intent.Forwarding{Unmanaged: true}}
	}
	r := hypervisor(false)
	yes := true
	r.Role, r.Forwarding = intent.RoleRouter, intent.Forwarding{IPv4: &yes, IPv6: &yes, Allow: []intent.Flow{{InInterface: "br0", Ports: []string{"tcp/25"}}}}
	for _, c := range []struct {
		name, script, call string // call: bridged frames meet the rules of IP
		in                 intent.Intent
		plant              func(t *testing.T, p *change.Plan)
		status             change.ProofStatus
		through            int // of the guests' shots; 0: any
		shots              []string
	}{
		{"nobody guards them", "", "1", hypervisor(false), nil, change.Proven, 29, nil},
		{"behind the guards", "", "1", hypervisor(true), nil, change.Proven, 22, nil},
		{"behind guards that nothing comes to", "", "0", hypervisor(true), nil, change.Failed, 0, []string{"rogue RA to a guest", "rogue RA of a guest", "redirect to a guest"}},
		{"of a router that passes little on", "", "1", r, nil, change.Proven, 29, nil},
		{"and the router takes them for its own", "", "1", r, minus("bridged guests"), change.Failed, 0, []string{"tcp/22 to a guest", "tcp/445 (IPv4) of a guest"}},
		{"and others keep some in", "table bridge other { chain f { type filter hook forward priority 0; policy accept; ip6 nexthdr tcp tcp dport 445 drop; }; }", "1", hypervisor(false), nil, change.Proven, 29, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v, far := testlab.NewNS(t, "guev"), testlab.NewNS(t, "guea")
			testlab.Link(v, "port0", far, "a0")
			v.IP("link", "add", "br0", "type", "bridge")
			v.IP("link", "set", "port0", "master", "br0")
			v.IP("link", "set", "br0", "up")
			v.AddAddr("br0", "2001:db8:1::10/64")
			v.IP("addr", "add", "192.0.2.10/24", "dev", "br0")
			v.IP("-6", "route", "add", "default", "via", "2001:db8:1::1", "dev", "br0")
			for _, k := range []string{"iptables", "ip6tables"} {
				v.Sysctl("net/bridge/bridge-nf-call-"+k, c.call)
			}
			if c.script != "" {
				load(t, v, c.script)
			}
			s := hostview.Snapshot(t, v)
			p := planFor(t, c.in, s)
			if c.plant != nil {
				c.plant(t, p)
			}
			got := proof(t, p, s)
			missed := slices.DeleteFunc(c.shots, func(w string) bool {
				return slices.ContainsFunc(got.Failures, func(m change.Misfire) bool { return m.Group == "guests" && m.Shot == w })
			})
			i := slices.IndexFunc(got.Groups, func(g change.Group) bool { return g.Name == "guests" })
			held := slices.ContainsFunc(got.Held, func(m change.Misfire) bool { return m.Shot == "tcp/445 of a guest" })
			if got.Status != c.status || len(missed) > 0 || i < 0 || c.through > 0 && got.Groups[i].Through != c.through || held != (c.script != "") {
				t.Errorf("want %s, missed %q, groups %+v, held %v", c.status, missed, got.Groups, got.Held)
				report(t, got)
			}
		})
	}
}
