// Package connect asks the checks of an intent: is there still an answer?
//
// A family is never tried in the place of another. An address is asked over its own
// family, a pinned name (tcp6://) over that one, and a name that is not pinned must
// answer over every family in which it has an address: what net.Dial and http.Client
// do by default, falling back to IPv4 where IPv6 is broken, would call a host healthy
// that has lost half of its network.
package connect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// timeout bounds one attempt over one family.
const timeout = 5 * time.Second

// maxAddresses bounds how many addresses of a name are tried in one family.
const maxAddresses = 4

// Check asks once. The error names the family that does not answer.
func Check(ctx context.Context, text string) error {
	c, err := intent.ParseCheck(text)
	if err != nil {
		return fmt.Errorf("check %s: %w", text, err)
	}
	families := []string{c.Family}
	if c.Family == "" {
		families = []string{"ipv4", "ipv6"}
	}
	var problems []error
	asked := 0
	for _, f := range families {
		as, err := addresses(ctx, c, f)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if len(as) == 0 {
			continue
		}
		asked++
		if err := family(ctx, c, as); err != nil {
			pin := ""
			if c.Family == "" {
				pin = fmt.Sprintf(" (every family of a name must answer; %s4:// or %s6:// pins one)", c.Kind, c.Kind)
			}
			problems = append(problems, fmt.Errorf("over %s: %w%s", words[f], err, pin))
		}
	}
	if asked == 0 && len(problems) == 0 {
		over := ""
		if c.Family != "" {
			over = " in " + words[c.Family]
		}
		return fmt.Errorf("%s has no address%s", c.Host, over)
	}
	return errors.Join(problems...)
}

var words = map[string]string{"ipv4": "IPv4", "ipv6": "IPv6"}

// addresses are those of a check in one family.
func addresses(ctx context.Context, c intent.Check, family string) ([]netip.Addr, error) {
	if c.Addr.IsValid() {
		return []netip.Addr{c.Addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	network := map[string]string{"ipv4": "ip4", "ipv6": "ip6"}[family]
	as, err := net.DefaultResolver.LookupNetIP(ctx, network, c.Host)
	var none *net.DNSError
	switch {
	case errors.As(err, &none) && none.IsNotFound:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look up %s: %w", c.Host, err)
	}
	var out []netip.Addr
	for _, a := range as {
		if a = a.Unmap(); a.Is4() == (family == "ipv4") && len(out) < maxAddresses {
			out = append(out, a)
		}
	}
	return out, nil
}

// family is nil when one of the addresses, which are of one family, answers.
func family(ctx context.Context, c intent.Check, as []netip.Addr) error {
	var problems []error
	for _, a := range as {
		err := ask(ctx, c, a)
		if err == nil {
			return nil
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

func ask(ctx context.Context, c intent.Check, a netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	to := netip.AddrPortFrom(a, c.Port).String()
	dial := func(ctx context.Context, network string) (net.Conn, error) {
		return (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, to)
	}
	switch c.Kind {
	case "tcp":
		conn, err := dial(ctx, "tcp")
		if err != nil {
			return err
		}
		return conn.Close()
	case "http", "https":
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.URL, nil)
		if err != nil {
			return err
		}
		client := &http.Client{
			// A redirect is an answer; what it leads to may be elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DisableKeepAlives: true,
				DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "tcp") },
			},
		}
		r, err := client.Do(req)
		if err != nil {
			return err
		}
		return r.Body.Close()
	case "dns":
		conn, err := dial(ctx, "udp")
		if err != nil {
			return err
		}
		defer conn.Close()
		return resolve(ctx, conn, c.Ask)
	case "icmp":
		return ping(ctx, a)
	}
	return fmt.Errorf("the kind %q is not known", c.Kind)
}

// resolve asks a name server itself: the system's resolver would look into /etc/hosts
// first. A name that exists is an answer, whatever addresses it has.
func resolve(ctx context.Context, conn net.Conn, ask string) error {
	name, err := dnsmessage.NewName(strings.TrimSuffix(ask, ".") + ".")
	if err != nil {
		return fmt.Errorf("%q is no name: %w", ask, err)
	}
	q := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeAAAA, Class: dnsmessage.ClassINET}},
	}
	b, err := q.Pack()
	if err != nil {
		return fmt.Errorf("%q is no name: %w", ask, err)
	}
	if d, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(d)
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		var p dnsmessage.Parser
		if h, err := p.Start(buf[:n]); err != nil || h.ID != q.ID || !h.Response {
			continue
		} else if h.RCode != dnsmessage.RCodeSuccess {
			return fmt.Errorf("the name server says %s to %s", strings.TrimPrefix(h.RCode.String(), "RCode"), ask)
		}
		return nil
	}
}

// ping sends an echo request and waits for its reply.
func ping(ctx context.Context, a netip.Addr) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if a.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, a.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(d)
	}
	id := uint16(os.Getpid())
	m := []byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1, 's', 'i', 'x', 'f'}
	if a.Is4() {
		var sum uint32
		for i := 0; i < len(m); i += 2 {
			sum += uint32(m[i])<<8 | uint32(m[i+1])
		}
		sum = sum>>16 + sum&0xffff
		sum += sum >> 16
		m[2], m[3] = byte(^sum>>8), byte(^sum)
	}
	if _, err := c.Write(m); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		m := buf[:n]
		if a.Is4() && len(m) > 0 { // a raw socket gives the header, too
			m = m[min(len(m), 4*int(m[0]&15)):]
		}
		if len(m) >= 8 && m[0] == reply && m[4] == byte(id>>8) && m[5] == byte(id) {
			return nil
		}
	}
}
