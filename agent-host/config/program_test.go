package config_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// program is a listener of a process.
func program(process, command, dir, home string) portlist.Listener {
	return portlist.Listener{
		Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), 3000), Process: process,
		Program: portlist.NewProgram(command, dir, home),
	}
}

func TestAProgramIsMatchedByNameCommandLineAndDirectory(t *testing.T) {
	node := program("node[9]", "node /home/ann/src/shop/server.js --port 3000", "/home/ann/src/shop", "/home/ann")
	below := program("node[9]", "node server.js", "/home/ann/src/shop/web", "/home/ann")
	beside := program("node[9]", "node server.js", "/home/ann/src/shop2", "/home/ann")
	bobs := program("node[9]", "node server.js", "/home/bob/src/shop", "/home/bob")
	older := program("node[9]", "", "", "") // of a guest agent that tells names alone
	unknown := program("", "", "", "")
	all := map[string]portlist.Listener{"node": node, "below": below, "beside": beside, "bob's": bobs, "older": older, "unknown": unknown}
	for _, row := range []struct{ rule, want string }{
		{`process = "^node$"`, "below beside bob's node older"},
		{`process = "shop/server"`, "node"},
		{`process = "^node server"`, "below beside bob's"},
		{`process = "^$"`, ""},
		{`process = ""`, "error"},
		{`cwd = "~/src/shop"`, "below bob's node"},
		{`cwd = "~/src/shop/"`, "below bob's node"},
		{`cwd = "/home/ann/src/shop"`, "below node"},
		{`cwd = "/home/ann//src/./shop/"`, "below node"},
		{`cwd = "~"`, "below beside bob's node"},
		{`cwd = "~/../bob"`, "bob's"},
		{`cwd = "/"`, "below beside bob's node"},
		{"cwd = \"~/src/shop\"\nprocess = \"--port 3000\"", "node"},
	} {
		c, err := config.Parse("rum.toml", []byte("[[forward]]\n"+row.rule+"\nignore = true\n"))
		if err != nil {
			if row.want != "error" {
				t.Errorf("%s: %v", row.rule, err)
			}
			continue
		}
		var got []string
		for _, name := range []string{"below", "beside", "bob's", "node", "older", "unknown"} {
			if d := c.Rules.Decide("dev", all[name]); d.Rule == "rum.toml:1" {
				got = append(got, name)
				if strings.Contains(d.Reason, "node") || strings.Contains(d.Reason, "/home") {
					t.Errorf("%s: %q tells of the program", row.rule, d.Reason)
				}
			}
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s: %v, want %s", row.rule, got, row.want)
		}
		if !c.Rules.AsksProcess("dev", unknown) {
			t.Errorf("%s: decided without knowing the program", row.rule)
		}
	}
}

func TestALabelHasABound(t *testing.T) {
	rule := "[[forward]]\nguest = 80\nlabel = "
	c := parse(t, rule+`"the shop"`)
	if d := c.Rules.Decide("dev", portlist.Listener{Proto: "tcp", Addr: netip.MustParseAddrPort("127.0.0.1:80")}); d.Label != "the shop" {
		t.Errorf("%+v", d)
	}
	_, err := config.Parse("rum.toml", []byte(rule+`"`+strings.Repeat("x", 65)+`"`))
	if err == nil || err.Error() != "rum.toml:3:1: forward.label: 65 bytes are more than 64, which is the most" {
		t.Errorf("%v", err)
	}
}

func TestADirectoryThatCannotBeOneIsRefused(t *testing.T) {
	for value, want := range map[string]string{
		`"src/shop"`:                          "is neither an absolute path nor begins with",
		`"~ann/src"`:                          "is the home of a user by name",
		`"/a\u0000b"`:                         "cannot be a directory",
		`7`:                                   "want a string, not an integer",
		`""`:                                  "is empty",
		`"/` + strings.Repeat("x", 600) + `"`: "cannot be a directory",
	} {
		_, err := config.Parse("rum.toml", []byte("[[forward]]\nignore = true\ncwd = "+value+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "rum.toml:3:1: forward.cwd: ") {
			t.Errorf("%s: %v", value, err)
		}
	}
}
