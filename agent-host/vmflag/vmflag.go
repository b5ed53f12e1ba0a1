// Package vmflag is how VMs are named on the command line.
package vmflag

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"unicode"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// Parse reads NAME=ENDPOINT[,bridge=IP][,key=FILE]. An endpoint may contain
// commas, so options are looked for from the end.
func Parse(s string) (hostagent.VM, error) {
	vm, err := parse(s)
	if err != nil {
		return vm, fmt.Errorf("--vm %q: %w", s, err)
	}
	return vm, nil
}

func parse(s string) (vm hostagent.VM, err error) {
	name, rest, found := strings.Cut(s, "=")
	if !found {
		return vm, errors.New("want NAME=ENDPOINT[,bridge=IP][,key=FILE]")
	}
	if vm.Name, err = checkName(name); err != nil {
		return vm, err
	}
	seen := map[string]bool{}
	isExec := strings.HasPrefix(rest, endpoint.SchemeExec+":")
	options := anyOption
	if isExec {
		options = ownOption
	}
	for {
		endpoint, option, value, found := cutOption(rest, options)
		if !found {
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
			if value == "" {
				return vm, errors.New("key= names no file")
			}
			key, err := keyfile.Read(value)
			if err != nil {
				return vm, output.Advise(err, "make one with: (umask 077; openssl rand -hex 32 >"+output.Clean(value)+"), or leave ,key= out for the key that rum-host-agent keys list shows")
			}
			vm.Key = key[:]
		default:
			// Part of a path, it would be a VM whose key nobody asks for.
			return vm, fmt.Errorf("unknown option %q: after the endpoint come ,bridge=IP and ,key=FILE", strings.TrimSpace(option))
		}
		rest = endpoint
	}
	if word := bareWord.FindString(rest); word != "" && !isExec {
		return vm, fmt.Errorf("unknown option %q: after the endpoint come ,bridge=IP and ,key=FILE", word[1:])
	}
	vm.Endpoint, err = endpoint.Parse(rest)
	return vm, err
}

// An option is a comma, a word and an equals sign. A shell command has those of its
// own, so that only the words known here are options behind one.
var (
	anyOption = regexp.MustCompile(`,([^,=/]*)=`)
	ownOption = regexp.MustCompile(`,(bridge|key)=`)
	// bareWord is an option of ours that lacks its value, or a comma too many.
	bareWord = regexp.MustCompile(`,(bridge|key)?$`)
)

// cutOption cuts the last option off s. Its value reaches to the end, and has no
// other option in it, and an address behind a command no comma: what has is its middle.
func cutOption(s string, options *regexp.Regexp) (before, option, value string, found bool) {
	all := options.FindAllStringSubmatchIndex(s, -1)
	if len(all) == 0 {
		return s, "", "", false
	}
	last := all[len(all)-1]
	before, option, value = s[:last[0]], s[last[2]:last[3]], s[last[1]:]
	found = !anyOption.MatchString(value) && (options != ownOption || option != "bridge" || !strings.Contains(value, ","))
	return before, option, value, found
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

// CheckDomain reports a name that no libvirt domain can have, so that nothing is made
// for it (virDomainDefParseXML in its src/conf/domain_conf.c).
func CheckDomain(name string) error {
	_, err := checkName(name)
	if err == nil && strings.Contains(name, "/") {
		err = errors.New("the name has a /, which no libvirt domain's may have")
	}
	if err != nil {
		return output.Misuse(fmt.Errorf("VM %q: %w", name, err))
	}
	return nil
}
