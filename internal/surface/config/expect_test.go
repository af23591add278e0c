package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sixfence/sixfence/internal/logic/expect"
)

func TestExpect(t *testing.T) {
	t.Parallel()
	got, err := Expect("e.yaml", []byte("apiVersion: sixfence/v1\nexpect:\n  tcp/22: open\n  tcp/1-100: {ipv4: closed, ipv6: filtered}\n  udp/*: blocked\n  echo: open\n  \"*\": filtered\n"))
	want := expect.List{
		{Proto: "tcp", From: 22, To: 22, IPv4: "open", IPv6: "open"},
		{Proto: "tcp", From: 1, To: 100, IPv4: "closed", IPv6: "filtered"},
		{Proto: "udp", IPv4: "blocked", IPv6: "blocked"},
		{Proto: "echo", IPv4: "open", IPv6: "open"},
		{IPv4: "filtered", IPv6: "filtered"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := Expect("e.yaml", []byte("expect:\n  tcp/20-30: open\n  tcp/25-40: filtered\n  tcp/31-41: open\n  udp/20-30: closed\n  icmpv6/128: open\n  icmp/8: filtered\n  echo: open\n")); err != nil || len(got) != 7 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := Expect("e.yaml", []byte(`expect: {tcp/22: open, "*": filtered}`)); err != nil || len(got) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestExpectErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                       "e.yaml: expect is missing",
		"- a\n":                                  "e.yaml:1: the file is a list",
		"expct:\n  tcp/22: open\n":               "e.yaml:1: unknown key",
		"expect: open\n":                         "e.yaml:1: expect is text",
		"expect:\n  tcp/22: opne\n":              "e.yaml:2: tcp/22 is \"opne\"",
		"expect:\n  22: open\n":                  "e.yaml:2: the key \"22\" is not text",
		"expect:\n  tcp/22: open\n  tcp/22: x\n": "e.yaml:3: the key \"tcp/22\" is there twice",
		"expect:\n  tcp/22: {ipv5: open}\n":      "e.yaml:2: unknown key \"ipv5\"",
		"expect:\n  tcp/22: [open]\n":            "e.yaml:2: tcp/22 is a list",
		"expect:\n  tcp/0: open\n":               "e.yaml:2: \"tcp/0\": port 0",
		"apiVersion: v2\nexpect: {}\n":           "e.yaml:1: apiVersion is",
		"expect: {tcp/22: open\n":                "e.yaml:",

		"expect:\n  tcp/20-30: open\n  tcp/25-35: filtered\n":             "e.yaml:3: tcp/25-35 and tcp/20-30 (line 2) name the same port",
		"expect:\n  tcp/22: open\n  tcp/22-22: {ipv6: filtered}\n":        "e.yaml:3: tcp/22-22 and tcp/22 (line 2)",
		"expect:\n  tcp/2-9: open\n  udp/53: open\n  tcp/1-8: filtered\n": "e.yaml:4: tcp/1-8 and tcp/2-9 (line 2)",
		"expect:\n  tcp/22: {ipv4: open, ip: filtered}\n":                 "e.yaml:2: tcp/22 says twice",
	} {
		_, err := Expect("e.yaml", []byte(text))
		var es Errors
		if !errors.As(err, &es) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
			continue
		}
		for _, e := range es {
			if e.Hint == "" {
				t.Errorf("%q: %v has no hint", text, e)
			}
		}
	}
}

// TestExpectSchemaAgreesWithTheLoader on what a schema is able to say.
func TestExpectSchemaAgreesWithTheLoader(t *testing.T) {
	t.Parallel()
	s := compile(t, ExpectDocument)
	for _, text := range []string{
		"expect: {tcp/22: open}", "apiVersion: sixfence/v1\nexpect: {\"*\": filtered}", "expect: {udp/*: blocked, tcp/1-1000: closed, icmp/13: open, icmpv6/128: rejected, echo: unreachable}",
		"expect: {tcp/22: {ipv4: open, ip6: filtered}}", "expect: {tcp/22: {}}", "expect: {icmp/8-8: open}", "expect: {icmpv6/*: open}",
		"{}", "[]", "x", "expect: open", "expect: {}", "expect: []", "apiVersion: v2\nexpect: {tcp/22: open}", "expct: {tcp/22: open}", "expect: {tcp/22: opne}", "expect: {tcp/22: error}",
		"expect: {tcp/0: open}", "expect: {tcp/022: open}", "expect: {tcp: open}", "expect: {sctp/22: open}", "expect: {icmp/3: open}", "expect: {tcp/22: [open]}", "expect: {tcp/22: {ipv5: open}}",
		"expect: {tcp/22: {ipv4: {}}}", "expect: {tcp/22: 1}", "expect: {tcp/22: null}", "expect: {tcp/22: open}\nextra: 1", "expect: {tcp/1-2-3: open}", "expect: {\"**\": open}", "expect: {Tcp/22: open}",
	} {
		_, err := Expect("e", []byte(text))
		j, bad := yaml.YAMLToJSON([]byte(text))
		if bad != nil {
			t.Fatalf("%s: %v", text, bad)
		}
		v, bad := validator.UnmarshalJSON(strings.NewReader(string(j)))
		if bad != nil {
			t.Fatalf("%s: %v", text, bad)
		}
		if says := s.Validate(v); (says == nil) != (err == nil) {
			t.Errorf("%s: the schema says %v, the loader %v", text, says, err)
		}
	}
}

func FuzzExpect(f *testing.F) {
	f.Add([]byte(`expect: {tcp/22: open, "*": filtered}`))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = Expect("e.yaml", b) })
}
