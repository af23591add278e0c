package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// contexts are where a key of a type stands in a file, with what has to stand beside it.
var contexts = map[string]struct {
	around string
	beside map[string]string
}{
	"Intent":       {"%s", map[string]string{"apiVersion": APIVersion, "role": "server"}},
	"Firewall":     {"firewall: {%s}", nil},
	"Files":        {"files: {%s}", nil},
	"Interface":    {"interfaces: {eth0: {%s}}", map[string]string{"addressing": "slaac", "routers": "[{address: \"fe80::1\", mac: \"52:54:00:00:00:01\"}]"}},
	"Match":        {"interfaces: {x: {addressing: static, match: {%s}}}", nil},
	"Router":       {"interfaces: {eth0: {addressing: slaac, routers: [{%s}]}}", map[string]string{"address": "\"fe80::1\""}},
	"DHCPv6Server": {"interfaces: {eth0: {addressing: dhcpv6, dhcpv6Servers: [{%s}]}}", nil},
	"Service":      {"interfaces: {eth0: {addressing: static}}\nservices: [{%s}]", map[string]string{"name": "x", "ports": "[tcp/1]"}},
	"Forwarding":   {"role: router\nforwarding: {%s}", nil},
	"Flow":         {"role: router\nforwarding: {allow: [{%s}]}", nil},
	"Egress":       {"egress: {%s}", nil},
	"EgressFamily": {"egress: {ipv6: {%s}}", map[string]string{"default": "deny"}},
	"Destination":  {"egress: {ipv6: {default: deny, allow: [{%s}]}}", nil},
	"Tunnel":       {"tunnels: [{%s}]", map[string]string{"mechanism": "wireguard"}},
	"Limits":       {"limits: {%s}", nil},
	"Logging":      {"logging: {%s}", nil},
	"Waiver":       {"waivers: [{%s}]", map[string]string{"control": "LISTEN-07", "reason": "x", "until": "\"2027-01-31\""}},
	"Decision":     {"decision: {%s}", nil},
}

// TestReferenceExamplesLoad: every key has an example, and each of them loads, and the
// schema takes it.
func TestReferenceExamplesLoad(t *testing.T) {
	t.Parallel()
	schema := compile(t, IntentDocument)
	seen := map[string]bool{}
	var walk func(reflect.Type)
	walk = func(ty reflect.Type) {
		for ty.Kind() == reflect.Slice || ty.Kind() == reflect.Map || ty.Kind() == reflect.Pointer {
			ty = ty.Elem()
		}
		if ty == reflect.TypeFor[intent.Tunnels]() {
			ty = reflect.TypeFor[intent.Tunnel]()
		}
		if ty.Kind() != reflect.Struct || ty.PkgPath() == "net/netip" || seen[ty.Name()] {
			return
		}
		seen[ty.Name()] = true
		keys, fields := keysOf(ty)
		c, ok := contexts[ty.Name()]
		if !ok {
			t.Fatalf("no context for %s", ty.Name())
		}
		for _, k := range keys {
			id := ty.Name() + "." + fields[k].Name
			seen[id] = true
			if examples[id] == "" || leftOut(ty, k, id) == "" && defaults[id] != "-" {
				t.Errorf("%s has no example, or no word on what holds without it", id)
				continue
			}
			parts, sep := []string{k + ": " + examples[id]}, ", "
			for _, other := range slices.Sorted(maps.Keys(c.beside)) {
				if other != k && !(id == "Interface.LearnOnce" && other == "routers") {
					parts = append(parts, other+": "+c.beside[other])
				}
			}
			text := ""
			if ty.Name() == "Intent" {
				sep = "\n"
			} else {
				text = "apiVersion: " + APIVersion + "\n"
				if !strings.Contains(c.around, "role:") {
					text += "role: server\n"
				}
			}
			text += fmt.Sprintf(c.around, strings.Join(parts, sep)) + "\n"
			if l, err := load(t, text); err != nil || len(l.Warnings) > 0 {
				t.Errorf("%s: %v %v\n%s", id, err, l, text)
			}
			if err := validYAML(schema, []byte(text)); err != nil {
				t.Errorf("%s: %v\n%s", id, err, text)
			}
			walk(fields[k].Type)
		}
	}
	walk(reflect.TypeFor[intent.Intent]())
	for _, table := range []map[string]string{defaults, examples} {
		for id := range table {
			if !seen[id] {
				t.Errorf("%s is not there", id)
			}
		}
	}
}
