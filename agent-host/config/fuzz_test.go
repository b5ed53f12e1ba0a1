package config_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// FuzzParse holds that any text is either refused with a place in it, or gives
// rules that keep what they promise for any listener.
func FuzzParse(f *testing.F) {
	reference, err := os.ReadFile(filepath.Join("..", "..", "docs", "rum.toml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reference, uint16(80))
	for _, seed := range []string{
		"", "\xef\xbb\xbf[[ports]]\nguest=1", "\xff\xfe", "ports = [{guest = 1}, {guest = '2-3', host = '4-5'}]",
		"[[ports]]\n\"gue\\u0073t\" = 80\n'host' = 81", "a = \"\"\"\"x\"\"\"\"\"\n[network]", "[[ports.x]]\n[[ports.x.y]]",
		"ports = [[[[{a.b.c = [1,{}]}]]]]", "[\"a.b\"]\nx.\"\\\"\" = '''a'''", "[[ports]]\nguest='1-65535'\nhost='1-65535'\nignore=false",
		"[[ports]]\nguest=65535\nstatic=true\nproto='any'\n[[ports]]\nvm='\\\\'", "[ports]\n[[ports]]", "x = 1979-05-27T07:32:00Z",
	} {
		f.Add([]byte(seed), uint16(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, port uint16) {
		c, err := config.Parse("f", data)
		if err != nil {
			e, ok := errors.AsType[*config.Error](err)
			if !ok {
				t.Fatalf("not an Error: %v", err)
			}
			if lines := 1 + strings.Count(string(data), "\n"); e.Line < 1 || e.Line > lines || e.Column < 1 || e.Column > len(data)+1 {
				t.Fatalf("a place outside the file: %v", e)
			}
			return
		}
		for _, proto := range []string{"tcp", "udp"} {
			l := portlist.Listener{Proto: proto, Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), port)}
			d := c.Rules.Decide("vm", l)
			if outcomes := len(d.Host) > 0; d.Ignored == (outcomes || d.HostSocket != "") || outcomes && d.HostSocket != "" {
				t.Fatalf("not one outcome: %+v", d)
			}
			for _, a := range d.Host {
				if !a.IsValid() || port != 0 && a.Port() == 0 {
					t.Fatalf("no address: %+v", d)
				}
			}
		}
		for _, l := range c.Rules.Static("vm") {
			if d := c.Rules.Decide("vm", l); d.Ignored || d.Rule == config.DefaultRule {
				t.Fatalf("static port %v is not forwarded by its rule: %+v", l, d)
			}
		}
	})
}
