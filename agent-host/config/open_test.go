package config_test

import (
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

// A browser is opened once for a rule: which it is, no edit of what stands around it changes.
func TestARuleThatOpensABrowserIsKnownByWhatItSays(t *testing.T) {
	open := func(file, text string) string {
		t.Helper()
		c, err := config.Parse(file, []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return c.Rules[len(c.Rules)-1].Open
	}
	const rule = "[[forward]]\nguest = 3000\nopen = true\n"
	was := open("/shop/rum.toml", rule)
	for _, text := range []string{
		"# a comment\n\n" + rule,
		"[[ports]]\nguest = 80\nhost = 8080\n[[forward]]\nguest = 81\nopen = true\n" + rule,
		"[[forward]]\nopen   =   true # yes\nguest = 3_000",
		"forward = [{guest = 3000, open = true}]",
	} {
		if got := open("/shop/rum.toml", text); got != was || was == "" {
			t.Errorf("%q, was %q\n%s", got, was, text)
		}
	}
	for _, other := range []string{
		open("/blog/rum.toml", rule),
		open("/shop/rum.toml", "[[forward]]\nguest = 3001\nopen = true\n"),
		open("/shop/rum.toml", rule+"vm = \"dev\"\n"),
	} {
		if other == was || other == "" {
			t.Errorf("another rule is %q too", other)
		}
	}
	if got := open("/shop/rum.toml", "[[forward]]\nguest = 3000\n"); got != "" {
		t.Errorf("a rule that opens nothing: %q", got)
	}
}
