package manager_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// secretFiles are files of every kind that is read, each with secrets where
// people put them: in the keys made for them, in unknown keys, in broken lines.
// @@ stands for a secret of its own.
var secretFiles = map[string]string{
	"etc/systemd/network/10-wg.netdev":                     "[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nPrivateKey=@@\n[WireGuardPeer]\nPresharedKey=@@\nbroken @@\n[@@\n",
	"etc/systemd/network/10-macsec.netdev":                 "[NetDev]\nName=m0\nKind=macsec\n[MACsecTransmitAssociation]\nKey=@@\n",
	"etc/systemd/network/10-a.network":                     "[Match]\nName=*\nSSID=@@\nMystery=@@\n[Network]\nIPv6AcceptRA=@@\nLinkLocalAddressing=@@\nIPForward=@@\nDHCP=@@\nPassword=@@\nAddress=@@\nBridge=@@\nbroken @@\n[DHCPv4]\nUserClass=@@\nUse6RD=@@\n[IPv6AcceptRA]\nRouterAllowList=@@\nToken=@@\nUseDNS=@@\n[Route]\nGateway=@@\n[@@]\nx=@@\n",
	"etc/systemd/network/10-a.network.d/x.conf":            "[Network]\nX=@@\n@@\n",
	"etc/systemd/networkd.conf":                            "[Network]\nIPv6PrivacyExtensions=@@\n[DHCPv4]\nDUIDRawData=@@\n@@\n",
	"run/systemd/netif/links/2":                            "NETWORK_FILE=@@\nADMIN_STATE=configured\nDNS=@@\nDHCP6_CLIENT_DUID=@@\n",
	"run/systemd/resolve/netif/2":                          "SERVERS=@@\n@@\n",
	"etc/dhcpcd.conf":                                      "env token=@@\nauthtoken 1 @@ forever @@\nstatic ip6_address=@@\nstatic routers=@@\nslaac @@\nnohook @@\ninterface wlan0\nssid @@\npsk @@\n@@\n",
	"etc/network/interfaces":                               "iface wlan0 inet6 auto\n  wpa-psk @@\n  wpa-ssid @@\n  up echo ipv6 @@ | sysctl\n  accept_ra @@\n  privext @@\n  address @@\n  dhcp @@\n  password @@\nmapping x\n  map @@\n@@ @@\niface x inet6 static\n  address @@\n  gateway @@\n",
	"etc/NetworkManager/system-connections/w.nmconnection": "[connection]\ntype=wifi\nid=@@\nuuid=@@\n[wifi]\nssid=@@\n[wifi-security]\npsk=@@\n[802-1x]\npassword=@@\nprivate-key-password=@@\n[wireguard]\nprivate-key=@@\n[vpn-secrets]\npassword=@@\n[ppp]\nx=@@\n[pppoe]\npassword=@@\n[gsm]\npin=@@\n[ipv6]\nmethod=@@\naddress1=@@\ndhcp-duid=@@\naddr-gen-mode=@@\nip6-privacy=@@\ntoken=@@\nbroken @@\n",
	"etc/NetworkManager/NetworkManager.conf":               "[main]\nx=@@\n[keyfile]\nunmanaged-devices=weird @@\n[connection]\nipv6.ip6-privacy=@@\n@@\n",
	"etc/sysconfig/network-scripts/ifcfg-w":                "DEVICE=w0\nKEY=@@\nWPA_PSK=@@\nIPV6INIT=@@\nIPV6ADDR=@@\nIPV6_PRIVACY=@@\nIPV6_ADDR_GEN_MODE=@@\n@@\n",
	"etc/sysconfig/network-scripts/keys-w":                 "KEY=@@\n",
	"etc/netplan/a.yaml":                                   "network:\n  wifis:\n    w0:\n      access-points:\n        \"@@\": {password: \"@@\"}\n      auth: {key-management: psk, password: \"@@\"}\n      addresses: [\"@@\"]\n      gateway6: \"@@\"\n      ipv6-address-generation: \"@@\"\n      ipv6-address-token: \"@@\"\n  tunnels:\n    wg0: {mode: wireguard, key: \"@@\", keys: {private: \"@@\"}}\n  modems:\n    m0: {pin: \"@@\", password: \"@@\"}\n",
	"etc/netplan/b.yaml":                                   "network:\n  ethernets: [ \"@@\"\n @@: : @@\n",
	"etc/ppp/chap-secrets":                                 "a * @@ *\n",
	"etc/ppp/pap-secrets":                                  "a * @@ *\n",
	"etc/ipsec.secrets":                                    "1.2.3.4 : PSK \"@@\"\n",
	"etc/wireguard/wg0.conf":                               "[Interface]\nPrivateKey=@@\n",
	"etc/sysctl.d/10-secret.conf":                          "net.ipv6.conf.default.stable_secret = @@\nnet.ipv6.conf.all.stable_secret = 2001:db8:5eC7:e7aa:1111:2222:3333:4444\nnet/ipv6/conf/eth0/stable_secret=2001:db8:5eC7:e7aa:1111:2222:3333:4445\nnet.ipv6.conf.*.stable_* = @@\nnet.ipv4.tcp_fastopen_key = 5ec7e7aa-00000001-00000002-00000003\nnet.ipv4.x = @@\nkernel.domainname = @@\nnet.ipv6.broken @@\n@@\n-@@\nuser.x = @@\n",
	"etc/ufw/ufw.conf":                                     "ENABLED=yes\nTOKEN=@@\n@@\n",
	"etc/default/ufw":                                      "IPV6=@@\nIPT_SYSCTL=/etc/ufw/sysctl.conf\nX=@@\n",
	"etc/ufw/sysctl.conf":                                  "net/ipv6/conf/all/stable_secret=@@\nnet/foo=@@\n",
	"etc/modprobe.d/a.conf":                                "options wifi key=@@\ninstall sit /bin/sh -c 'curl -u x:@@ http://x'\ninstall gre @@\ninstall tun echo @@; /bin/true\nremove x /bin/false @@\nwrong @@\n",
	"etc/modules-load.d/a.conf":                            "tun @@\n@@ @@\n# @@\n",
	"etc/hosts":                                            "::1 localhost @@\n10.0.0.1 @@\n@@ localhost\n",
	"etc/resolv.conf":                                      "nameserver @@\n# @@\noptions @@\n",
	"etc/nsswitch.conf":                                    "passwd: @@\nhosts: files dns # @@\n",
	"etc/gai.conf":                                         "label @@\n",
	"etc/systemd/system/x.socket":                          "[Socket]\nListenStream=22\nListenStream=@@\nBindIPv6Only=@@\nX=@@\n[Service]\nEnvironment=@@\n",
	"etc/systemd/system/openvpn@a.service":                 "[Service]\nEnvironment=PASS=@@\nExecStart=/usr/sbin/openvpn --auth @@\n",
	"etc/docker/daemon.json":                               "{\"ipv6\": true, \"auths\": {\"r\": {\"auth\": \"@@\"}}, \"fixed-cidr-v6\": \"@@\", \"proxies\": {\"https-proxy\": \"http://u:@@@p\"}}",
	"root/.docker/config.json":                             "{\"auths\": {\"r\": {\"auth\": \"@@\"}}}",
	"etc/libvirt/qemu/networks/n.xml":                      "<network><name>n</name><password>@@</password><ip family='ipv6' address='@@'/></network>",
	"etc/libvirt/qemu/networks/o.xml":                      "<network><name>@@",
	"var/lib/kubelet/config.yaml":                          "address: \"@@\"\nauthentication: {token: \"@@\"}\n",
	"etc/kubernetes/admin.conf":                            "client-key-data: @@\n",
	"var/lib/kube-proxy/config.conf":                       "mode: \"@@\"\nclientConnection: {kubeconfig: \"@@\"}\n",
	"etc/ssh/sshd_config":                                  "AddressFamily @@\nPort @@\nListenAddress @@!\nMatch Address @@!\nAllowUsers \"x@@@!\"\nBanner @@\nSetEnv X=@@\n",
	"etc/ssh/ssh_host_ed25519_key":                         "@@",
	"etc/postgresql/15/main/postgresql.conf":               "listen_addresses = '@@!'\nport = @@\nprimary_conninfo = 'password=@@'\nssl_passphrase_command = '@@'\n",
	"etc/postgresql/15/main/pg_hba.conf":                   "host all @@ 10.0.0.0/8 ldap ldapserver=x ldapbindpasswd=\"@@\"\nhost @@ all ::/0 radius radiussecrets=\"@@\"\nhost all all 10.0.0.0/8 @@\nhost @@\n",
	"etc/fail2ban/fail2ban.conf":                           "[DEFAULT]\nallowipv6 = @@!\ndbpurgeage = @@\n",
	"etc/fail2ban/jail.local":                              "[DEFAULT]\nbanaction = cloudflare[cftoken=@@, cfuser=@@]\n",
	"etc/hosts.allow":                                      "sshd: 10.0.0.0/8 @@ : spawn (echo @@)\n@@ : ALL\n",
	"etc/nginx/nginx.conf":                                 "allow @@;\nlisten @@;\nproxy_set_header Authorization \"@@\";\n",
	"etc/apache2/apache2.conf":                             "Require ip @@\nListen @@\nAuthUserFile @@\n",
	"etc/redis/redis.conf":                                 "bind @@\nrequirepass @@\n",
	"etc/postfix/main.cf":                                  "mynetworks = @@ 10.0.0.0/8\nsmtp_sasl_password = @@\n  @@\n",
}

// TestNoSecrets plants secrets in every file and looks for them in everything
// that comes out, gaps included.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	var a txtar.Archive
	n := 0
	names := make([]string, 0, len(secretFiles))
	for name := range secretFiles {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range append(names, "usr/lib/systemd/systemd-sysctl") {
		text := secretFiles[name]
		for strings.Contains(text, "@@") {
			n++
			text = strings.Replace(text, "@@", fmt.Sprintf("SeCrEt%03d=Zz", n), 1)
		}
		a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(text)})
	}
	h := readRoot(t, txtar.Format(&a))
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out := strings.ToLower(string(b))
	for _, leak := range []string{"secret0", "secret1", "secret2", "5ec7e7aa", "5ec7:e7aa"} {
		for rest := out; ; {
			i := strings.Index(rest, leak)
			if i < 0 {
				break
			}
			t.Errorf("a secret came through: …%s…", rest[max(0, i-200):min(len(rest), i+60)])
			rest = rest[i+len(leak):]
		}
	}
	if n < 150 {
		t.Errorf("only %d secrets were planted", n)
	}
	// They were read, all the same.
	if ms := h.Managers.Or(nil); len(ms) < 5 {
		t.Errorf("only %d managers were found", len(ms))
	}
	if len(h.Files.Sysctl.Or(nil)) < 4 || len(h.Files.SysctlGaps) == 0 || len(h.Apps.Gaps) == 0 {
		t.Errorf("too little was read: %+v", h.Files)
	}
}
