package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// role is the environment variable that tells this program which of its parts it is.
const role = "RUM_HOSTILE_ROLE"

// self is this program in a part, in a network of its own if it is to have one. It ends
// with its parent.
func self(ctx context.Context, part string, ownNetwork bool, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), role+"="+part)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if ownNetwork {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	if ownNetwork && os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

func loopbackUp() error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w\n%s", err, out)
	}
	return nil
}

// part runs one of the parts other than the first.
func part(name string, args []string) error {
	switch name {
	case "guest":
		return honestGuest(args[0], args[1])
	case "crowd":
		vms, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return crowdOf(args[0], vms)
	case "evil":
		m, err := find(args[0])
		if err != nil {
			return err
		}
		l, err := net.Listen("unix", args[1])
		if err != nil {
			return err
		}
		serve(m, l)
		return nil
	case "sink":
		l, err := net.Listen("unix", args[0])
		if err != nil {
			return err
		}
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	case "flood":
		m, err := find(args[0])
		if err != nil {
			return err
		}
		c, err := net.Dial("unix", args[1])
		if err != nil {
			return err
		}
		spew(m.sink)(c)
		return nil
	case "clients":
		m, err := find(args[0])
		if err != nil {
			return err
		}
		m.disturb(context.Background())
		select {}
	case "user":
		m, err := find(args[0])
		if err != nil {
			return err
		}
		m.user(func() (net.Conn, error) { return net.Dial("unix", args[1]) })
		return nil
	case "program":
		m, err := find(args[0])
		if err != nil {
			return err
		}
		if err := loopbackUp(); err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			// Of a user who is not root. One who is would be every program of the guest.
			const nobody = 65534
			if err := errors.Join(syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
				return err
			}
			// With the user goes what was said about the end of the parent (prctl(2)).
			if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
				return err
			}
			if os.Getppid() == 1 {
				return errors.New("the guest has ended")
			}
		}
		m.local()
		return nil
	}
	return fmt.Errorf("no part %q", name)
}

// Ports of the honest guest: an echo answers at the one, at the other nobody ever does.
const (
	goodPort  = 7000
	silentUDP = 6002
)

// honestGuest runs a guest agent, whose number it prints, an echo, and for each line of its
// standard input one more on that port, or with - before it that one no more, or a program of
// that name.
func honestGuest(bin, socket string) error {
	if err := loopbackUp(); err != nil {
		return err
	}
	agent := exec.Command(filepath.Join(bin, "rum-guest-agent"), "--listen", "unix:"+socket)
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	agent.Stderr = os.Stderr
	if err := agent.Start(); err != nil {
		return err
	}
	fmt.Println(agent.Process.Pid)
	if _, err := echo(fmt.Sprint(goodPort)); err != nil {
		return err
	}
	silent, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", silentUDP))
	if err != nil {
		return err
	}
	defer silent.Close()
	in := bufio.NewScanner(os.Stdin)
	open := make(map[string]net.Listener)
	for in.Scan() {
		order := in.Text()
		var err error
		if strings.HasPrefix(order, "program") {
			err = self(context.Background(), "program", false, order).Start()
		} else if port, closes := strings.CutPrefix(order, "-"); closes {
			err = open[port].Close()
		} else {
			open[port], err = echo(port)
		}
		if err != nil {
			return err
		}
	}
	return in.Err()
}

func echo(port string) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return l, nil
}
