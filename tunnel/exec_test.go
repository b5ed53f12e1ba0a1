package tunnel_test

import (
	"context"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

func TestACommandThatEndsSaysWhy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for command, want := range map[string]string{
		"no-such-command-here":                        "exec: the command ended with exit status 127: /bin/sh: 1: no-such-command-here: not found",
		"echo first >&2; echo no route >&2; exit 255": "exec: the command ended with exit status 255: no route",
		"exit 3": "exec: the command ended with exit status 3",
		"echo Welcome to dev": `exec: the command ended with exit status 0; it printed "Welcome to dev", ` +
			"which no guest agent does: its command is rum-guest-agent --stdio",
	} {
		e, err := endpoint.Parse("exec:" + command)
		if err != nil {
			t.Fatal(err)
		}
		link, err := tunnel.Dial(ctx, e, tunnel.Config{})
		if err == nil {
			link.Close()
			t.Fatal("it is linked to")
		}
		if err.Error() != want {
			t.Errorf("%s: %v", command, err)
		}
	}
}
