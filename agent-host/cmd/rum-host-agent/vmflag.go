package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// parseVM reads NAME=ENDPOINT[,bridge=IP][,key=FILE]. An endpoint may contain
// commas and equals signs, so options are only looked for at the end.
func parseVM(s string) (hostagent.VM, error) {
	vm, err := parseVMParts(s)
	if err != nil {
		return vm, fmt.Errorf("--vm %q: %w", s, err)
	}
	return vm, nil
}

func parseVMParts(s string) (vm hostagent.VM, err error) {
	name, rest, found := strings.Cut(s, "=")
	if !found {
		return vm, errors.New("want NAME=ENDPOINT[,bridge=IP][,key=FILE]")
	}
	if vm.Name, err = checkName(name); err != nil {
		return vm, err
	}
	seen := map[string]bool{}
	for {
		endpoint, option, value := cutOption(rest)
		if option == "" {
			break
		}
		if seen[option] {
			return vm, fmt.Errorf("%s is given twice", option)
		}
		seen[option] = true
		switch option {
		case "bridge":
			if vm.Bridge, err = netip.ParseAddr(value); err != nil {
				return vm, fmt.Errorf("bridge %q is not an IP address", value)
			}
			if vm.Bridge.IsUnspecified() || vm.Bridge.IsMulticast() {
				return vm, fmt.Errorf("bridge %s is not the address of a VM", value)
			}
		case "key":
			key, err := keyfile.Read(value)
			if err != nil {
				return vm, err
			}
			vm.Key = key[:]
		}
		rest = endpoint
	}
	vm.Endpoint, err = tunnel.ParseEndpoint(rest)
	return vm, err
}

// cutOption cuts the last ,bridge=VALUE or ,key=VALUE off s.
func cutOption(s string) (before, option, value string) {
	last := -1
	for _, name := range []string{"bridge", "key"} {
		if i := strings.LastIndex(s, ","+name+"="); i > last {
			last, option = i, name
			before, value = s[:i], s[i+len(name)+2:]
		}
	}
	return before, option, value
}

// maxName is more than libvirt's names have in practice.
const maxName = 128

func checkName(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("the name is empty")
	case len(name) > maxName:
		return "", fmt.Errorf("the name is longer than %d bytes", maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", errors.New("the name has characters that cannot be printed")
	}
	return name, nil
}
