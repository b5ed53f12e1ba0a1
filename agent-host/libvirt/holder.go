package libvirt

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// NameHolder adds the VM's name to that of a process, such as "passt[812]", which forwards host ports to a domain: QEMU
// with hostfwd, or passt. Any other name is returned as it is.
func NameHolder(process string) string { return nameHolderIn("/proc", process) }

var (
	processName = regexp.MustCompile(`^(qemu-.*|passt.*)\[([0-9]+)\]$`)
	// libvirt runs passt with sockets and files named after domain number, domain and device.
	passtFile = regexp.MustCompile(`/passt/[0-9]+-(.+)-net[0-9]+\.`)
)

// maxDomainName is in bytes. Any program can call itself QEMU, and what it says is shown.
const maxDomainName = 128

func unprintable(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }

func nameHolderIn(root, process string) string {
	m := processName.FindStringSubmatch(process)
	if m == nil {
		return process
	}
	cmdline, err := os.ReadFile(filepath.Join(root, m[2], "cmdline"))
	if err != nil {
		return process
	}
	args := strings.Split(string(bytes.TrimRight(cmdline, "\x00")), "\x00")
	by := "hostfwd"
	if strings.HasPrefix(m[1], "passt") {
		by = "passt"
	}
	if name := domainOf(args); name != "" && len(name) <= maxDomainName && !strings.ContainsFunc(name, unprintable) {
		return fmt.Sprintf("%s, the %s of VM %s", process, by, name)
	}
	return process
}

// domainOf finds the domain's name in the arguments that libvirt gives QEMU and passt.
func domainOf(args []string) string {
	for i, arg := range args {
		if arg == "-name" && i+1 < len(args) {
			name, _, _ := strings.Cut(args[i+1], ",")
			return strings.TrimPrefix(name, "guest=")
		}
		if m := passtFile.FindStringSubmatch(arg); m != nil {
			return m[1]
		}
	}
	return ""
}
