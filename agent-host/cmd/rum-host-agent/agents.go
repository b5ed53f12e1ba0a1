package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/cloudinit"
)

// agentOptions are the flags that say which guest agents a guest is offered.
type agentOptions struct {
	files []string
	arch  []string
}

func (o *agentOptions) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&o.files, "agent", nil, "the guest agent's `FILE`; may be repeated, once for each architecture\n(default the one beside rum-host-agent, or in ../lib/rum-agent)")
	c.Flags().StringSliceVar(&o.arch, "arch", []string{runtime.GOARCH}, "the guest's `ARCHITECTURE`, such as amd64 or arm64, to choose the default for --agent by;\nmay be repeated")
}

// read returns the agents that were named, or else those that belong to this program.
func (o *agentOptions) read() ([]cloudinit.Agent, error) {
	files := o.files
	if len(files) == 0 {
		for _, arch := range o.arch {
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
			return nil, advise(err, "--agent takes a rum-guest-agent for Linux, as make build writes it to bin")
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
	return "", advise(fmt.Errorf("no %s beside %s", name, self), "name the guest agent with --agent FILE, or build it with: make build")
}
