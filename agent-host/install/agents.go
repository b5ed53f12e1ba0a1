package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/cloudinit"
)

// Agents returns the guest agents in files; where none is named, those of these
// architectures that belong to this program.
func Agents(files, arch []string) ([]cloudinit.Agent, error) {
	if len(files) == 0 {
		for _, arch := range arch {
			file, err := findAgent(arch)
			if err != nil {
				return nil, err
			}
			files = append(files, file)
		}
	}
	var agents []cloudinit.Agent
	for _, file := range files {
		agent, err := cloudinit.ReadAgent(file)
		if err != nil {
			return nil, output.Advise(err, "--agent takes a rum-guest-agent for Linux, as make build writes it to bin")
		}
		agents = append(agents, agent)
	}
	return agents, nil
}

// findAgent looks where make build and packages put guest agents.
func findAgent(arch string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	name := "rum-guest-agent-linux-" + arch
	for _, dir := range []string{filepath.Dir(self), filepath.Join(filepath.Dir(self), "..", "lib", "rum-agent")} {
		file := filepath.Join(dir, name)
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
	}
	return "", output.Advise(fmt.Errorf("no %s beside %s", name, self), "name the guest agent with --agent FILE, or build it with: make build")
}
