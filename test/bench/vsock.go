package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// loopbackCID is VMADDR_CID_LOCAL of linux/vm_sockets.h.
const loopbackCID = 1

// sshVsockPort is where the guest's sshd is; the agent has its own default, and socat those of the services.
const sshVsockPort = 22

// vsockRelays reach a guest that runs serveGuest. Only the side of the clients is started anew for each measurement.
var vsockRelays = []relay{
	{name: "ends", title: "no relay (vsock)", bare: true},
	{name: "socat", title: "socat twice (vsock)", tools: []string{"socat"}, start: startVsockSocat},
	{
		name: "ssh", title: "ssh -L (vsock)", tools: append([]string{"socat"}, sshTools...),
		start: func(s setting) ([]*process, error) { return startVsockSSH(s, "") },
	},
	{
		name: "ssh-aes128", title: "ssh -L aes128-gcm (vsock)", tools: append([]string{"socat"}, sshTools...),
		start: func(s setting) ([]*process, error) { return startVsockSSH(s, "aes128-gcm@openssh.com") },
	},
	{
		name: "raw", title: "rum raw (vsock:)", binaries: rumBinaries, check: expectPath("vsock"),
		start: func(s setting) ([]*process, error) {
			host, err := startHostAgent(s, fmt.Sprintf("vsock:%d", s.cid))
			if err != nil {
				return nil, err
			}
			return []*process{host}, nil
		},
	},
}

func startVsockSocat(s setting) ([]*process, error) {
	var started []*process
	for _, port := range s.ports.all() {
		p, err := startProcess(socatToGuest(port, fmt.Sprintf("VSOCK-CONNECT:%d:%d", s.cid, port))...)
		if err != nil {
			return started, err
		}
		started = append(started, p)
	}
	return started, nil
}

func startVsockSSH(s setting, cipher string) ([]*process, error) {
	if err := unlockAccount(); err != nil {
		return nil, err
	}
	proxy := []string{"socat", "-b", strconv.Itoa(socatBuffer), "-", fmt.Sprintf("VSOCK-CONNECT:%d:%d", s.cid, sshVsockPort)}
	return startSSHClient(s.keys, proxy, cipher, s.ports)
}

// startLoopbackGuest has a namespace here be the guest at loopbackCID.
func startLoopbackGuest(o options, in netns) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startProcess(in.command(self, roleGuest, "--bin", o.bin, "--keys", o.keys, "--allow-cid", strconv.Itoa(loopbackCID))...)
}

// serveGuest is the program's role at a guest that is reached over AF_VSOCK: the servers, and the far end of every relay.
// It runs until ctx ends or one of them does.
func serveGuest(ctx context.Context, args []string) error {
	fs := pflag.NewFlagSet(roleGuest, pflag.ContinueOnError)
	bin := fs.String("bin", "bin", "directory of rum-guest-agent")
	keys := fs.String("keys", "", "directory with ssh's keys")
	allow := fs.String("allow-cid", "", "context `ID` that the agent accepts beside the host's")
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	sshd, err := findTool("sshd")
	if err != nil {
		return err
	}
	servers, err := startServers(netns{}, guestPorts)
	if err != nil {
		return err
	}
	defer servers.stop()
	if err := serveEnds(guestPorts); err != nil {
		return err
	}

	agent := []string{filepath.Join(*bin, guestAgent), "--listen", "vsock"}
	if *allow != "" {
		agent = append(agent, "--allow-cid", *allow)
	}
	commands := [][]string{agent, {"socat", "-b", strconv.Itoa(socatBuffer), vsockListen(sshVsockPort),
		"EXEC:" + strings.Join(sshServer(sshd, *keys), " ")}}
	for _, port := range guestPorts.all() {
		commands = append(commands, socatToServer(vsockListen(port), port))
	}
	ended := make(chan error, len(commands))
	for _, argv := range commands {
		p, err := startProcess(argv...)
		if err != nil {
			return err
		}
		defer p.stop()
		go func() {
			<-p.done
			ended <- p.ended()
		}()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return errors.Join(errors.New("the guest's side is not complete"), err)
	}
}

func vsockListen(port int) string { return fmt.Sprintf("VSOCK-LISTEN:%d,fork", port) }
