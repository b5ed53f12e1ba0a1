// Package address is how another host is named, and what ssh is told to get there. It only works on text.
package address

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Address is a host that ssh leads to.
type Address struct {
	// User is who logs in there, and Port where; empty and 0 for what ssh's configuration says.
	User string
	Host string
	Port uint16
	// Libvirt is the libvirt URI to use there; empty for the usual one.
	Libvirt string
}

// Bounds of what is a name of a user and of a host. They are none of pattern's, which each command would wait for
// while it is compiled.
const maxUser, maxHost = 65, 253

// What ssh would take for an option, or a shell of a ProxyCommand for more than a name, is none.
var pattern = regexp.MustCompile(`^(?:([A-Za-z0-9_.][A-Za-z0-9_.-]*\$?)@)?` +
	`(?:([A-Za-z0-9_.][A-Za-z0-9_.-]*)|\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]{1,15})?)\])` +
	`(?::([0-9]{1,5}))?$`)

// Parse reads ssh://[USER@]HOST[:PORT].
func Parse(s string) (Address, error) {
	rest, ok := strings.CutPrefix(s, "ssh://")
	if ok {
		if a, ok := parse(strings.TrimSuffix(rest, "/")); ok {
			return a, nil
		}
	}
	return Address{}, fmt.Errorf("%.200q is no host: want ssh://[USER@]HOST[:PORT], and all else in ~/.ssh/config", s)
}

// ParseLibvirt reads qemu+ssh://[USER@]HOST[:PORT]/system or /session. It reports false for a URI of another kind.
func ParseLibvirt(s string) (a Address, is bool, err error) {
	rest, is := strings.CutPrefix(s, "qemu+ssh://")
	if !is {
		return a, false, nil
	}
	host, path, _ := strings.Cut(rest, "/")
	a, ok := parse(host)
	if !ok || path != "system" && path != "session" {
		return a, true, fmt.Errorf("libvirt URI %.200q: want qemu+ssh://[USER@]HOST[:PORT]/system, and all else in ~/.ssh/config", s)
	}
	a.Libvirt = "qemu:///" + path
	return a, true, nil
}

func parse(s string) (a Address, ok bool) {
	m := pattern.FindStringSubmatch(s)
	if m == nil || len(m[1]) > maxUser || len(m[2]) > maxHost {
		return a, false
	}
	a = Address{User: m[1], Host: cmp.Or(m[2], m[3])}
	if m[4] != "" {
		port, err := strconv.ParseUint(m[4], 10, 16)
		if err != nil || port == 0 {
			return a, false
		}
		a.Port = uint16(port)
	}
	return a, true
}

// Name is what the host's VMs are called by: NAME/VM.
func (a Address) Name() string { return a.Host }

// String is the address as a URL.
func (a Address) String() string {
	s := a.Host
	if strings.Contains(s, ":") {
		s = "[" + s + "]"
	}
	if a.User != "" {
		s = a.User + "@" + s
	}
	if a.Port != 0 {
		s += fmt.Sprintf(":%d", a.Port)
	}
	return "ssh://" + s
}

// SSH are the arguments of ssh(1) for a command there. A user's configuration counts but for what would take the connection, its
// output or ports of this host for something else. Nothing is asked.
func (a Address) SSH(command ...string) []string {
	return a.ssh([]string{"-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"}, command)
}

// Terminal are those for a command at a terminal, where ssh and the command may ask.
func (a Address) Terminal(command ...string) []string { return a.ssh([]string{"-t"}, command) }

func (a Address) ssh(args, command []string) []string {
	args = append(args, "-a", "-x", "-S", "none", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none",
		"-o", "PermitLocalCommand=no", "-o", "ConnectTimeout=10")
	if a.User != "" {
		args = append(args, "-l", a.User)
	}
	if a.Port != 0 {
		args = append(args, "-p", strconv.Itoa(int(a.Port)))
	}
	return append(append(args, "--", a.Host), command...)
}

// Source is the address as the user gave it: a libvirt URI, or String.
func (a Address) Source() string {
	if path, ok := strings.CutPrefix(a.Libvirt, "qemu:///"); ok {
		return "qemu+" + a.String() + "/" + path
	}
	return a.String()
}

// Relay is the command of the relay there. All of it is ours: a shell reads it.
func (a Address) Relay() []string {
	command := []string{"rum-host-agent", "relay"}
	if a.Libvirt != "" {
		command = append(command, "--libvirt", a.Libvirt)
	}
	return command
}

// Destination is the address as ssh and scp take it on a command line.
func (a Address) Destination() string {
	switch {
	case a.Port != 0 || strings.Contains(a.Host, ":"):
		return a.String()
	case a.User != "":
		return a.User + "@" + a.Host
	}
	return a.Host
}

// KeyName is what the host is called in known_hosts.
func (a Address) KeyName() string {
	if a.Port != 0 && a.Port != 22 {
		return fmt.Sprintf("'[%s]:%d'", a.Host, a.Port)
	}
	return a.Host
}

// Install is the command that brings this agent there.
func (a Address) Install() string {
	to := a.Destination()
	folder := to + ":"
	if rest, ok := strings.CutPrefix(to, "ssh://"); ok {
		folder = "scp://" + rest + "/"
	}
	return fmt.Sprintf("scp $(command -v rum-host-agent) %s && ssh -t %s sudo install rum-host-agent /usr/local/bin/", folder, to)
}
