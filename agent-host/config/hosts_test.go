package config_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func TestHostsAreNamedInTheFileOfTheUser(t *testing.T) {
	c, err := config.Parse("rum.toml", []byte("[[hosts]]\nurl = \"ssh://me@server\"\n\n[[hosts]]\nurl = \"ssh://other:2222\"\n"))
	if err != nil || len(c.Hosts) != 2 || c.Hosts[0].String() != "ssh://me@server" || c.Hosts[1].Port != 2222 {
		t.Errorf("got %v, %v", c.Hosts, err)
	}
	for text, want := range map[string]string{
		"[[hosts]]\nurl = \"ssh://-oProxyCommand=id\"\n": "rum.toml:2:1: hosts.url: ",
		"[[hosts]]\n": "url is missing",
		"[[hosts]]\nurl = \"ssh://a\"\nkey = 1\n":                        "unknown key",
		"[[hosts]]\nurl = \"ssh://a\"\n[[hosts]]\nurl = \"ssh://b@a\"\n": "a host a is there already",
		"[[hosts]]\nurl = 7\n":                                           "want a string",
	} {
		if _, err := config.Parse("rum.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	const project = "[image]\nbase = \"debian\"\n[resources]\ncpus = 1\nmemory_mb = 512\n"
	if _, err := config.ParseProject("shop.rum.toml", []byte(project+"[[hosts]]\nurl = \"ssh://a\"\n")); err == nil || !strings.Contains(err.Error(), "a project names no hosts") {
		t.Errorf("got %v", err)
	}
}

func TestARuleGivesAVMOfAnotherHostMoreThanPortsOnlyWhereItNamesTheHost(t *testing.T) {
	for _, row := range []struct {
		pattern      string
		local, there bool
	}{
		{"", true, false},
		{"*", true, false},
		{"*/*", false, false},
		{"*/dev", false, false},
		{"ser*/dev", false, false},
		{"server/dev", false, true},
		{"server/*", false, true},
	} {
		vm := ""
		if row.pattern != "" {
			vm = "vm = \"" + row.pattern + "\"\n"
		}
		c, err := config.Parse("rum.toml", []byte("[[forward]]\n"+vm+"reverse = true\nguest = 3000\nhost = 3000\n"+
			"[[forward]]\n"+vm+"guest_socket = \"/run/docker.sock\"\nhost_socket = \"/tmp/docker.sock\"\n"+
			"[[forward]]\n"+vm+"guest = 5432\nhost_socket = \"/tmp/pg.sock\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{"dev": row.local, "server/dev": row.there} {
			if got := len(c.Rules.Reverses(name)) > 0; got != want {
				t.Errorf("vm = %q: %s has the reverse rule: %v", row.pattern, name, got)
			}
			if got := len(c.Rules.Sockets(name)) > 0; got != want {
				t.Errorf("vm = %q: %s has the unix socket: %v", row.pattern, name, got)
			}
			if got := c.Rules.Decide(name, portlist.Listener{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:5432")}).HostSocket != ""; got != want {
				t.Errorf("vm = %q: %s has its port at a socket: %v", row.pattern, name, got)
			}
		}
	}
	c, err := config.Parse("rum.toml", []byte("[[vm]]\nopen_urls = \"yes\"\n"))
	if err != nil || c.OpenURLs("dev") != config.OpenYes || c.OpenURLs("server/dev") != config.OpenNo {
		t.Errorf("dev may open pages: %s, server/dev: %s, %v", c.OpenURLs("dev"), c.OpenURLs("server/dev"), err)
	}
}
