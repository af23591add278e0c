package probe

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// serviceCases are the servers that Debian ships for the protocols of questions, DNS, NTP,
// SNMP and QUIC aside.
func serviceCases() []labCase {
	return []labCase{
		{
			name: "small services", what: "tftpd, rpcbind, coap-server and memcached, beside closed and dropped ports", ports: "udp/69 udp/111 udp/623 udp/3478 udp/5683 udp/11211", both: true,
			build: func(l *lab) {
				l.script(smallServices)
				l.answering(l.v4, 69, 111, 5683, 11211)
				l.answering(l.v6, 69, 111, 5683, 11211)
				rules(l.target, l.t, input("ct state established accept", "udp dport { 69, 111, 623, 5683, 11211 } accept"))
			},
			want: both("udp: 69,111,5683,11211 open; 623 closed; 3478 filtered"),
			nmap: "a TFTP server answers from another port, which it does not look at",
		},
		{
			name: "large services", what: "krb5kdc, nmbd, charon (IKE), ipmi_sim, openvpn, xl2tpd, miniupnpd (SSDP, NAT-PMP, PCP), turnserver, kamailio (SIP), gnutls-serv (DTLS), avahi",
			ports: "udp/88 udp/137 udp/500 udp/623 udp/1194 udp/1701 udp/1900 udp/3478 udp/4500 udp/5060 udp/5349 udp/5351 udp/5353", slow: true,
			build: func(l *lab) {
				l.script(largeServices)
				v6 := []uint16{88, 500, 1194, 1900, 3478, 4500, 5060, 5349, 5351, 5353}
				l.answering(l.v6, v6...)
				l.answering(l.v4, append(v6, 137, 623, 1701)...)
			},
			want: []wanted{
				{addr: v4, states: "udp: 88,137,500,623,1194,1701,1900,3478,4500,5060,5349,5351,5353 open", life: model.Answered},
				{addr: v6, states: "udp: 88,500,1194,1900,3478,4500,5060,5349,5351,5353 open; 137,623,1701 closed", life: model.Answered},
			},
			nmap: "it asks some of them what they do not answer to strangers",
		},
	}
}

// smallServices run in a mount namespace whose /run is theirs.
const smallServices = `
mkdir -p /run/tftp /run/rpcbind
in.tftpd -L --user nobody --secure /run/tftp &
rpcbind -f -w &
memcached -u nobody -U 11211 -p 11211 -l 192.0.2.2 -l 2001:db8::2 &
coap-server-gnutls -A 192.0.2.2 &
coap-server-gnutls -A 2001:db8::2 &
`

const largeServices = `
mkdir -p /run/turn /run/xl2tpd /run/avahi-daemon /run/krb /run/sim
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /run/k.pem -out /run/c.pem -subj /CN=lab -days 2
turnserver -n --no-tls --no-dtls --no-cli --listening-port 3478 -l stdout --pidfile /run/turn.pid --db /run/turndb &
printf '[global]\nport=1701\n[lns default]\nip range=10.9.0.2-10.9.0.9\nlocal ip=10.9.0.1\n' >/run/xl2tpd.conf
xl2tpd -D -c /run/xl2tpd.conf -s /dev/null -p /run/xl2tpd.pid -C /run/xl2tpd/ctl &
printf '[server]\nuse-ipv4=yes\nuse-ipv6=yes\nenable-dbus=no\nallow-interfaces=t0\n[publish]\npublish-workstation=yes\n' >/run/avahi.conf
avahi-daemon --no-drop-root --no-chroot --no-rlimits -f /run/avahi.conf &
printf 'ext_ifname=t0\nlistening_ip=t0\nhttp_port=0\nenable_natpmp=yes\nenable_upnp=yes\nsecure_mode=yes\nuuid=00000000-0000-0000-0000-000000000000\n' >/run/upnp.conf
miniupnpd -d -f /run/upnp.conf &
gnutls-serv -u --x509keyfile /run/k.pem --x509certfile /run/c.pem -p 5349 &
openvpn --dev tun --proto udp6 --multihome --server 10.8.0.0 255.255.255.0 --dh none --ca /run/c.pem --cert /run/c.pem --key /run/k.pem --port 1194 &
mkdir -p /run/samba
printf '[global]\nworkgroup=LAB\nnetbios name=LABHOST\ninterfaces=t0\nbind interfaces only=yes\nlock directory=/run/samba/l\nstate directory=/run/samba/s\ncache directory=/run/samba/c\nprivate dir=/run/samba/p\npid directory=/run/samba/i\n' >/run/smb.conf
nmbd -F --no-process-group -s /run/smb.conf --debug-stdout &
printf 'children=1\nlisten=udp:192.0.2.2:5060\nlisten=udp:[2001:db8::2]:5060\nlog_stderror=yes\nmpath="%s"\nloadmodule "sl.so"\nrequest_route { sl_send_reply("200","OK"); }\n' /usr/lib/*/kamailio/modules/ >/run/kam.cfg
kamailio -DD -E -f /run/kam.cfg -Y /run -P /run/kam.pid &
printf 'charon {\n load = random nonce openssl aes sha1 sha2 hmac gmp curve25519 pem pkcs1 x509 kernel-netlink socket-default stroke updown\n}\n' >/run/strongswan.conf
STRONGSWAN_CONF=/run/strongswan.conf /usr/lib/ipsec/charon &
printf '[kdcdefaults]\nkdc_listen=88\n[realms]\nLAB={\n database_name=/run/krb/db\n key_stash_file=/run/krb/stash\n}\n' >/run/krb/kdc.conf
printf '[libdefaults]\ndefault_realm=LAB\n[dbmodules]\nLAB={\n db_library=db2\n database_name=/run/krb/db\n}\n' >/run/krb/krb5.conf
export KRB5_CONFIG=/run/krb/krb5.conf KRB5_KDC_PROFILE=/run/krb/kdc.conf
printf 'a\na\n' | kdb5_util create -s -r LAB && krb5kdc -n -r LAB &
printf 'name "lab"\nset_working_mc 0x20\n  startlan 1\n    addr 192.0.2.2 623\n    priv_limit admin\n    allowed_auths_callback md5\n    allowed_auths_user md5\n    allowed_auths_operator md5\n    allowed_auths_admin md5\n    guid a123456789abcdefa123456789abcdef\n  endlan\n' >/run/sim/lan.conf
printf 'mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n' >/run/sim/cmd
ipmi_sim -c /run/sim/lan.conf -f /run/sim/cmd -s /run/sim -n &
`

// script runs servers in the target, in mount and process namespaces of their own: what they
// write is gone with them, and they end when the test does.
func (l *lab) script(text string) {
	l.t.Helper()
	said := filepath.Join(l.t.TempDir(), "servers.log")
	f, err := os.Create(said)
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if name, _, _ := strings.Cut(line, " "); strings.HasSuffix(strings.TrimSpace(line), "&") && !strings.ContainsAny(name, "=/") && name != "printf" {
			testlab.RequireTool(l.t, name)
		}
	}
	c := l.target.Command(testlab.RequireTool(l.t, "unshare"), "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
		"PATH=$PATH:/usr/sbin:/sbin\nfor d in /run /var/lib /var/log /var/cache /tmp; do mount -t tmpfs tmpfs $d; done\n"+text+"wait\n")
	c.Stdout, c.Stderr = f, f
	if err := c.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if b, err := os.ReadFile(said); err == nil && l.t.Failed() {
			l.t.Logf("the servers said:\n%s", b[max(0, len(b)-8000):])
		}
	})
}

// answering waits until every port answers its question.
func (l *lab) answering(a netip.Addr, ports ...uint16) {
	l.t.Helper()
	left := slices.Clone(ports)
	testlab.Eventually(l.t, 90*time.Second, "answers of the servers", func() bool {
		left = slices.DeleteFunc(left, func(p uint16) bool { return l.ask(a, p) != nil })
		return len(left) == 0
	})
}

// ask is the answer to the question of a port; nil when there is none for a while.
func (l *lab) ask(a netip.Addr, port uint16) (out []byte) {
	l.client.Do(func() {
		c, err := net.ListenPacket("udp", ":0")
		if err != nil {
			l.t.Error(err)
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		_, _ = c.WriteTo(payload(port, recorded), net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
		b := make([]byte, 2048)
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if t := binary.BigEndian.AppendUint64(nil, recorded); questions[port].answers(t, b[:n]) {
				out = b[:n]
				return
			}
		}
	})
	return out
}

// TestAnotherProtocol: a port that answers is open, whatever it speaks, and it is said that
// it is not what the port is known for. A file of TFTP is asked of nobody else.
func TestAnotherProtocol(t *testing.T) {
	t.Parallel()
	l := newLab(t, "vfo")
	l.serve(123, 3478, 5000)
	for _, connect := range []bool{false, true} {
		for _, a := range []netip.Addr{l.v4, l.v6} {
			got := l.probe(Options{Addr: a, Spec: spec(t, "udp/69", "udp/123", "udp/3478", "udp/5000"), Connect: connect})
			for port, want := range map[uint16]model.Reason{69: {State: model.Closed, Why: "icmp"}, 123: {State: model.Open, Why: model.OtherAnswer}, 3478: {State: model.Open, Why: model.OtherAnswer}, 5000: {State: model.Open, Why: "answer"}} {
				if r := got.Tables[0].At(port); r.State != want.State || r.Why != want.Why {
					t.Errorf("%s, connect %v: udp/%d is %+v, want %+v", a, connect, port, r, want)
				}
			}
		}
	}
}

// recorded is the token of the answers in testdata/answers.txt.
const recorded = 0xa1b2c3d4e5f60718
