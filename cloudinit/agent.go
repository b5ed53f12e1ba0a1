package cloudinit

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
)

// agentMain is the import path of the guest agent's main package, which the Go linker records in the binary.
const agentMain = "github.com/rum-vm/rum-agent/agent-guest/cmd/rum-guest-agent"

// Agent is a guest agent's executable.
type Agent struct {
	// Arch is the architecture it runs on, named as in GOARCH.
	Arch string
	// Binary is the file itself.
	Binary []byte
}

// arches are the machines a guest agent is made for. The same table, from uname -m, is in guest/install.sh.
var arches = map[elf.Machine]string{
	elf.EM_X86_64:    "amd64",
	elf.EM_AARCH64:   "arm64",
	elf.EM_ARM:       "arm",
	elf.EM_386:       "386",
	elf.EM_RISCV:     "riscv64",
	elf.EM_S390:      "s390x",
	elf.EM_PPC64:     "ppc64le",
	elf.EM_LOONGARCH: "loong64",
}

// ReadAgent reads the guest agent at path and finds out what it runs on. A file that is not a guest agent, or
// that needs a dynamic loader which the guest may not have, is an error.
func ReadAgent(path string) (Agent, error) {
	// A pipe would be waited for without end.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return Agent{}, fmt.Errorf("guest agent: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Agent{}, fmt.Errorf("guest agent: %w", err)
	}
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return Agent{}, fmt.Errorf("guest agent %s: not a Linux executable: %w", path, err)
	}
	arch, ok := arches[file.Machine]
	if !ok {
		return Agent{}, fmt.Errorf("guest agent %s: unknown architecture %v", path, file.Machine)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return Agent{}, fmt.Errorf("guest agent %s: dynamically linked: build it with CGO_ENABLED=0", path)
		}
	}
	built, err := buildinfo.Read(bytes.NewReader(data))
	if err != nil {
		return Agent{}, fmt.Errorf("guest agent %s: %w", path, err)
	}
	if built.Path != agentMain {
		return Agent{}, fmt.Errorf("guest agent %s: this is %s, not rum-guest-agent", path, built.Path)
	}
	return Agent{Arch: arch, Binary: data}, nil
}

func (a Agent) file() string { return "rum-guest-agent-linux-" + a.Arch }
