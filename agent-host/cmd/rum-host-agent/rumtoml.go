package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/control"
)

// configFlag is the flag --config of the subcommands that read rum.toml.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "config", "", "configuration `FILE`, such as rum.toml; "+orNowhere(config.DefaultPath())+" when not given and there")
}

func orNowhere(path string) string {
	if path == "" {
		return "none"
	}
	return path
}

// openConfig reads the file that was named, or the user's own if there is one.
func openConfig(path string) (*config.File, error) {
	optional := path == ""
	if optional {
		path = config.DefaultPath()
	}
	file, err := config.OpenFile(path, optional)
	if err != nil {
		return nil, badConfig(err)
	}
	return file, nil
}

// maxMistakes bounds how many mistakes of a file are shown at once.
const maxMistakes = 20

// badConfig shows the first mistake as the error, and the others below it.
func badConfig(err error) error {
	all := mistakes(err)
	hint := "correct it, or have one written to begin with: rum-host-agent init"
	if _, ok := errors.AsType[*config.Error](err); !ok {
		hint = "name the file with --config, or have one written: rum-host-agent init"
	}
	var lines []string
	for _, e := range all[1:] {
		lines = append(lines, cleanError(e.Error()))
	}
	return advise(all[0], strings.Join(append(lines, hint), "\n"))
}

// mistakes takes an error of the package config apart.
func mistakes(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	all := joined.Unwrap()
	if left := len(all) - maxMistakes; left > 0 {
		all = append(all[:maxMistakes:maxMistakes], fmt.Errorf("and %d more", left))
	}
	return all
}

// followConfig gives the agent the rules of each new version of the file.
func followConfig(ctx context.Context, file *config.File, hup <-chan os.Signal, agent *hostagent.Agent, log *slog.Logger) {
	log = log.With("file", file.Path())
	network := file.Current().Network
	file.Follow(ctx, hup, func(c *config.Config, err error) {
		if err != nil {
			for _, e := range mistakes(err) {
				log.Warn("configuration is not used", "error", e)
			}
			return
		}
		agent.SetRules(c.Rules)
		log.Info("configuration is in use", "rules", len(c.Rules))
		if c.Network != network {
			log.Info("[network] counts from the next start on")
		}
	})
}

// configStatus tells which file counts, and what is wrong with it.
func configStatus(file *config.File) control.Config {
	st := control.Config{File: file.Path()}
	if err := file.Err(); err != nil {
		all := mistakes(err)
		st.Error = all[0].Error()
		if len(all) > 1 {
			st.Error += fmt.Sprintf(" (the first of %d mistakes)", len(all))
		}
		st.Error += "; the last good version is in use"
	}
	return st
}
