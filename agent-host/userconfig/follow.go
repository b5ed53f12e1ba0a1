package userconfig

import (
	"cmp"
	"context"
	"log/slog"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// Follow gives the agent the rules of each new version of the file.
func Follow(ctx context.Context, file *configfile.File, why string, now <-chan func(), agent *hostagent.Agent, log *slog.Logger) {
	network := file.Current().Network
	logConfigError(log, file, file.Err())
	logConfig(log, file, file.Current(), why)
	told := logForgotten(log, file)
	file.Follow(ctx, now, func(c *config.Config, err error) {
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
		log.Info("there is no configuration file; the default rules are in use", "looked_for", cmp.Or(file.Path(), "none"), "why", why)
	}
	for _, e := range c.Warnings {
		log.Warn("configuration warning", "file", file.Path(), "warning", e)
	}
	for _, text := range uselessRules(c.Rules) {
		log.Warn("a rule does nothing", "rule", text)
	}
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
