// Package packagers knows the package managers of guests: whose a file is, and what upgrades it.
package packagers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// ownerTimeout bounds how long a package manager may take to say whose a file is.
const ownerTimeout = 10 * time.Second

// agentPackage is what the guest agent's package is called.
const agentPackage = "rum-guest-agent"

// packagers are the command that names the package of a file, what it says in front of the name and behind it, how a
// package of a name is upgraded, and files that are there where the guest agent may be one. Debian's and rpm's packages are
// built with the agents and in no repository: they are upgraded by the file of the newer one.
var packagers = []struct {
	command       []string
	before, after string
	upgrade       string // with %s for the name
	there         []string
}{
	{[]string{"dpkg", "-S"}, "", ": ", "apt-get install ./%s_*.deb", []string{"var/lib/dpkg/info/" + agentPackage + "*.list"}},
	{[]string{"apk", "info", "--who-owns"}, " is owned by ", "\n", "apk upgrade %s", []string{"lib/apk/db/installed"}},
	{[]string{"pacman", "-Qqo"}, "", "\n", "pacman -S %s", []string{"var/lib/pacman/local/" + agentPackage + "-*"}},
	{[]string{"rpm", "-qf", "--queryformat", "%{NAME}"}, "", "\n", "dnf install ./%s-*.rpm", []string{"usr/lib/sysimage/rpm/rpmdb*", "var/lib/rpm/rpmdb*", "var/lib/rpm/Packages"}},
}

// apkVersion is what apk says behind a name.
var apkVersion = regexp.MustCompile(`-[0-9][^-]*-r[0-9]+$`)

// CheckUnowned reports a file that belongs to a package, and what upgrades that.
func CheckUnowned(ctx context.Context, file string) error {
	for _, p := range packagers {
		if _, err := exec.LookPath(p.command[0]); err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, ownerTimeout)
		out, err := exec.CommandContext(ctx, p.command[0], append(p.command[1:len(p.command):len(p.command)], file)...).Output()
		late := ctx.Err() != nil
		cancel()
		if late {
			return fmt.Errorf("%s does not say whether %s belongs to a package", p.command[0], file)
		}
		// All of them exit with 1 where a file is nobody's, and with something else where they could not find out.
		if exit, failed := errors.AsType[*exec.ExitError](err); failed && exit.ExitCode() == 1 {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s does not say whether %s belongs to a package: %w", p.command[0], file, err)
		}
		name := string(out)
		if _, rest, found := strings.Cut(name, p.before); found {
			name = rest
		}
		name, _, _ = strings.Cut(name, p.after)
		name = apkVersion.ReplaceAllString(strings.TrimSpace(name), "")
		return fmt.Errorf("%s belongs to the package %s; upgrade that in the VM, with: sudo %s", file, name, fmt.Sprintf(p.upgrade, name))
	}
	return nil
}

// OfAgent is the package manager that a guest agent at a path is from as far as files show it, below a root; "" for none.
// It starts nothing, so that it can be asked before there is a link, and [CheckUnowned] has the last word.
func OfAgent(root, exe string) string {
	if filepath.Dir(exe) != "/usr/bin" {
		return ""
	}
	for _, p := range packagers {
		for _, pattern := range p.there {
			if found, _ := filepath.Glob(filepath.Join(root, pattern)); len(found) > 0 {
				return p.command[0]
			}
		}
	}
	return ""
}

// Upgrading is the command that upgrades the guest agent where it is from a package manager of this name; "" for a name
// that is none.
func Upgrading(name string) string {
	for _, p := range packagers {
		if p.command[0] == name {
			return "sudo " + fmt.Sprintf(p.upgrade, agentPackage)
		}
	}
	return ""
}
