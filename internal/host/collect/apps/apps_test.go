package apps

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/model/fact"
)

func patterns(list []fact.SourcePattern) []string {
	var out []string
	for _, p := range list {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", p.Keyword, p.Pattern, p.Action))+fmt.Sprintf(" :%d", p.Origin.Line))
	}
	return out
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	apps, _ := decodeTree(t, map[string]string{
		"etc/postgresql/15/main/postgresql.conf": "listen_addresses = 'localhost'  # what\n#listen_addresses = '*'\nport = 5433\nssl_passphrase_command = 'echo hunter2'\ninclude_dir = 'conf.d'\nbroken line\n",
		"etc/postgresql/15/main/conf.d/a.conf":   "listen_addresses '*'\n",
		"etc/postgresql/15/main/pg_hba.conf": `# TYPE DATABASE USER ADDRESS METHOD
local all postgres peer
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
hostssl "my db" bob 10.0.0.0 255.0.0.0 md5
host all all all ldap ldapserver=x ldapbinddn="cn=x" ldapbindpasswd="hunter2"
host all all .example.org trust
host nonsense
`,
		"var/lib/pgsql/data/postgresql.conf":      "",
		"var/lib/pgsql/data/postgresql.auto.conf": "listen_addresses = '::1, 127.0.0.1'\n",
		"var/lib/pgsql/data/pg_hba.conf":          "host all all samenet trust\n",
	})
	pg, ok := apps.Postgres.Get()
	if !ok || len(pg) != 2 {
		t.Fatalf("%+v", apps.Postgres)
	}
	if !slices.Equal(pg[0].Listen, []string{"*"}) || pg[0].Port != 5433 || pg[0].Origin != (fact.Origin{File: "/etc/postgresql/15/main/conf.d/a.conf", Line: 1}) {
		t.Errorf("%+v", pg[0])
	}
	want := []string{"host 127.0.0.1/32 scram-sha-256 :3", "host ::1/128 scram-sha-256 :4", "hostssl 10.0.0.0/255.0.0.0 md5 :5", "host all ldap :6", "host .example.org trust :7"}
	if got := patterns(pg[0].HBA); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if !slices.Equal(pg[1].Listen, []string{"::1", "127.0.0.1"}) || pg[1].Port != 5432 {
		t.Errorf("%+v", pg[1])
	}
	if len(apps.Gaps) != 1 || apps.Gaps[0].What != "/etc/postgresql/15/main/pg_hba.conf:8" {
		t.Errorf("gaps %v", apps.Gaps)
	}
}

func TestFail2ban(t *testing.T) {
	t.Parallel()
	apps, _ := decodeTree(t, map[string]string{
		"etc/fail2ban/fail2ban.conf":      "[DEFAULT]\n#allowipv6 = no\nallowipv6 = auto\n",
		"etc/fail2ban/fail2ban.d/x.local": "[Definition]\nallowipv6 = no\n",
		"etc/fail2ban/jail.conf":          "[DEFAULT]\nbanaction = iptables-multiport\n[sshd]\nbanaction = x\n",
		"etc/fail2ban/jail.local":         "[DEFAULT]\nbanaction = nftables[type=multiport, token=hunter2]\n",
	})
	f, ok := apps.Fail2ban.Get()
	if !ok || f.AllowIPv6.Or("") != "no" || f.Action.Or("") != "nftables" {
		t.Errorf("%+v %v", f, ok)
	}
}

func TestSourceLists(t *testing.T) {
	t.Parallel()
	apps, _ := decodeTree(t, map[string]string{
		"etc/hosts.allow":           "# x\nsshd: 192.0.2.0/255.255.255.0, [2001:db8::]/32 : spawn echo hunter2\nALL: LOCAL\n",
		"etc/nginx/sites-enabled/a": "server {\n  listen 80; listen [::]:80 ipv6only=off;\n  location / { allow 10.0.0.0/8; allow 2001:db8::/32; deny all; }\n  auth_basic_user_file /etc/secret;\n}\n",
		"etc/apache2/apache2.conf":  "Listen 8080\n<Location /x>\nRequire ip 10.0.0.0/8 2001:db8::/32\nRequire not ip 192.0.2.1\n</Location>\n",
		"etc/redis/redis.conf":      "bind 127.0.0.1 -::1\nrequirepass hunter2\n",
		"etc/postfix/main.cf":       "mynetworks = 127.0.0.0/8 [::1]/128\n  [2001:db8::]/64\ninet_protocols = ipv4\nsmtp_sasl_password_maps = x\n",
	})
	got := map[string][]string{}
	for _, a := range apps.SourceACLs.Or(nil) {
		got[a.App] = append(got[a.App], patterns(a.Patterns)...)
	}
	want := map[string][]string{
		"hosts.allow": {"sshd 192.0.2.0/255.255.255.0 allow :2", "sshd 2001:db8::/32 allow :2", "ALL LOCAL allow :3"},
		"nginx":       {"listen 80 :2", "listen [::]:80 ipv6only=off :2", "allow 10.0.0.0/8 allow :3", "allow 2001:db8::/32 allow :3", "deny all deny :3"},
		"apache":      {"Listen 8080 :1", "Require ip 10.0.0.0/8 allow :3", "Require ip 2001:db8::/32 allow :3", "Require not ip 192.0.2.1 deny :4"},
		"redis":       {"bind 127.0.0.1 :1", "bind ::1 :1"},
		"postfix":     {"mynetworks 127.0.0.0/8 allow :1", "mynetworks ::1/128 allow :1", "mynetworks 2001:db8::/64 allow :2", "inet_protocols ipv4 :3"},
	}
	for app, w := range want {
		if !slices.Equal(got[app], w) {
			t.Errorf("%s\ngot  %q\nwant %q", app, got[app], w)
		}
	}
}

// FuzzApps reads any text as every file of this package. What comes out encodes,
// is bounded, and holds nothing of a line that begins as a secret.
func FuzzApps(f *testing.F) {
	for _, s := range []string{"AllowUsers a@b\nMatch Address x\n", "Include /etc/ssh/sshd_config\n", "host all all 1.2.3.4 255.0.0.0 md5\n", "listen_addresses = '*\n", "include_dir = '.'\n", "[DEFAULT]\nbanaction = x[y]\n", "ALL: [::1]: x\n", "\\\n\\\n", "\xff\x00\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		file := confd.File{Path: "/f", Content: fact.Value([]byte(s + "\nrequirepass = S3CRET-x\nS3CRET-y\n"))}
		in := &includes{pieces: []piece{{file: file, first: 1, start: true}}}
		d := &Dump{sshd: in, postgres: []cluster{{conf: in, auto: file, hba: in}}, fail2ban: []confd.File{file}, jails: []confd.File{file}}
		for _, app := range []string{"hosts.allow", "nginx", "apache", "redis", "postfix"} {
			d.lists = append(d.lists, list{app, file})
		}
		sshdIncludes(s)
		hbaIncludes(s)
		pgAssign(s)
		var h fact.Host
		d.Decode(&h)
		b, err := json.Marshal(h.Apps)
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		if !strings.Contains(s, "S3CRET") && !strings.HasSuffix(s, `\`) && strings.Contains(string(b), "S3CRET") {
			t.Errorf("a secret got through: %.300s", b)
		}
		if len(b) > 4<<20 {
			t.Errorf("%d bytes out of %d", len(b), len(s))
		}
	})
}

// TestIncludesEnd includes itself, many times over.
func TestIncludesEnd(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"etc/ssh/sshd_config":                    strings.Repeat("Include /etc/ssh/*\nPort 22\n", 100),
		"etc/postgresql/15/main/postgresql.conf": strings.Repeat("include_dir = '.'\nport = 1\n", 100),
	} {
		apps, _ := decodeTree(t, map[string]string{name: text})
		truncated := 0
		for _, g := range apps.Gaps {
			if g.Reason == fact.Truncated {
				truncated++
			}
		}
		if truncated == 0 {
			t.Errorf("%s: nobody says that not all was read: %v", name, apps.Gaps)
		}
	}
}
