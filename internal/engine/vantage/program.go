package vantage

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/sixfence/sixfence/internal/host/run"
)

// Program is the file that is run elsewhere.
type Program struct {
	file    *os.File
	size    int64
	hash    string
	machine string // as uname -m says it
}

// machines are those that sixfence is built for.
var machines = map[elf.Machine]string{elf.EM_X86_64: "x86_64", elf.EM_AARCH64: "aarch64", elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x"}

// OpenProgram opens a program for Linux; an empty path is the one that runs.
func OpenProgram(path string) (*Program, error) {
	own := path == ""
	if own {
		path = run.Self
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{Msg: "read the program that is to run elsewhere", Cause: err, Hint: "check the path and its permissions"}
	}
	p := &Program{file: f}
	if err := p.read(); err != nil {
		f.Close()
		return nil, &Error{Msg: "read " + path, Cause: err, Hint: "name a sixfence for Linux, as make build writes to bin/"}
	}
	return p, nil
}

func (p *Program) read() error {
	e, err := elf.NewFile(p.file)
	if err != nil {
		return fmt.Errorf("it is no program for Linux: %w", err)
	}
	if p.machine = machines[e.Machine]; p.machine == "" {
		return fmt.Errorf("it is for %s, which is not known here", e.Machine)
	}
	h := sha256.New()
	if p.size, err = io.Copy(h, io.NewSectionReader(p.file, 0, 1<<30)); err != nil {
		return fmt.Errorf("hash: %w", err)
	}
	p.hash = hex.EncodeToString(h.Sum(nil))
	return nil
}

// Close closes the file.
func (p *Program) Close() { p.file.Close() }

// architecture is what Go calls a machine.
func architecture(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return machine
}

// runs tells whether the program can run on such a host.
func (p *Program) runs(system, machine string) error {
	if system == "Linux" && machine == p.machine {
		return nil
	}
	hint := "sixfence looks from Linux only"
	if system == "Linux" {
		hint = fmt.Sprintf("name one for that host: --via-binary sixfence-linux-%s (make build writes it to bin/)", architecture(machine))
	}
	return &Error{Msg: fmt.Sprintf("that host is %.40q on %.40q, and this program is for %s on %s", system, machine, "Linux", p.machine), Hint: hint}
}

// sshPaths are where ssh is.
var sshPaths = []string{"/usr/bin/ssh", "/bin/ssh", "/usr/local/bin/ssh", "/run/current-system/sw/bin/ssh"}

func findSSH() (string, error) {
	for _, p := range sshPaths {
		if st, err := os.Stat(p); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", &Error{Msg: "there is no ssh on this host", Hint: "install the OpenSSH client (" + runtime.GOOS + ": openssh-client)"}
}
