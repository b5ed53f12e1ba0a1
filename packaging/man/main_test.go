package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheNameOfAManualPageIsAWholeSentence has help whose lines end within sentences.
func TestTheNameOfAManualPageIsAWholeSentence(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "rum-some-agent")
	const script = `#!/bin/sh
case $1 in
--help) printf '%s\n' 'rum-some-agent makes ports of' 'VMs yours. And more' 'of that.' '' 'Usage:' '  rum-some-agent COMMAND' '' 'Available Commands:' '  logs        Show the log of a guest agent' ;;
*) printf '%s\n' 'Show the last lines of the log, of' '256 KiB together.' '' 'Usage:' '  rum-some-agent logs' ;;
esac
`
	if err := os.WriteFile(agent, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"rum-some-agent":      `rum\-some\-agent \- makes ports of VMs yours`,
		"rum-some-agent-logs": `rum\-some\-agent\-logs \- Show the log of a guest agent`,
	}
	err := commands(agent, nil, "", func(name, short string, h help) error {
		if page := string(h.page(name, short)); !strings.Contains(page, "\n.SH NAME\n"+want[name]+"\n.SH") {
			t.Errorf("%s: %s", name, page)
		}
		delete(want, name)
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v, without %v", err, want)
	}
}
