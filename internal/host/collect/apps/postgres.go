package apps

import (
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// cluster is one PostgreSQL cluster's files.
type cluster struct {
	conf *includes
	auto confd.File // postgresql.auto.conf, what ALTER SYSTEM wrote: read last
	hba  *includes
}

// readPostgres finds clusters where Debian and RHEL put them.
func (d *Dump) readPostgres(t *tree.Tree, b *confd.Budget) {
	var confs []string
	for _, p := range []string{"/etc/postgresql/*/*/postgresql.conf", "/var/lib/pgsql/data/postgresql.conf", "/var/lib/pgsql/*/data/postgresql.conf", "/var/lib/postgres/data/postgresql.conf", "/var/lib/postgresql/data/postgresql.conf"} {
		confs = append(confs, expand(t, p, &d.gaps)...)
	}
	if len(confs) > 64 {
		d.gap(fact.Gap{Reason: fact.Truncated, What: "more PostgreSQL clusters"})
		confs = confs[:64]
	}
	for _, conf := range confs {
		dir := strings.TrimSuffix(conf, "/postgresql.conf")
		c := cluster{conf: readIncludes(t, b, conf, dir, pgIncludes(t, dir))}
		data := dir
		if rest, ok := strings.CutPrefix(dir, "/etc/postgresql/"); ok {
			data = "/var/lib/postgresql/" + rest
		}
		c.auto = b.Read(t, data+"/postgresql.auto.conf")
		hba := dir + "/pg_hba.conf"
		for _, l := range c.conf.lines() {
			if k, v, ok := pgAssign(l.text); ok && k == "hba_file" && strings.HasPrefix(v, "/") {
				hba = v
			}
		}
		c.hba = readIncludes(t, b, hba, dir, hbaIncludes)
		d.postgres = append(d.postgres, c)
	}
}

// pgIncludes splits include lines of postgresql.conf.
func pgIncludes(t *tree.Tree, dir string) func(string) []string {
	return func(s string) []string {
		k, v, ok := pgAssign(s)
		if !ok || v == "" {
			return nil
		}
		switch k {
		case "include", "include_if_exists":
			return []string{v}
		case "include_dir":
			return []string{strings.TrimRight(v, "/") + "/*.conf"}
		}
		return nil
	}
}

// hbaIncludes splits include lines of pg_hba.conf (from PostgreSQL 16).
func hbaIncludes(s string) []string {
	f := strings.Fields(s)
	if len(f) < 2 {
		return nil
	}
	switch f[0] {
	case "include", "include_if_exists":
		return []string{strings.Trim(f[1], `"`)}
	case "include_dir":
		return []string{strings.TrimRight(strings.Trim(f[1], `"`), "/") + "/*.conf"}
	}
	return nil
}

// pgAssign reads "name = 'value'  # comment"; the equals sign is optional.
func pgAssign(s string) (name, value string, ok bool) {
	s = strings.TrimSpace(s)
	if s == "" || s[0] == '#' {
		return "", "", false
	}
	i := strings.IndexAny(s, " \t=")
	if i < 0 {
		return "", "", false
	}
	name = strings.ToLower(s[:i])
	s = strings.TrimLeft(s[i:], " \t")
	s = strings.TrimLeft(strings.TrimPrefix(s, "="), " \t")
	if strings.HasPrefix(s, "'") {
		end := strings.IndexByte(s[1:], '\'')
		if end < 0 {
			return "", "", false
		}
		return name, s[1 : 1+end], true
	}
	s, _, _ = strings.Cut(s, "#")
	return name, strings.TrimSpace(s), true
}

func (d *Dump) decodePostgres() fact.Known[[]fact.Postgres] {
	if len(d.postgres) == 0 {
		return fact.Absent[[]fact.Postgres]()
	}
	out := []fact.Postgres{}
	for _, c := range d.postgres {
		p := fact.Postgres{Listen: []string{"localhost"}, Port: 5432, Origin: fact.Origin{File: c.conf.pieces[0].file.Path}}
		for _, g := range append(c.conf.gaps, c.hba.gaps...) {
			d.gap(g)
		}
		lines := c.conf.lines()
		if b, ok := c.auto.Content.Get(); ok {
			for _, l := range confd.Lines(b, false) {
				lines = append(lines, line{text: l.Text, at: fact.Origin{File: c.auto.Path, Line: l.Number}})
			}
		} else if g, gap := c.auto.Content.Gap(); gap {
			d.gap(g)
		}
		for _, l := range lines {
			name, value, ok := pgAssign(l.text)
			if !ok {
				continue
			}
			switch name { // the last one counts
			case "listen_addresses":
				p.Listen, p.Origin = []string{}, l.at
				for _, a := range strings.Split(value, ",") {
					if a, ok := hostish(strings.TrimSpace(a)); ok && len(p.Listen) < 256 {
						p.Listen = append(p.Listen, a)
					}
				}
			case "port":
				if n, err := strconv.ParseUint(value, 10, 16); err == nil {
					p.Port = uint16(n)
				} else {
					d.gap(confd.ParseGap(l.at.File, l.at.Line))
				}
			}
		}
		p.HBA = d.hba(c.hba)
		out = append(out, p)
	}
	return fact.Value(out)
}

// hbaMethods are the words of the method column.
var hbaMethods = " trust reject scram-sha-256 md5 password gss sspi ident peer ldap radius cert pam bsd oauth "

// hba keeps type, address and method of each line: no database, no user, no option.
func (d *Dump) hba(in *includes) []fact.SourcePattern {
	var out []fact.SourcePattern
	for _, l := range in.lines() {
		f := hbaWords(l.text)
		if len(f) == 0 || f[0] == "local" {
			continue
		}
		if !strings.Contains(" host hostssl hostnossl hostgssenc hostnogssenc ", " "+f[0]+" ") || len(f) < 5 || len(out) >= maxPatterns {
			d.gap(confd.ParseGap(l.at.File, l.at.Line))
			continue
		}
		address, method := f[3], f[4]
		if m, ok := source(method); ok && !strings.Contains(method, "/") && strings.ContainsAny(m, ".:") {
			// The old form: address and mask in two columns.
			if len(f) < 6 {
				d.gap(confd.ParseGap(l.at.File, l.at.Line))
				continue
			}
			address, method = address+"/"+m, f[5]
		}
		host, mask, _ := strings.Cut(address, "/")
		host, ok := hostish(host)
		if ok && mask != "" {
			if _, isSource := source(mask); !isSource && strings.Trim(mask, "0123456789") != "" {
				ok = false
			}
			host += "/" + mask
		}
		if !ok || !strings.Contains(hbaMethods, " "+method+" ") {
			d.gap(confd.ParseGap(l.at.File, l.at.Line))
			continue
		}
		out = append(out, fact.SourcePattern{Keyword: f[0], Pattern: host, Action: method, Origin: l.at})
	}
	return out
}

// hbaWords splits at white space outside quotes and before comments.
func hbaWords(s string) []string {
	var out []string
	var cur strings.Builder
	quoted, any := false, false
	for i := 0; i <= len(s); i++ {
		if i == len(s) || !quoted && (s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '#') {
			if any && len(out) < 64 {
				out = append(out, cur.String())
			}
			cur.Reset()
			any = false
			if i < len(s) && s[i] == '#' {
				break
			}
			continue
		}
		any = true
		if s[i] == '"' {
			quoted = !quoted
			continue
		}
		cur.WriteByte(s[i])
	}
	return out
}
