package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// defaults are what holds when a key is left out, by Type.Field. A key that has none
// here must be written; "-" says that nothing holds then.
var defaults = map[string]string{
	"Intent.Families": "dual-stack", "Intent.Firewall": "-", "Intent.Files": "-", "Intent.Interfaces": "-", "Intent.Services": "nothing is accepted", "Intent.Forwarding": "-", "Intent.Egress": "-", "Intent.Tunnels": "deny",
	"Intent.Limits": "-", "Intent.Logging": "-", "Intent.Checks": "-", "Intent.Drift": "report", "Intent.Waivers": "-", "Intent.Sysctls": "-", "Intent.Decision": "-",
	"Firewall.Manage": "both", "Files.Owner": "-",
	"Interface.Match": "the key is the name", "Interface.Routers": "nobody is believed", "Interface.DHCPv6Servers": "any of the link", "Interface.LearnOnce": "false", "Interface.PinGateway": "false", "Interface.GuardBridged": "false", "Interface.AsymmetricRouting": "false",
	"Match.Name": "any", "Match.Driver": "any", "Match.MAC": "any", "Match.Role": "any",
	"Router.MAC": "any", "Router.Prefixes": "any", "Router.Accepted": "true",
	"Service.From": "anybody, both families", "Service.Families": "both", "Service.Interfaces": "any", "Service.To": "any", "Service.Administers": "true for ssh", "Service.Reason": "-",
	"Forwarding.IPv4": "as the role has it", "Forwarding.IPv6": "as the role has it", "Forwarding.Allow": "-", "Forwarding.Unmanaged": "false",
	"Flow.From": "any", "Flow.To": "any", "Flow.InInterface": "any", "Flow.OutInterface": "any", "Flow.Ports": "any", "Flow.Families": "both",
	"Egress.IPv4": "allow", "Egress.IPv6": "allow", "Egress.Metadata": "allow", "EgressFamily.Default": "allow", "EgressFamily.Allow": "-", "Destination.To": "any", "Destination.Ports": "any",
	"Tunnel.Peer": "any", "Limits.EchoPerSecond": fmt.Sprint(intent.EchoPerSecond), "Limits.NDPerSecond": fmt.Sprint(intent.NDPerSecond), "Limits.Exempt": "-",
	"Logging.Dropped": "false", "Logging.Guards": "true", "Logging.Prefix": "sixfence",
	"Waiver.Interface": "any", "Waiver.Port": "any", "Waiver.Address": "any", "Waiver.Owner": "decision.who", "Decision.Why": "-", "Decision.Who": "-", "Decision.Until": "-",
}

// examples are values as they stand in a file, by Type.Field.
var examples = map[string]string{
	"Intent.APIVersion": APIVersion, "Intent.Role": "server", "Intent.Families": "dual-stack", "Intent.Firewall": "{manage: ipv6}", "Intent.Files": "{owner: \"ansible, repository infra\"}", "Intent.Interfaces": "{eth0: {addressing: static}}",
	"Intent.Services": "[{name: web, ports: [tcp/443]}]", "Intent.Forwarding": "{unmanaged: true}", "Intent.Egress": "{metadata: root}", "Intent.Tunnels": "[{mechanism: wireguard, peer: \"192.0.2.1\"}]",
	"Intent.Limits": "{echoPerSecond: 20}", "Intent.Logging": "{dropped: true}", "Intent.Checks": "[\"tcp://[2001:db8::53]:53\", \"https6://repo.example/\"]",
	"Intent.Drift": "restore", "Intent.Waivers": "[{control: LISTEN-07, reason: neighbours use it, until: \"2027-01-31\"}]", "Intent.Sysctls": "{net.ipv6.conf.eth0.hop_limit: \"64\"}", "Intent.Decision": "{who: net team, until: \"2027-01-31\"}",
	"Firewall.Manage": "ipv6", "Files.Owner": "\"ansible, repository infra\"",
	"Interface.Match": "{driver: virtio_net}", "Interface.Addressing": "slaac", "Interface.Routers": "[{address: \"fe80::1\", mac: \"52:54:00:00:00:01\"}]", "Interface.DHCPv6Servers": "[{address: \"fe80::1\"}]",
	"Interface.LearnOnce": "true", "Interface.PinGateway": "true", "Interface.GuardBridged": "true", "Interface.AsymmetricRouting": "true",
	"Match.Name": "en*", "Match.Driver": "virtio_net", "Match.MAC": "\"52:54:00:00:00:10\"", "Match.Role": "default-route",
	"Router.Address": "\"fe80::1\"", "Router.MAC": "\"52:54:00:00:00:01\"", "Router.Prefixes": "[\"2001:db8:1::/64\"]", "Router.Accepted": "true", "DHCPv6Server.Address": "\"fe80::1\"",
	"Service.Name": "ssh", "Service.Ports": "[tcp/22, udp/60000-61000]", "Service.From": "[\"2001:db8:aa::/48\", \"192.0.2.0/24\"]", "Service.Families": "[ipv6]", "Service.Interfaces": "[eth0]", "Service.To": "[\"2001:db8:1::10\"]",
	"Service.Administers": "true", "Service.Reason": "the shop",
	"Forwarding.IPv4": "true", "Forwarding.IPv6": "true", "Forwarding.Allow": "[{inInterface: lan0, outInterface: wan0}]", "Forwarding.Unmanaged": "true",
	"Flow.From": "[\"2001:db8:2::/64\"]", "Flow.To": "[\"2001:db8:3::/64\"]", "Flow.InInterface": "lan0", "Flow.OutInterface": "wan*", "Flow.Ports": "[tcp/443]", "Flow.Families": "[ipv6]",
	"Egress.IPv4": "{default: deny, allow: [{ports: [udp/53]}]}", "Egress.IPv6": "{default: deny, allow: [{ports: [udp/53]}]}", "Egress.Metadata": "root", "EgressFamily.Default": "deny", "EgressFamily.Allow": "[{to: [\"2001:db8::/32\"], ports: [tcp/443]}]",
	"Destination.To": "[\"2001:db8::/32\"]", "Destination.Ports": "[tcp/443]", "Tunnel.Mechanism": "wireguard", "Tunnel.Peer": "\"192.0.2.1\"",
	"Limits.EchoPerSecond": "20", "Limits.NDPerSecond": "100", "Limits.Exempt": "[\"2001:db8:aa::9\"]", "Logging.Dropped": "true", "Logging.Guards": "false", "Logging.Prefix": "sixfence",
	"Waiver.Control": "LISTEN-07", "Waiver.Interface": "eth0", "Waiver.Port": "tcp/443", "Waiver.Address": "\"2001:db8:1::10\"", "Waiver.Reason": "neighbours use it", "Waiver.Owner": "web team", "Waiver.Until": "\"2027-01-31\"", "Decision.Why": "the shop", "Decision.Who": "net team", "Decision.Until": "\"2027-01-31\"",
}

// schemaLeavesOpen is what the loader refuses and the schema cannot.
var schemaLeavesOpen = []struct{ what, why string }{
	{"role is missing", "one of the files has it, and a schema sees one file"},
	{"two values that do not go together", "a list of what may be sent while everything may, a family without a prefix in from, an entry of interfaces that does not exist, pinGateway without a MAC address …"},
	{"numbers and dates out of range", "tcp/70000, ranges that end before they begin, 2027-02-31, protocol numbers"},
	{"addresses and prefixes", "the schema takes any text for a prefix, the loader none with bits behind its length, and none whose family does not fit"},
	{"names", "an interface of more than 15 characters, a glob whose bracket is open, a sysctl outside of net, a driver with a blank; texts that are empty or too long"},
	{"the same thing twice", "two services or keys of one name, an item that is in its list already"},
	{"the form of the file", "anchors, tags, control characters, and YAML that JSON has no word for"},
}

// IntentReference is docs/reference/intent.md.
func IntentReference() []byte {
	var b strings.Builder
	b.WriteString("# The intent file\n\n<!-- Generated by `go generate ./...` from the types and their rules. Do not edit. -->\n\n" +
		"`" + IntentPath + "`, and then `*.yaml` of `" + IntentDropIns + "` in the order of their names. Every file begins with `apiVersion: " + APIVersion + "`, and one of them has `role`.\n" +
		"A later file wins: mappings are merged key by key; services, checks and waivers add up, and a service with the name of an earlier one takes its place; every other\n" +
		"value, lists included, is replaced. `sixfence intent show --merged` says which line each value comes from, `sixfence intent check` every mistake.\n" +
		"Anchors, aliases, tags and keys that are not listed here are refused. [JSON Schema](../../schemas/intent.schema.json), [examples](../examples/README.md),\n[how to harden a host](../how-to/harden.md).\n")
	seen := map[string]bool{}
	var section func(t reflect.Type, path string)
	section = func(t reflect.Type, path string) {
		if seen[t.Name()] {
			return
		}
		seen[t.Name()] = true
		title := "Top level"
		if path != "" {
			title = path
		}
		fmt.Fprintf(&b, "\n## `%s`\n\n| key | type | left out | meaning | example |\n|---|---|---|---|---|\n", title)
		keys, fields := keysOf(t)
		type below struct {
			t    reflect.Type
			path string
		}
		var next []below
		for _, k := range keys {
			f := fields[k]
			id := t.Name() + "." + f.Name
			inner, suffix := f.Type, ""
			for inner.Kind() == reflect.Slice || inner.Kind() == reflect.Map || inner.Kind() == reflect.Pointer {
				switch inner.Kind() {
				case reflect.Slice:
					suffix += "[]"
				case reflect.Map:
					suffix += ".KEY"
				}
				inner = inner.Elem()
			}
			if inner == reflect.TypeFor[intent.Tunnels]() {
				inner, suffix = reflect.TypeFor[intent.Tunnel](), "[]"
			}
			sub := strings.TrimPrefix(path+"."+k+suffix, ".")
			if inner.Kind() == reflect.Struct && inner.PkgPath() != "net/netip" && !seen[inner.Name()] {
				next = append(next, below{inner, sub})
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | `%s` |\n", k, cell(typeWords(id, f.Type)), cell(leftOut(t, k, id)), cell(about[id]), cell(k+": "+examples[id]))
		}
		for _, n := range next {
			section(n.t, n.path)
		}
	}
	section(reflect.TypeFor[intent.Intent](), "")
	b.WriteString("\n## What an editor cannot see\n\nThe schema refuses nothing that the loader takes. It takes what no schema can refuse, and `sixfence intent check` says:\n\n")
	for _, x := range schemaLeavesOpen {
		fmt.Fprintf(&b, "- %s: %s\n", x.what, x.why)
	}
	return []byte(b.String())
}

// cell keeps text inside of a cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

func leftOut(t reflect.Type, key, id string) string {
	if slices.Contains(required[t.Name()], key) {
		return "must be there"
	}
	switch d := defaults[id]; d {
	case "":
		return "must be there"
	case "-":
		return ""
	default:
		return d
	}
}

// typeWords says what a value is.
func typeWords(id string, t reflect.Type) string {
	r := rules[id]
	one := ""
	elem := t
	for elem.Kind() == reflect.Slice || elem.Kind() == reflect.Map || elem.Kind() == reflect.Pointer {
		elem = elem.Elem()
	}
	switch {
	case elem == reflect.TypeFor[intent.Tunnels]():
		return "deny, allow, or a list of mappings"
	case elem == reflect.TypeFor[netip.Addr]():
		one = "address"
	case elem == reflect.TypeFor[netip.Prefix]():
		one = "address or prefix"
	case r.words != nil:
		one = strings.Join(r.words, ", ")
		if t.Kind() != reflect.Slice {
			return "one of " + one
		}
	case elem.Kind() == reflect.Struct:
		one = "mapping"
	case elem.Kind() == reflect.Bool:
		one = "true or false"
	case elem.Kind() == reflect.Uint32:
		one = "whole number"
	default:
		one = cmp.Or(map[string]string{"Match.MAC": "MAC address", "Router.MAC": "MAC address", "Waiver.Until": "date", "Decision.Until": "date", "Service.Ports": "port", "Waiver.Port": "port", "Flow.Ports": "port", "Destination.Ports": "port"}[id], "text")
	}
	switch t.Kind() {
	case reflect.Slice:
		return "list: " + one
	case reflect.Map:
		return "by name: " + one
	}
	return one
}
