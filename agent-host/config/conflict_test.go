package config_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

func TestARuleThatDoesNothingIsNamed(t *testing.T) {
	local := func(ip netip.Addr) bool { return ip.IsLoopback() || ip.IsUnspecified() }
	for text, want := range map[string]string{
		"[[ports]]\nignore = true\n[[ports]]\nguest = 8080\n":                                                                                           "rum.toml:3 never matches: rum.toml:1",
		"[[ports]]\nproto = \"any\"\nignore = true\n[[ports]]\nguest = 8080\n":                                                                          "rum.toml:4 never matches: rum.toml:1 decides about all that it is for; put it above",
		"[[ports]]\nguest = 80\nhost = 8080\n[[ports]]\nguest = 80\nhost = 8081\n":                                                                      "",
		"[[ports]]\nguest = 80\nhost = 8080\n[[forward]]\nguest = 80\nhost = 8081\n":                                                                    "rum.toml:4 never matches: rum.toml:1 gives the guest port its place on the host, of which a port has one; remove one of the two, or have both in one table",
		"[[ports]]\nguest = \"80-89\"\n[[ports]]\nguest = 80\nhost = 8081\n":                                                                            "rum.toml:3 never matches: rum.toml:1 decides about all that it is for; put it above",
		"[[ports]]\nguest = 8080\nhost = 80\n[[ports]]\nguest = 8080\nignore = true\n":                                                                  "rum.toml:4 never matches: rum.toml:1 decides about all that it is for; put it above",
		"[[ports]]\nguest = 8080\n[[ports]]\nproto = \"any\"\nignore = true\n":                                                                          "",
		"[[ports]]\nignore = true\nvm = \"dev\"\n[[ports]]\nguest = 8080\n":                                                                             "",
		"[[ports]]\nignore = true\nprocess = \"x\"\n[[ports]]\nguest = 8080\n":                                                                          "",
		"[[ports]]\nguest = \"1-99\"\nignore = true\n[[ports]]\nguest = \"50-120\"\n":                                                                   "",
		"[[ports]]\nguest = \"1-99\"\nignore = true\n[[ports]]\nguest = \"99-120\"\nignore = true\n[[ports]]\nguest = \"50-120\"\nhost = \"150-220\"\n": "rum.toml:7 never matches: rum.toml:4",
		"[[ports]]\nhost_ip = \"*\"\n[[ports]]\nguest = 80\nhost = 8080\n":                                                                              "", // it names a port that stays in by default
		"[[ports]]\nguest = 80\nhost_ip = \"192.0.2.7\"\n":                                                                                              "rum.toml:1: host_ip 192.0.2.7 is no address of this host now",
		"[[ports]]\nguest = 80\nhold = \"5s\"\n":                                                                                                        "",
		"[[ports]]\nguest = 80\nhost_ip = \"127.9.8.7\"\n":                                                                                              "",
	} {
		c, err := config.Parse("rum.toml", []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got := strings.Join(c.Rules.Useless(local), "\n")
		if want == "" && got != "" || !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s\ngot %q, want %q", text, got, want)
		}
	}
}
