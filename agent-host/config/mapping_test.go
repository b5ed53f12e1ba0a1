package config_test

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func mapped(t *testing.T, ports string, proto config.Proto, hold time.Duration) config.Rule {
	t.Helper()
	m, err := config.ParseMapping(ports, proto)
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Rule("a command", hold)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAMappingDecidesAsTheRuleOfAFileDoes(t *testing.T) {
	c, err := config.Parse("rum.toml", []byte("[[forward]]\nguest = \"80-89\"\nhost = \"8080-8089\"\nhold = \"5s\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	ofCommand := config.Rules{mapped(t, "8080-8089:80-89", config.TCP, 5*time.Second)}
	for _, proto := range []string{"tcp", "udp"} {
		for _, addr := range []string{"0.0.0.0:80", "10.0.0.5:89", "[::]:90"} {
			l := portlist.Listener{Proto: proto, Addr: netip.MustParseAddrPort(addr)}
			want, got := c.Rules.Decide("dev", l), ofCommand.Decide("dev", l)
			if want.Rule == "rum.toml:1" {
				want.Rule = "a command"
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s: %+v\nwant %+v", proto, addr, got, want)
			}
		}
	}
}

func TestWhatACommandGivesAPortIsBesideWhatAFileGivesTheSamePort(t *testing.T) {
	for file, places := range map[string]int{
		"[[forward]]\nguest = 80\nhost = 9000\n":                          2,
		"[[ports]]\nguest = 80\nhost = 9000\nvm = \"dev\"\n":              2,
		"[[forward]]\nguest = \"80-81\"\nhost = \"9000-9001\"\n":          1, // which is more than that
		"[[forward]]\nguest = 80\nignore = true\n":                        1,
		"[[ports]]\nguest = 80\nhost = 9000\nvm = \"dev\"\nprocess=\"x\"": 1,
	} {
		c, err := config.Parse("rum.toml", []byte(file))
		if err != nil {
			t.Fatal(err)
		}
		rules := append(config.Rules{mapped(t, "8080:80", config.TCP, 0)}, c.Rules...)
		d := rules.Decide("dev", portlist.Listener{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:80")})
		if d.Host[0].Port() != 8080 || 1+len(d.Also) != places {
			t.Errorf("%s: %+v", file, d)
		}
	}
}
