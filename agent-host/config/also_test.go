package config_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// places are where a listener on a port is on the host, by rule.
func places(c *config.Config, port uint16) (all []string) {
	d := c.Rules.Decide("vm", portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port)})
	for _, d := range append([]config.Decision{d}, d.Also...) {
		all = append(all, fmt.Sprint(d.Rule, d.Host))
	}
	return all
}

func TestEachOfRumsPortsIsAPlaceOfItsOwn(t *testing.T) {
	const two = "[[ports]]\nhost = 8080\nguest = 80\n[[ports]]\nhost = 8090\nguest = 80\nbind = \"0.0.0.0\"\n"
	const forwards = "[[forward]]\nguest = 80\nhost = 8080\n[[forward]]\nguest = 80\nhost = 8090\n"
	const third = "[[ports]]\nhost = 8100\nguest = 80\nstatic = true\n"
	for _, test := range []struct {
		text    string
		want    []string
		useless int
	}{
		{minimal + two + third, []string{"rum.toml:6[127.0.0.1:8080]", "rum.toml:9[0.0.0.0:8090]", "rum.toml:13[127.0.0.1:8100]"}, 0},
		// The first rule that matches decides, and one that is no place beside others ends them.
		{minimal + two + "[[forward]]\nguest = 80\nignore = true\n" + third, []string{"rum.toml:6[127.0.0.1:8080]", "rum.toml:9[0.0.0.0:8090]"}, 2},
		{minimal + "[[forward]]\nguest = 80\nhost = 8000\nhost_ip = \"127.0.0.1\"\n" + two, []string{"rum.toml:6[127.0.0.1:8000]"}, 2},
		// What is for another program is a place of that alone.
		{minimal + two + "[[ports]]\nhost = 8100\nguest = 80\nprocess = \"nginx\"\n", []string{"rum.toml:6[127.0.0.1:8080]", "rum.toml:9[0.0.0.0:8090]"}, 0},
		// In a file that is not rum's those are places beside others that ask for the same, in one table.
		{two, []string{"rum.toml:1[127.0.0.1:8080 [::1]:8080]", "rum.toml:4[0.0.0.0:8090]"}, 0},
		{forwards, []string{"rum.toml:1[127.0.0.1:8080 [::1]:8080]", "rum.toml:4[127.0.0.1:8090 [::1]:8090]"}, 0},
		{minimal + forwards, []string{"rum.toml:6[127.0.0.1:8080 [::1]:8080]", "rum.toml:9[127.0.0.1:8090 [::1]:8090]"}, 0},
		{"[[ports]]\nguest = 80\nhost = 8000\n" + forwards, []string{"rum.toml:1[127.0.0.1:8000 [::1]:8000]"}, 2},
		// An exception for some VMs or programs is none.
		{"[[ports]]\nguest = 80\nhost = 8000\nvm = \"v*\"\n" + two, []string{"rum.toml:1[127.0.0.1:8000 [::1]:8000]"}, 0},
		{"[[ports]]\nguest = 80\nhost = 8000\nguest_ip = \"wildcard\"\n" + two, []string{"rum.toml:1[127.0.0.1:8000 [::1]:8000]"}, 0},
		{two + "[[ports]]\nguest = \"80-81\"\nhost = \"8100-8101\"\n", []string{"rum.toml:1[127.0.0.1:8080 [::1]:8080]", "rum.toml:4[0.0.0.0:8090]"}, 0},
	} {
		c, err := config.Parse("rum.toml", []byte(test.text))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := places(c, 80); !slices.Equal(got, test.want) {
			t.Errorf("%s\n%q, want %q", test.text, got, test.want)
		}
		if got := c.Rules.Useless(func(netip.Addr) bool { return true }); len(got) != test.useless {
			t.Errorf("%s\nsaid to do nothing: %q", test.text, got)
		}
	}
	c, err := config.Parse("rum.toml", []byte(minimal+two+third))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Rules.Static("vm"); len(got) != 1 || got[0].Addr.Port() != 80 {
		t.Errorf("kept open without a listener: %v", got)
	}
}
