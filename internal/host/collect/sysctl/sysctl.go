// Package sysctl reads the IPv6 settings of one network namespace, and the few
// others that decide about IPv6, from /proc/sys/net.
//
// It exists apart from a general file reader because of three traps:
// /proc/sys/net shows the namespace of the calling thread, interface names in it
// come from strangers, and one of its files holds a secret that must never be
// read.
package sysctl

import (
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// root is what every key is below.
const root = "/proc/sys/net"

// single are the keys outside net/ipv6 that a control reads, by directory. Their
// directories are not listed: a key that does not exist is unsupported.
var single = []struct {
	dir  string
	keys []string
}{
	{"core", []string{"devconf_inherit_init_net", "fb_tunnels_only_for_init_net"}},
	{"ipv4", []string{"ip_forward", "tcp_mtu_probing"}},
	{"bridge", []string{"bridge-nf-call-ip6tables", "bridge-nf-call-iptables", "bridge-nf-filter-vlan-tagged"}},
	{"netfilter", []string{
		"nf_conntrack_count", "nf_conntrack_frag6_high_thresh", "nf_conntrack_frag6_low_thresh", "nf_conntrack_frag6_timeout",
		"nf_log_all_netns",
	}},
}

// ipv4PerInterface are the keys read below net/ipv4/conf/IF.
var ipv4PerInterface = []string{"accept_local", "forwarding", "route_localnet", "rp_filter"}

const (
	stableSecret = "stable_secret"
	secretSet    = "set"
	secretUnset  = "unset"
)

// writeOnly are triggers, not settings: nobody, not even root, can read them.
var writeOnly = map[string]bool{"flush": true}

// secret tells the keys whose value must not enter a Snapshot. Any name that
// suggests one is held back, so that a newer kernel's does not slip in.
func secret(name string) bool {
	if name == "ip6frag_secret_interval" { // a period in seconds
		return false
	}
	return strings.Contains(name, "secret") || strings.HasSuffix(name, "_key")
}

// Dump is what was read, not yet interpreted.
type Dump struct {
	dirs   []dir
	values []byte // of every file, one after the other
	gap    *fact.Gap
	noIPv6 bool // /proc/sys/net is there and has no ipv6
}

// dir is one directory below /proc/sys, by path with the raw interface name.
type dir struct {
	path     string
	name     []byte // the interface, in a directory of one
	files    []file
	listed   bool      // to the end
	gap      *fact.Gap // it could not be read
	perIface bool      // its directories are interfaces
}

// file is one key.
type file struct {
	name   string
	start  int // of its value in Dump.values
	end    int
	state  state
	reason fact.Reason
	detail string
}

type state uint8

const (
	read    state = iota
	failed        // reason and detail say why
	missing       // looked for by name, and not there
	isSet         // a secret that has been set
	isUnset       // a secret that has not
)

// Read reads in the network namespace of the calling thread.
func Read(a *ask.Asker, b *ask.Budget) *Dump {
	d := &Dump{}
	r := &reader{dump: d, budget: b, buf: make([]byte, bufferSize), names: map[string]string{}}
	a.Note("open", root)
	r.run()
	if d.gap != nil {
		d.dirs, d.values = nil, nil
	}
	return d
}

// Decode interprets the dump and fills its part of the namespace. It looks at
// ns.Links, when they are there, to notice interfaces that came after the
// settings were read.
func (d *Dump) Decode(ns *fact.Namespace) {
	if d.gap != nil {
		ns.Sysctls = fact.Missing[fact.Sysctls](*d.gap)
		ns.IPv6 = fact.Missing[bool](*d.gap)
		return
	}
	out := fact.Sysctls{Values: map[string]string{}, Gaps: map[string]fact.Gap{}}
	ns.IPv6 = fact.Value(!d.noIPv6)
	if d.noIPv6 {
		out.Unsupported = append(out.Unsupported, "net/ipv6")
	}
	for i := range d.dirs {
		d.decodeDir(&d.dirs[i], &out)
		if g := d.dirs[i].gap; g != nil && d.dirs[i].path == "net/ipv6" {
			ns.IPv6 = fact.Missing[bool](*g)
		}
	}
	d.lateInterfaces(ns, &out)
	slices.Sort(out.Complete)
	slices.Sort(out.Unsupported)
	ns.Sysctls = fact.Value(out)
}

func (d *Dump) decodeDir(at *dir, out *fact.Sysctls) {
	path := at.path
	if at.name != nil {
		path += "/" + fact.InterfaceName(at.name)
	}
	if at.gap != nil {
		out.Gaps[path] = *at.gap
		return
	}
	if at.listed {
		out.Complete = append(out.Complete, path)
	}
	for i := range at.files {
		f := &at.files[i]
		key := path + "/" + f.name
		switch f.state {
		case read:
			out.Values[key] = strings.TrimSpace(string(d.values[f.start:f.end]))
		case failed:
			what := "/proc/sys/" + key
			if f.detail != "" {
				what += ": " + f.detail
			}
			out.Gaps[key] = fact.Gap{Reason: f.reason, What: what}
		case missing:
			out.Unsupported = append(out.Unsupported, key)
		case isSet:
			out.Values[key] = secretSet
		case isUnset:
			out.Values[key] = secretUnset
		}
	}
}

// lateInterfaces marks interfaces that have an IPv6 side by netlink and no
// directory in the listing: they were made, or renamed, in between. Without the
// mark their settings would look unsupported.
func (d *Dump) lateInterfaces(ns *fact.Namespace, out *fact.Sysctls) {
	links, ok := ns.Links.Get()
	if !ok || d.noIPv6 {
		return
	}
	listed := make(map[string]bool, len(out.Complete))
	for _, c := range out.Complete {
		listed[c] = true
	}
	for i := range links {
		if links[i].Inet6.State() != fact.StateValue {
			continue
		}
		for _, parent := range []string{"net/ipv6/conf", "net/ipv6/neigh"} {
			path := parent + "/" + links[i].Name
			if _, gap := out.Gaps[path]; !gap && !listed[path] {
				out.Gaps[path] = fact.Gap{Reason: fact.NotCollected, What: "/proc/sys/" + path + ": appeared while settings were read"}
			}
		}
	}
}
