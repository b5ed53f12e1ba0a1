package sources

import (
	"context"
	"log/slog"
	"path/filepath"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/setup"
)

// Setups is where this user's setups are remembered, beside the keys.
func Setups() (setup.Store, error) {
	dir, err := keys.DefaultDir()
	return setup.Store{Path: filepath.Join(filepath.Dir(dir), "setups.json")}, err
}

// keeper returns what puts back what setup added to the domains at a libvirt daemon; nil for a user without a place where
// that could be remembered.
func keeper(uri string, log *slog.Logger) *hostagent.Keeper {
	store, err := Setups()
	if err != nil {
		log.Warn("what setup added is not put back when a domain is defined anew", "error", err)
		return nil
	}
	return &hostagent.Keeper{
		Daemon: libvirt.DaemonOf(uri), Setups: store.List, Log: log,
		PutBack: func(ctx context.Context, s setup.Record) ([]string, error) { return store.PutBack(ctx, uri, s) },
	}
}
