package main

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/testlab"
)

var update = flag.Bool("update", false, "draw docs/img/audit.svg anew from a lab run")

const picture = "../../docs/img/audit.svg"

// planted are the controls that must fail in the picture's lab.
var planted = []string{"SYSCTL-RA-01", "LISTEN-02"}

// TestDocsPicture draws the README's picture from a real run on an 80×24
// terminal (-update), and keeps it honest: what the lab's two faults are called
// today is what the picture calls them.
func TestDocsPicture(t *testing.T) {
	screen := pictureLab(t)
	if *update {
		if err := os.WriteFile(picture, drawSVG(screen), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	drawn := strings.Split(svgText(t, b), "\n")
	if len(drawn) > 24 {
		t.Errorf("the picture has %d lines, a terminal 24", len(drawn))
	}
	for _, text := range [][]string{strings.Split(plain(screen), "\n"), drawn} {
		for i, l := range text {
			if n := len([]rune(l)); n > 80 {
				t.Errorf("line %d is %d cells wide: %s", i+1, n, l)
			}
		}
	}
	for _, id := range planted {
		now, then := headline(plain(screen), id), headline(strings.Join(drawn, "\n"), id)
		if now == "" {
			t.Errorf("%s is not on the first screen:\n%s", id, plain(screen))
		}
		if now != then {
			t.Errorf("docs/img/audit.svg is stale (make docs draws it anew): %s is now %q, in the picture %q", id, now, then)
		}
	}
}

// headline is the line above the one that names a control, without its number.
func headline(screen, id string) string {
	lines := strings.Split(screen, "\n")
	for i, l := range lines {
		if i > 0 && strings.HasPrefix(strings.TrimSpace(l), id+" ") {
			_, title, _ := strings.Cut(lines[i-1], " ")
			return strings.TrimSpace(title)
		}
	}
	return ""
}

// pictureLab audits, on a terminal, a host that followed the usual guide: all and
// default are 0, its interface is not, and its database listens on [::].
func pictureLab(t *testing.T) string {
	t.Helper()
	host, lan := testlab.NewNS(t, "pic"), testlab.NewNS(t, "lan")
	host.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	lan.IP("link", "add", "br0", "type", "bridge")
	lan.IP("link", "set", "br0", "up")
	lan.IP("link", "add", "eth0", "link", "br0", "netns", host.Name, "type", "macvlan", "mode", "bridge")
	host.IP("link", "set", "eth0", "up")
	host.Sysctl("net/ipv6/conf/all/accept_ra", "0") // what the guide says,
	host.Sysctl("net/ipv6/conf/default/accept_ra", "0")
	// and eth0 is there already: it keeps its 1.
	host.IP("addr", "add", "192.0.2.2/24", "dev", "eth0")
	host.AddAddr("eth0", "2001:db8:1::b/64")
	host.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")

	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// PID and mount namespaces of its own: the report is about the lab, not about
	// the machine that draws the picture. They end with the audit.
	inner := strings.Join([]string{
		"hostname web-01",
		"cp " + binary + " " + dir + "/sixfence; cp " + exe + " " + dir + "/shop-db",
		"mount -t tmpfs tmpfs /srv; cp " + dir + "/shop-db /srv/shop-db",
		"umount -l /run/netns/* /run/netns 2>/dev/null",
		"mount -t tmpfs tmpfs /run",
		"LAB_SERVE=1 /srv/shop-db </dev/null >/dev/null 2>&1 &",
		"while ! [ -e /run/ready ]; do sleep 0.05; done",
		"exec " + dir + "/sixfence audit",
	}, "\n")
	file := filepath.Join(dir, "inner.sh")
	if err := os.WriteFile(file, []byte(inner), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := host.Command(testlab.RequireTool(t, "unshare"), "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "sh", file)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=", "COLUMNS=80")
	lines := strings.Split(strings.ReplaceAll(onTerminal(t, cmd), "\r\n", "\n"), "\n")
	if len(lines) > 24 {
		lines = lines[:24]
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// onTerminal runs a command with an 80×24 terminal as its output.
func onTerminal(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testlab.CannotRun(t, "pseudo-terminal: %v", err)
	}
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err != nil {
		t.Fatalf("set up pseudo-terminal: %v", err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %v: %v", cmd.Args, err)
	}
	slave.Close()
	stop := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	var out bytes.Buffer
	_, _ = io.Copy(&out, master) // ends with EIO when the last writer is gone
	_ = cmd.Wait()               // an audit with findings exits with 1
	return out.String()
}

// serve is the lab's database: run when the test binary is started with LAB_SERVE.
func serve() {
	var keep []net.Listener
	for network, addr := range map[string]string{"tcp4": "127.0.0.1:5432", "tcp6": "[::]:5432"} {
		l, err := net.Listen(network, addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		keep = append(keep, l)
	}
	if err := os.WriteFile("/run/ready", nil, 0o600); err != nil {
		os.Exit(1)
	}
	for { // until the lab's PID namespace ends
		time.Sleep(time.Hour)
		runtime.KeepAlive(keep)
	}
}

var sgr = regexp.MustCompile("\x1b\\[([0-9;]*)m")

func plain(s string) string { return sgr.ReplaceAllString(s, "") }

// svgText reads the lines back out of the picture.
func svgText(t *testing.T, b []byte) string {
	t.Helper()
	var lines []string
	in := false
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		tok, err := d.Token()
		if err == io.EOF {
			return strings.Join(lines, "\n")
		}
		if err != nil {
			t.Fatalf("%s: %v", picture, err)
		}
		switch e := tok.(type) {
		case xml.StartElement:
			if e.Name.Local == "text" {
				in, lines = true, append(lines, "")
			}
		case xml.EndElement:
			if e.Name.Local == "text" {
				in = false
			}
		case xml.CharData:
			if in {
				lines[len(lines)-1] += string(e)
			}
		}
	}
}

// drawSVG renders terminal text with the few SGR codes that reports use.
func drawSVG(s string) []byte {
	const cw, lh, pad, top = 8.4, 18, 16, 34
	lines := strings.Split(s, "\n")
	h := top + len(lines)*lh + pad
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="14">`+"\n", int(80*cw)+2*pad, h)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="#0d1117"/><g fill="#30363d"><circle cx="20" cy="17" r="5"/><circle cx="38" cy="17" r="5"/><circle cx="56" cy="17" r="5"/></g>`+"\n")
	color := map[int]string{31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#56d4dd"}
	for i, line := range lines {
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#e6edf3" xml:space="preserve">`, pad, top+lh*i+lh-4)
		attr, last := "", 0
		span := func(text string) {
			if text == "" {
				return
			}
			var esc bytes.Buffer
			_ = xml.EscapeText(&esc, []byte(text))
			if attr == "" {
				b.Write(esc.Bytes())
			} else {
				fmt.Fprintf(&b, "<tspan%s>%s</tspan>", attr, esc.String())
			}
		}
		for _, m := range sgr.FindAllStringSubmatchIndex(line, -1) {
			span(line[last:m[0]])
			last, attr = m[1], ""
			for _, c := range strings.Split(line[m[2]:m[3]], ";") {
				switch n, _ := strconv.Atoi(c); {
				case n == 1:
					attr += ` font-weight="bold"`
				case n == 2:
					attr += ` opacity="0.6"`
				case color[n] != "":
					attr += fmt.Sprintf(` fill="%s"`, color[n])
				}
			}
		}
		span(line[last:])
		b.WriteString("</text>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
