package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/remote/server"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// startRemote has the host agent serve a VM of another host by way of a relay there, over an sshd like that of ssh -L. The guest agent
// listens on a unix socket, which is that host's; relay and sshd are where the guest is.
func startRemote(s setting) ([]*process, error) {
	ssh, err := findTool("ssh")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := giveShell(); err != nil {
		return nil, err
	}
	socket := scratchPath("remote.sock")
	dir, proxy, err := prepareSSH(s, "ForceCommand="+self+" "+roleRelay+" "+socket)
	if err != nil {
		return nil, err
	}
	config := "Host bench\n" + strings.Join(sshClient(dir, proxy), "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s -F %s \"$@\"\n", ssh, filepath.Join(dir, "config"))
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(wrapper), 0o700); err != nil {
		return nil, err
	}
	guest, err := startProcess(s.to.command(filepath.Join(s.bin, guestAgent), "--listen", "unix:"+socket)...)
	if err != nil {
		return nil, err
	}
	host, err := startProcess("env", "PATH="+dir+":"+os.Getenv("PATH"), filepath.Join(s.bin, hostAgent), "run", "--host", "ssh://bench", "--socket", controlSocket, "--http", "none")
	if err != nil {
		return []*process{guest}, err
	}
	return []*process{guest, host}, nil
}

// giveShell shows the sandbox a list of accounts in which nobody may run commands, which a relay is.
func giveShell() error {
	accounts := scratchPath("passwd")
	if _, err := os.Stat(accounts); err == nil {
		return nil
	}
	if err := os.WriteFile(accounts, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"), 0o600); err != nil {
		return err
	}
	if err := os.Chmod(accounts, 0o644); err != nil {
		return err
	}
	if err := unix.Mount(accounts, "/etc/passwd", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("give the account nobody a shell in the sandbox: %w", err)
	}
	return nil
}

// runRelay is a relay that sees one VM, whose guest agent has a unix socket.
func runRelay(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: %s SOCKET", errUsage, roleRelay)
	}
	runtime.GOMAXPROCS(1) // as the command relay has it
	vm := libvirt.Domain{Name: "vm", UUID: uuid.NewString(), State: libvirt.Running, Endpoint: "unix:" + args[0]}
	relay := &server.Server{Version: "bench", Log: slog.New(slog.DiscardHandler), Watch: func(ctx context.Context, seen func(libvirt.Snapshot)) error {
		seen(libvirt.Snapshot{Domains: []libvirt.Domain{vm}})
		<-ctx.Done()
		return nil
	}}
	return relay.Serve(ctx, endpoint.Stdio())
}
