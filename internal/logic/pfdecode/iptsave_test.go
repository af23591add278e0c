package pfdecode_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

func parse(name, text string) (*pfdecode.Saved, error) {
	return pfdecode.ParseXTables(name, text, binary.LittleEndian, nil)
}

func filter(rules string) string { return "*filter\n:INPUT DROP [0:0]\n" + rules + "\nCOMMIT\n" }

// TestSavedLines reads one rule written in two ways: both are the same.
func TestSavedLines(t *testing.T) {
	for _, c := range [][2]string{
		{`-A INPUT -p tcp --dport 22 -j ACCEPT`, `-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT`},
		{`-A INPUT -p 6 --destination-port ssh -j ACCEPT`, `-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT`},
		{`-A INPUT -p tcp --dport ! 22 -j DROP`, `-A INPUT -p tcp -m tcp ! --dport 22 -j DROP`},
		{`-A INPUT -s ! 192.0.2.0/24 -j DROP`, `-A INPUT ! -s 192.0.2.0/24 -j DROP`},
		{`[5:300] -A INPUT -s 192.0.2.9/24 -j DROP`, `-A INPUT -s 192.0.2.0/255.255.255.0 -j DROP`},
		{`-A INPUT -s 10/8 -c 4 9 -j DROP`, `-A INPUT -s 10.0.0.0/8 -j DROP`},
		{`-A INPUT -s 0/0 -j DROP`, `-A INPUT -j DROP`},
		{`-A INPUT -ptcp -jDROP`, `-A INPUT --protocol=tcp --jump DROP`},
		{`-A INPUT -m state --state ESTABLISHED,related -j ACCEPT`, `-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`},
		{`-A INPUT -p icmp --icmp-type ping -j ACCEPT`, `-A INPUT -p icmp -m icmp --icmp-type 8 -j ACCEPT`},
		{`-A INPUT -p tcp --syn -j DROP`, `-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP`},
		{`-A INPUT -m mark --mark 0x10/16 -j DROP`, `-A INPUT -m mark --mark 020/0x10 -j DROP`},
		{`-A INPUT -j REJECT`, `-A INPUT -j REJECT --reject-with icmp-port-unreachable`},
		{`-A INPUT -j MARK --set-mark 1`, `-A INPUT -j MARK --set-xmark 0x1/0xffffffff`},
		{`-A INPUT -m tos --tos Minimize-Delay -j DROP`, `-A INPUT -m tos --tos 0x10/0x3f -j DROP`},
		{`-A INPUT -m owner --uid-owner root -j DROP`, `-A INPUT -m owner --uid-owner 0-0 -j DROP`},
		{"-A INPUT\t-m  comment --comment \"a \\\"b\\\" -j\" -j DROP", `-A INPUT -m comment --comment "a \"b\" -j" --jump DROP`},
		{`-A INPUT -p tcp --dport 80 -s 192.0.2.1`, `-A INPUT -p tcp -m tcp -s 192.0.2.1/32 --dport 80`},
		{`-6 -A INPUT -s ::1 -j DROP
-4 -A INPUT -j DROP`, `-A INPUT -j DROP`},
		{`-A INPUT -j DROP
-I INPUT -j ACCEPT
-I INPUT 2 -p udp -j DROP`, `-A INPUT -j ACCEPT
-A INPUT -p udp -j DROP
-A INPUT -j DROP`},
		{`-A INPUT -s 192.0.2.1,192.0.2.2 -d 192.0.2.3,192.0.2.4 -j DROP`, `-A INPUT -s 192.0.2.1 -d 192.0.2.3 -j DROP
-A INPUT -s 192.0.2.1 -d 192.0.2.4 -j DROP
-A INPUT -s 192.0.2.2 -d 192.0.2.3 -j DROP
-A INPUT -s 192.0.2.2 -d 192.0.2.4 -j DROP`},
		{"-N a\n-A INPUT -g a\n-A a -j RETURN", ":a - [1:2]\n-A INPUT --goto a\n-A a -j RETURN"},
	} {
		a, err := parse("rules.v4", filter(c[0]))
		if err != nil {
			t.Errorf("%s: %v", c[0], err)
			continue
		}
		b, err := parse("rules.v4", filter(c[1]))
		if err != nil {
			t.Errorf("%s: %v", c[1], err)
			continue
		}
		if x, y := render(a), render(b); x != y {
			t.Errorf("%s is\n%s\nand %s is\n%s", c[0], x, c[1], y)
		}
	}
}

func render(s *pfdecode.Saved) string {
	var b strings.Builder
	for _, t := range s.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				x := *r
				x.Text = ""
				b.WriteString(t.Name + " " + c.Name + " " + x.Render(binary.LittleEndian, nil) + "\n")
			}
		}
	}
	return b.String()
}

// TestSavedErrors: what cannot be loaded gives an error with its line and word, and
// no part of a ruleset.
func TestSavedErrors(t *testing.T) {
	for text, want := range map[string][2]string{
		filter("-A INPUT -p tcp --dprot 22 -j ACCEPT"):                                {"rules.v4:3", "--dprot"},
		filter("-A INPUT --dport 22 -j ACCEPT"):                                       {"rules.v4:3", "--dport"},
		filter("-A INPUT -p tcp --dport 70000 -j ACCEPT"):                             {"rules.v4:3", "70000"},
		filter("-A INPUT -p tcp --dport 22:21 -j ACCEPT"):                             {"rules.v4:3", "22:21"},
		filter("-A INPUT -p tcp --dport nosuch -j ACCEPT"):                            {"rules.v4:3", "nosuch"},
		filter("-A INPUT -p nosuch -j ACCEPT"):                                        {"rules.v4:3", "nosuch"},
		filter("-A INPUT -s example.org -j ACCEPT"):                                   {"rules.v4:3", "example.org"},
		filter("-A INPUT -s 192.0.2.0/33 -j ACCEPT"):                                  {"rules.v4:3", "192.0.2.0/33"},
		filter("-A INPUT -s 192.0.2.300 -j ACCEPT"):                                   {"rules.v4:3", "192.0.2.300"},
		filter("-A INPUT ! -s 192.0.2.1,192.0.2.2 -j DROP"):                           {"rules.v4:3", "192.0.2.1,192.0.2.2"},
		filter("-A INPUT -m tcp --dport 22 -j ACCEPT"):                                {"rules.v4:3", "-p tcp"},
		filter("-A INPUT ! -p tcp -m multiport --dports 22 -j ACCEPT"):                {"rules.v4:3", "multiport"},
		filter("-A INPUT -p udp -j REJECT --reject-with tcp-reset"):                   {"rules.v4:3", "-p tcp"},
		filter("-A INPUT -p tcp --dport"):                                             {"rules.v4:3", "--dport"},
		filter("-A INPUT -j"):                                                         {"rules.v4:3", "-j"},
		filter("-A INPUT -j ACCEPT -j DROP"):                                          {"rules.v4:3", "DROP"},
		filter("-A INPUT -j DNAT --to-destination 192.0.2.1"):                         {"rules.v4:3", "DNAT"},
		filter("-A INPUT -g nosuch"):                                                  {"rules.v4:3", "nosuch"},
		filter("-A INPUT -j OUTPUT"):                                                  {"rules.v4:3", "OUTPUT"},
		filter("-A nosuch -j DROP"):                                                   {"rules.v4:3", "nosuch"},
		filter("-A INPUT ACCEPT"):                                                     {"rules.v4:3", "ACCEPT"},
		filter("-A INPUT ! -j ACCEPT"):                                                {"rules.v4:3", "! -j"},
		filter("-A INPUT !"):                                                          {"rules.v4:3", "!"},
		filter("-A INPUT -i much-too-long-a-name -j DROP"):                            {"rules.v4:3", "much-too"},
		filter("-A INPUT -m comment --comment \"a -j DROP"):                           {"rules.v4:3", "quoted"},
		filter("-D INPUT -j DROP"):                                                    {"rules.v4:3", "-D"},
		filter("-I INPUT 3 -j DROP"):                                                  {"rules.v4:3", "3"},
		"# Generated by iptables-save\n" + filter("-A INPUT -m hl --hl-eq 1 -j DROP"): {"rules.v4:4", "hl"},
		filter("-A INPUT -m conntrack --ctstate NEWER -j DROP"):                       {"rules.v4:3", "NEWER"},
		filter("-A INPUT -m limit --limit 5/fortnight -j DROP"):                       {"rules.v4:3", "5/fortnight"},
		filter("nonsense"):                                                            {"rules.v4:3", "nonsense"},
		filter(":a DROP"):                                                             {"rules.v4:3", "DROP"},
		filter(":INPUT REJECT"):                                                       {"rules.v4:3", "REJECT"},
		filter(":INPUT DROP x"):                                                       {"rules.v4:3", "x"},
		"*filter\n-A INPUT -j DROP\n":                                                 {"rules.v4:1", "COMMIT"},
		"*filter\n*nat\nCOMMIT\n":                                                     {"rules.v4:2", "COMMIT"},
		"*nosuch\nCOMMIT\n":                                                           {"rules.v4:1", "nosuch"},
		"*filter\nCOMMIT\nCOMMIT\n":                                                   {"rules.v4:3", "COMMIT"},
		"# Generated by ebtables-save v1.8.9\n*filter\nCOMMIT\n":                      {"rules.v4:1", "ebtables"},
		"# Generated by iptables-save v1\n" + filter("") + filter(""):                 {"rules.v4:6", "*filter"},
		filter("-A INPUT -s 192.0.2.1 -j DROP\n-A INPUT -s ::1 -j DROP"):              {"rules.v4:4", "IPv6"},
		"# Generated by iptables-save\n" + filter("-A INPUT -s ::1 -j DROP"):          {"rules.v4:4", "::1"},
		"# Generated by ip6tables-save\n" + filter("-A INPUT -f -j DROP"):             {"rules.v4:4", "-f"},
		"# Generated by ip6tables-save\n" + filter("-A INPUT -s 192.0.2.1 -j DROP"):   {"rules.v4:4", "192.0.2.1"},
	} {
		s, err := parse("rules.v4", text)
		var e *pfdecode.TextError
		if s != nil || !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want[0]+":") || !strings.Contains(err.Error(), want[1]) || e.Hint == "" {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

// TestSavedFamilies tells which family a text is for, and which it says nothing about.
func TestSavedFamilies(t *testing.T) {
	plain := filter("-A INPUT -p tcp --dport 22 -j ACCEPT")
	six := filter("-A INPUT -s 2001:db8::/32 -j ACCEPT")
	four := filter("-A INPUT -s 192.0.2.1 -j ACCEPT")
	for _, c := range []struct {
		name, text, want string
	}{
		{"x", "# Generated by iptables-save v1.8.9 (nf_tables) on Sun\n" + plain, "ip"},
		{"x", "# Generated by ip6tables-save v1.4.21\n" + plain, "ip6"},
		{"x", "# Generated by ip6tables-nft-save v1.8.9\n" + plain, "ip6"},
		{"x.v4", "# Generated by ip6tables-save v1.8.9\n" + plain, "ip6"},
		{"x", "# Generated by iptables-save v1\n" + plain + "# Generated by ip6tables-save v1\n" + plain, "ip ip6"},
		{"x", four, "ip"},
		{"x", six, "ip6"},
		{"x", six + four, "ip6 ip"},
		{"x", plain + six, "?"},
		{"x", plain, "?"},
		{"rules.v4", plain, "ip"},
		{"/etc/iptables/rules.v6", plain, "ip6"},
		{"before6.rules", plain, "ip6"},
		{"/etc/sysconfig/ip6tables", plain, "ip6"},
		{"/etc/sysconfig/iptables", plain, "ip"},
		{"x", filter("-A INPUT -p ipv6-icmp -j ACCEPT"), "ip6"},
		{"x", filter("-A INPUT -p icmp -j ACCEPT"), "ip"},
		{"x", filter("-A INPUT -p icmp -m comment --comment 192.0.2.1 -j ACCEPT\n-A INPUT -m rt --rt-type 0 -j DROP"), "ip6"},
		{"x", "*nat\n-A PREROUTING -p tcp -j DNAT --to-destination [2001:db8::1]:80\nCOMMIT\n" + plain, "ip6"},
		{"rules.v4", "-P INPUT DROP\n-N a\n-A INPUT -j a\n", "ip"},
	} {
		s, err := parse(c.name, c.text)
		got := "?"
		if err == nil {
			var w []string
			for _, f := range s.Families {
				w = append(w, f.String())
			}
			got = strings.Join(w, " ")
		} else if !strings.Contains(err.Error(), "IPv4 or for IPv6") {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s %q: %s, want %s", c.name, c.text, got, c.want)
		}
	}
	s, err := parse("x", "# Generated by iptables-save v1.8.9 (nf_tables)\n# Table `filter' is incompatible, use 'nft' tool.\n")
	if err != nil || len(s.Lacks) != 1 || s.Lacks[0].Family != rs.IPv4 {
		t.Errorf("a table that was not printed: %+v, %v", s, err)
	}
}

// TestSavedUnknown: what nobody knows stays in the rule.
func TestSavedUnknown(t *testing.T) {
	for rule, name := range map[string]string{
		"-A INPUT -m nosuch --a 1 -2 --b ! --c x -p tcp --dport 22 -j ACCEPT":  "match tcp (option --dport of nosuch)",
		"-A INPUT -m nosuch -j ACCEPT":                                         "match nosuch",
		"-A INPUT -m conntrack --ctstate NEW --ctnosuch 5 6 -j ACCEPT":         "match conntrack (option --ctnosuch)",
		"-A INPUT -j NOSUCH --x 5":                                             "target NOSUCH",
		"-A INPUT -p tcp -m tcp --dport 22 -m set --match-set s src -j ACCEPT": "match set (ipset s was not given)",
		"-A OUTPUT -m owner --uid-owner postgres -j ACCEPT":                    "match owner (the number of postgres)",
	} {
		s, err := parse("rules.v4", filter(rule))
		if err != nil {
			t.Errorf("%s: %v", rule, err)
			continue
		}
		found := false
		for _, c := range s.Tables[0].Chains {
			for _, r := range c.Rules {
				for _, e := range flatten(r.Exprs) {
					o, ok := e.(rs.Opaque)
					found = found || ok && o.Name == name && o.Ends == strings.HasPrefix(name, "target")
				}
			}
		}
		if !found {
			t.Errorf("%s: no %s in %s", rule, name, render(s))
		}
	}
}

func FuzzSaved(f *testing.F) {
	f.Add("rules.v4", []byte("# Generated by iptables-save v1.8.9 (nf_tables)\n*nat\n:PREROUTING ACCEPT [1:2]\n:a - [0:0]\n[1:2] -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.1:8080-8090/80\n-A a -j REDIRECT --to-ports 1-2\nCOMMIT\n"))
	f.Add("rules.v6", []byte("*mangle\n-A INPUT -m conntrack ! --ctstate NEW,RELATED --ctorigdst ::1/8 -m mac --mac-source 02:00:00:00:00:01 -j CONNMARK --save-mark --nfmask 0xf\nCOMMIT\n"))
	f.Add("", []byte("-P INPUT DROP\n-A INPUT -s 10/8,1.2.3.4 -m multiport -p tcp --dports 1:2,3 -m nosuch --x ! --y -j X"))
	f.Add("v4", []byte("*filter\n-A INPUT -m recent --rcheck --seconds 5 --hitcount 3 -m hashlimit --hashlimit-upto 5kb/s -m string --string \"a\\\"b\" --algo bm -g b\n:b -\nCOMMIT\ncreate s hash:ip\nadd s 1.2.3.4\n"))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		if bytes.Count(text, []byte(",")) > 64 { // lists multiply
			return
		}
		tables, sets := pfdecode.SplitSaves(string(text))
		have, err := pfdecode.ParseIPSets(sets)
		if err != nil {
			have = nil
		}
		s, err := pfdecode.ParseXTables(name, tables, binary.LittleEndian, have)
		if err != nil {
			var e *pfdecode.TextError
			if !errors.As(err, &e) || e.Hint == "" {
				t.Errorf("no hint: %v", err)
			}
			return
		}
		for _, x := range s.Tables {
			if !s.HasFamily(x.Family) {
				t.Errorf("a table of family %v", x.Family)
			}
			for _, c := range x.Chains {
				for _, r := range c.Rules {
					if r.Text == "" || r.Chain != c {
						t.Errorf("rule %+v", r)
					}
				}
			}
		}
	})
}
