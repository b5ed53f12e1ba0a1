package main

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rum-vm/rum-agent/test/vm"
)

// guestScript runs the guest's side of test/bench. sshd serves the account nobody, and refuses a key that all may read.
const guestScript = `
echo 'nobody:x:65534:65534:nobody:/:/bin/sh' >>/etc/passwd
echo 'nogroup:x:65534:' >>/etc/group
mkdir -p /run/sshd
chmod 600 /bench/keys/*
while :; do
	/bench/bench guest --bin /bench --keys /bench/keys
	sleep 1
done
`

// tools are the programs that the guest's side runs, as found on PATH.
var tools = []string{"iperf3", "socat", "sshd", "unshare"}

// nestedGuest writes the initramfs of the VM's guest. Its programs are those of this machine, with their libraries.
func nestedGuest(ctx context.Context, k *vm.Kernel, cargo string) error {
	files := map[string]string{
		"/bench/bench":           filepath.Join(cargo, "bench"),
		"/bench/keys/host":       filepath.Join(cargo, "keys", "host"),
		"/bench/keys/client.pub": filepath.Join(cargo, "keys", "client.pub"),
		"/bench/rum-guest-agent": filepath.Join(cargo, "rum-guest-agent"),
	}
	for _, tool := range tools {
		program, err := exec.LookPath(tool)
		if err != nil {
			program, err = exec.LookPath(filepath.Join("/usr/sbin", tool))
		}
		if err != nil {
			return err
		}
		libraries, err := sharedLibraries(ctx, program)
		if err != nil {
			return err
		}
		files[program] = program
		maps.Copy(files, libraries)
	}
	guest := vm.Initramfs{Hostname: "nested", Files: files, Script: guestScript, Modules: []string{vm.VsockModule}}
	return guest.Write(ctx, k, filepath.Join(cargo, "initramfs"))
}

// sharedLibraries are the files that the dynamic linker loads for a program, itself included, each at its own path.
func sharedLibraries(ctx context.Context, program string) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) { // "name => /path (address)" or "/path (address)"
			if filepath.IsAbs(word) {
				found[word] = word
			}
		}
	}
	return found, nil
}
