package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/test/debian"
	"github.com/rum-vm/rum-agent/test/vm"
)

// accounts are what sshd needs, which serves the account nobody and refuses a key that all may read.
const accounts = `
echo 'nobody:x:65534:65534:nobody:/:/bin/sh' >>/etc/passwd
echo 'nogroup:x:65534:' >>/etc/group
touch /etc/shadow
mkdir -p /run/sshd
chmod 600 /bench/keys/*
`

// guestScript runs the guest's side of test/bench.
const guestScript = accounts + `
while :; do
	/bench/bench guest --bin /bench --keys /bench/keys
	sleep 1
done
`

// tools are the programs that the guest's side runs, as found on PATH, and clientTools those of the other side.
var (
	tools       = []string{"iperf3", "socat", "sshd", "unshare"}
	clientTools = []string{"nsenter", "ssh"}
)

// nestedGuest writes the initramfs of the VM's guest.
func nestedGuest(ctx context.Context, k *vm.Kernel, cargo string) error {
	files, err := benchFiles(ctx, cargo, tools)
	if err != nil {
		return err
	}
	delete(files, "/bench/rum-host-agent")
	guest := vm.Initramfs{Hostname: "nested", Files: files, Script: guestScript, Modules: []string{vm.VsockModule}}
	return guest.Write(ctx, k, filepath.Join(cargo, "initramfs"))
}

// measureKernel boots the kernel of a release in a small guest, and measures over that kernel's vsock loopback.
func measureKernel(ctx context.Context, cargo, suite string, args []string) error {
	kernel, err := debian.FetchKernel(ctx, suite, os.Stderr)
	if err != nil {
		return err
	}
	files, err := benchFiles(ctx, cargo, slices.Concat(tools, clientTools))
	if err != nil {
		return err
	}
	initrd := filepath.Join(filepath.Dir(cargo), "initramfs-"+suite)
	guest := vm.Initramfs{Hostname: suite, Files: files, Script: accounts, Modules: []string{"vsock_loopback"}}
	if err := guest.Write(ctx, kernel, initrd); err != nil {
		return err
	}
	machine, err := vm.Start(ctx, vm.Config{
		CPUs: 2, Memory: 2048,
		Boot: &vm.Boot{Kernel: kernel.Image, Initrd: initrd, Append: "quiet console=ttyS0"},
	})
	if err != nil {
		return err
	}
	defer machine.Stop()
	fmt.Printf("\nOver the vsock loopback of Linux %s (%s)\n\n", kernel.Release, suite)
	return measure(ctx, machine, "/bench", 1, args)
}

// benchFiles are what test/bench needs in a guest, by path there. Its programs are those of this machine, with their
// libraries.
func benchFiles(ctx context.Context, cargo string, programs []string) (map[string]string, error) {
	files := map[string]string{}
	for _, name := range []string{"bench", "rum-host-agent", "rum-guest-agent", "keys/host", "keys/client", "keys/client.pub", "keys/known_hosts"} {
		files["/bench/"+name] = filepath.Join(cargo, name)
	}
	for _, tool := range programs {
		program, err := exec.LookPath(tool)
		if err != nil {
			program, err = exec.LookPath(filepath.Join("/usr/sbin", tool))
		}
		if err != nil {
			return nil, err
		}
		libraries, err := sharedLibraries(ctx, program)
		if err != nil {
			return nil, err
		}
		files[program] = program
		maps.Copy(files, libraries)
	}
	return files, nil
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
