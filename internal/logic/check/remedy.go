package check

import (
	"fmt"
	"strings"

	"github.com/sixfence/sixfence/internal/model/finding"
)

// dropIn is the file that remediations persist sysctls to. It sorts after the
// distributions' own files and before 99-sysctl.conf, the administrator's.
const dropIn = "/etc/sysctl.d/90-ipv6-hardening.conf"

// rfc, cis, stig, anssi and kernelDoc name where a requirement comes from.
func rfc(number, section string) finding.Reference {
	return finding.Reference{Source: "RFC " + number, ID: section}
}

// cis names a CIS recommendation: older is its number in the Debian 12, Ubuntu
// 22.04/24.04 and RHEL 9 benchmarks, newer in those of Debian 13 and RHEL 10.
func cis(older, newer string) finding.Reference {
	id := older
	if newer != "" {
		id += " (Debian 13, RHEL 10: " + newer + ")"
	}
	return finding.Reference{Source: "CIS Debian 12, Ubuntu 24.04, RHEL 9", ID: id}
}

func stig(id string) finding.Reference { return finding.Reference{Source: "DISA STIG", ID: id} }

func anssi(id string) finding.Reference { return finding.Reference{Source: "ANSSI-BP-028", ID: id} }

func kernelDoc(key string) finding.Reference {
	return finding.Reference{Source: "Linux Documentation/networking/ip-sysctl", ID: key}
}

// command, intent and advice are the three kinds of remediation.
func command(format string, a ...any) finding.Remediation {
	return finding.Remediation{Kind: finding.Command, Text: fmt.Sprintf(format, a...)}
}

func intent(format string, a ...any) finding.Remediation {
	return finding.Remediation{Kind: finding.Intent, Text: fmt.Sprintf(format, a...)}
}

func advice(format string, a ...any) finding.Remediation {
	return finding.Remediation{Kind: finding.Note, Text: fmt.Sprintf(format, a...)}
}

// shellWord quotes s for a POSIX shell where that is needed: interface and
// namespace names are chosen by others.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=@%+,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// yamlWord quotes s for YAML where that is needed.
func yamlWord(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	}) < 0 && (s[0] < '0' || s[0] > '9') && s[0] != '-' {
		return s
	}
	return fmt.Sprintf("%q", s)
}

// sysctlName is a path below /proc/sys as sysctl(8) and sysctl.d take it: with
// dots, or by path where a dot inside an interface's name would be taken for a
// separator.
func sysctlName(path string) string {
	if strings.Contains(path, ".") {
		return path
	}
	return strings.ReplaceAll(path, "/", ".")
}

// Run is a command line that does cmd inside this namespace.
func (s *Space) Run(cmd string) string {
	if s.IsSelf || s.IsInit {
		return cmd
	}
	for _, p := range s.Paths {
		if name, ok := strings.CutPrefix(p, "/run/netns/"); ok {
			return "ip netns exec " + shellWord(name) + " " + cmd
		}
	}
	if len(s.Paths) > 0 {
		return "nsenter --net=" + shellWord(s.Paths[0]) + " " + cmd
	}
	return "nsenter -t PID -n " + cmd
}

// SetNow is the command that sets a sysctl (path below /proc/sys) in this
// namespace until the next boot.
func (s *Space) SetNow(path, value string) finding.Remediation {
	return command("%s", s.Run("sysctl -w "+shellWord(sysctlName(path)+"="+value)))
}

// Persist makes assignments (path, value, path, value …) last: a drop-in for
// the host's own namespace, advice for the others, which no sysctl.d reaches.
func (s *Space) Persist(kv ...string) finding.Remediation {
	if !s.IsSelf && !s.IsInit {
		return advice("sysctl.d does not reach this namespace: set the same value where it is made (docker --sysctl, the pod's or the CNI's sysctls, the unit that creates it).")
	}
	cmd := `printf '%s\n'`
	for i := 0; i+1 < len(kv); i += 2 {
		if strings.ContainsAny(kv[i], "*?[{") && !strings.HasPrefix(kv[i], "net/ipv6/conf/*/") {
			return advice("An interface name with wildcard characters cannot be written to sysctl.d safely: rename the interface, or set net.ipv6.conf.*.")
		}
		cmd += " " + shellWord(sysctlName(kv[i])+" = "+kv[i+1])
	}
	return command("%s >> %s", cmd, dropIn)
}

// SetConf sets net.ipv6.conf.IF.KEY now and for good.
func (s *Space) SetConf(ifname, key, value string) []finding.Remediation {
	p := "net/ipv6/conf/" + ifname + "/" + key
	return []finding.Remediation{s.SetNow(p, value), s.Persist(p, value)}
}

// Set sets any sysctl now and for good.
func (s *Space) Set(path, value string) []finding.Remediation {
	return []finding.Remediation{s.SetNow(path, value), s.Persist(path, value)}
}
