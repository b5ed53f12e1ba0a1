package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// configFlag is the flag --config of the subcommands that read rum.toml.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "config", "", "configuration `FILE`, such as rum.toml; "+orNowhere(configfile.DefaultPath())+" when not given and there")
}

func orNowhere(path string) string {
	if path == "" {
		return "none"
	}
	return path
}

// openConfig reads the file that was named, or the user's own if there is one. Only
// that one is kept in the directory remember, because one that is named must be there.
func openConfig(path, remember string) (*configfile.File, error) {
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

// rememberedConfigs is where later runs find what was in use, beside the keys; empty for
// a user without such a place.
func rememberedConfigs(log *slog.Logger) string {
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

// whichConfig says why it is this file: users have different ones, root among them.
func whichConfig(flag string) string {
	if flag != "" {
		return "named with --config"
	}
	return "of the user " + cmp.Or(os.Getenv("USER"), fmt.Sprint(os.Geteuid())) + ", without --config"
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

// logConfig says which rules are in use, and why those.
func logConfig(log *slog.Logger, file *configfile.File, c *config.Config, why string) {
	switch err := file.Err(); {
	case err != nil && !file.Found():
		log.Warn("there is no good version of the configuration yet; everything stays in the guest", "file", file.Path(), "why", why)
	case err != nil:
		log.Warn("the last good version of the configuration is in use", "file", file.Path(), "why", why, "rules", len(c.Rules))
	case file.Found():
		log.Info("configuration is in use", "file", file.Path(), "why", why, "rules", len(c.Rules))
	default:
		log.Info("there is no configuration file; the default rules are in use", "looked_for", orNowhere(file.Path()), "why", why)
	}
	for _, e := range c.Warnings {
		log.Warn("configuration warning", "file", file.Path(), "warning", e)
	}
	for _, text := range uselessRules(c.Rules) {
		log.Warn("a rule does nothing", "rule", text)
	}
}

// followConfig gives the agent the rules of each new version of the file.
func followConfig(ctx context.Context, file *configfile.File, why string, hup <-chan os.Signal, agent *hostagent.Agent, log *slog.Logger) {
	network := file.Current().Network
	logConfigError(log, file, file.Err())
	logConfig(log, file, file.Current(), why)
	told := logForgotten(log, file)
	file.Follow(ctx, hup, func(c *config.Config, err error) {
		if err != nil {
			logConfigError(log, file, err)
			return
		}
		agent.SetRules(c.Rules)
		logConfig(log, file, c, why)
		told = told || logForgotten(log, file)
		if c.Network != network {
			log.Info("[network] counts from the next start on")
		}
	})
}

// logConfigError says why the file is not what is in use, if it is not.
func logConfigError(log *slog.Logger, file *configfile.File, err error) {
	if err == nil {
		return
	}
	for _, e := range output.Mistakes(err) {
		log.Warn("configuration is not used", "file", file.Path(), "error", e)
	}
}

// logForgotten says, and returns, whether a later run would not know that there was a file.
func logForgotten(log *slog.Logger, file *configfile.File) bool {
	err := file.Forgotten()
	if err != nil {
		log.Warn("configuration is not remembered for later runs", "file", file.Path(), "error", err)
	}
	return err != nil
}

// configStatus tells which file counts, and what is wrong with it.
func configStatus(file *configfile.File, why string) status.Config {
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
