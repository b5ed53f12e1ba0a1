package tunnel_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
)

func TestACommandThatEndsSaysWhy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for command, want := range map[string]string{
		"no-such-command-here":                        "the command ended with exit status 127: ",
		"echo first >&2; echo no route >&2; exit 255": "the command ended with exit status 255: no route: ",
		"exit 3": "the command ended with exit status 3: ",
	} {
		e, err := tunnel.ParseEndpoint("exec:" + command)
		if err != nil {
			t.Fatal(err)
		}
		link, err := tunnel.Dial(ctx, e, tunnel.Config{})
		if err == nil {
			link.Close()
			t.Fatal("it is linked to")
		}
		if !strings.Contains(err.Error(), want) || strings.HasPrefix(command, "no-") && !strings.Contains(err.Error(), "not found") {
			t.Errorf("%s: %v", command, err)
		}
	}
}
