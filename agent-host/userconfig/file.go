package userconfig

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Open reads the file that was named, or the user's own if there is one. Only
// that one is kept in the directory remember, because one that is named must be there.
func Open(path, remember string) (*configfile.File, error) {
	own, optional := configfile.DefaultPath(), path == ""
	if optional {
		path = own
	}
	if abs, err := filepath.Abs(path); err != nil || abs != own {
		remember = ""
	}
	file, err := configfile.Open(path, optional, remember)
	if err != nil {
		return nil, badConfig(err, optional)
	}
	return file, nil
}

// Remembered is where later runs find what was in use, beside the keys; empty for
// a user without such a place.
func Remembered(log *slog.Logger) string {
	dir, err := keys.DefaultDir()
	if err != nil {
		log.Warn("configuration is not remembered for later runs", "error", err)
		return ""
	}
	return filepath.Join(filepath.Dir(dir), "config")
}

// badConfig shows the first mistake as the error, and the others below it. unnamed is
// that the file was not named with --config.
func badConfig(err error, unnamed bool) error {
	all := output.Mistakes(err)
	hint := "correct it, or have one written to begin with: rum-host-agent init"
	if _, ok := errors.AsType[*config.Error](err); !ok {
		hint = "check the name and who may read it, or have a file written: rum-host-agent init --config FILE"
		if unnamed {
			hint = "name the file with --config, or have one written: rum-host-agent init"
		}
	}
	var lines []string
	for _, e := range all[1:] {
		lines = append(lines, output.CleanError(e.Error()))
	}
	return output.Advise(all[0], strings.Join(append(lines, hint), "\n"))
}

// Which says why it is this file: users have different ones, root among them.
func Which(flag string) string {
	if flag != "" {
		return "named with --config"
	}
	return "of the user " + cmp.Or(os.Getenv("USER"), fmt.Sprint(os.Geteuid())) + ", without --config"
}

// Status tells which file counts, and what is wrong with it.
func Status(file *configfile.File, why string) status.Config {
	st := status.Config{File: file.Path(), Found: file.Found(), Why: why, Warnings: warnings(file.Current())}
	if err := file.Err(); err != nil {
		for i, text := range st.Warnings {
			st.Warnings[i] = "of the last good version: " + text // whose lines may be others
		}
		all := output.Mistakes(err)
		st.Error = all[0].Error()
		if len(all) > 1 {
			st.Error += fmt.Sprintf(" (the first of %d mistakes)", len(all))
		}
		if st.Found {
			st.Error += "; the last good version is in use"
		} else {
			st.Error += "; until there is a good version, everything stays in the guest"
		}
	}
	return st
}

// warnings says what rum will refuse of a file, and what rules of it do nothing.
func warnings(c *config.Config) []string {
	var out []string
	for _, e := range c.Warnings {
		out = append(out, e.Error())
	}
	return append(out, uselessRules(c.Rules)...)
}

// uselessRules says which rules do nothing on this host as it is now.
func uselessRules(rules config.Rules) []string {
	own := make(map[netip.Addr]bool)
	addrs, err := net.InterfaceAddrs()
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own[prefix.Addr().Unmap()] = true
		}
	}
	return rules.Useless(func(ip netip.Addr) bool {
		return err != nil || ip.IsLoopback() || ip.IsUnspecified() || own[ip.WithZone("").Unmap()]
	})
}
