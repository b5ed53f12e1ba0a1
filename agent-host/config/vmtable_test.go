package config_test

import (
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

func TestTheFirstTableOfAVMSaysWhatItOpens(t *testing.T) {
	c, err := config.Parse("rum.toml", []byte("[[vm]]\nname = \"db-*\"\n\n[[vm]]\nname = \"dev\"\nopen_urls = \"yes\"\n\n[[vm]]\nopen_urls = \"ask\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	for vm, want := range map[string]string{"db-1": config.OpenNo, "dev": config.OpenYes, "shop": config.OpenAsk} {
		if got := c.OpenURLs(vm); got != want {
			t.Errorf("%s: %s, want %s", vm, got, want)
		}
	}
	if config.Default().OpenURLs("dev") != config.OpenNo || config.Closed("rum.toml").OpenURLs("dev") != config.OpenNo {
		t.Error("without a word pages are opened")
	}
	for _, text := range []string{"[[vm]]\nopen_urls = \"always\"\n", "[[vm]]\nopen_urls = true\n", "[[vm]]\nname = \"[\"\n", "[[vm]]\nopen_url = \"ask\"\n", "[vm]\nopen_urls = \"ask\"\n"} {
		if _, err := config.Parse("rum.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), "rum.toml:") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAProjectThatOpensPagesWithoutAskingIsWarnedOf(t *testing.T) {
	const project = "[image]\nbase = \"debian\"\n[resources]\ncpus = 1\nmemory_mb = 512\n[[vm]]\nopen_urls = "
	for value, want := range map[string]bool{`"yes"`: true, `"ask"`: false} {
		c, err := config.ParseProject("dev.rum.toml", []byte(project+value+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		warned := len(c.Warnings) == 1 && strings.Contains(c.Warnings[0].Error(), "without asking")
		if warned != want {
			t.Errorf("%s: %v", value, c.Warnings)
		}
	}
}
