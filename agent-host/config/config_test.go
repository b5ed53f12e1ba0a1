package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("/etc/rum/rum.toml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// listener reads "tcp 127.0.0.1:80 nginx[7]".
func listener(t *testing.T, text string) portlist.Listener {
	t.Helper()
	f := append(strings.Fields(text), "")
	addr, err := netip.ParseAddrPort(f[1])
	if err != nil {
		t.Fatal(err)
	}
	return portlist.Listener{Proto: f[0], Addr: addr, Process: f[2]}
}

// place writes a decision down: the host addresses, or why there are none.
func place(d config.Decision) string {
	switch {
	case d.Ignored:
		return "ignored: " + d.Reason
	case d.HostSocket != "":
		return d.HostSocket
	}
	var all []string
	for _, a := range d.Host {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}

func TestAnEmptyFileMeansTheDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "ports = []\n", "[network]\n", "\ufeff"} {
		if diff := cmp.Diff(config.Default(), parse(t, text), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestNetwork(t *testing.T) {
	c := parse(t, "[network]\nmode = \"none\"\nhost_only = \"lab\"\nsubnet = \"10.7.0.0/20\"\n")
	want := config.Network{Mode: config.ModeNone, HostOnly: "lab", Subnet: netip.MustParsePrefix("10.7.0.0/20")}
	if c.Network != want {
		t.Errorf("got %+v", c.Network)
	}
	if c := parse(t, "[network]\nhost_only = \"\"\n"); c.Network.HostOnly != "" {
		t.Errorf("got %+v", c.Network)
	}
}

func TestTheReferenceIsValidAndSaysWhatItDoes(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "rum.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse(path, text)
	if err != nil {
		t.Fatal(err)
	}
	if c.Network != config.Default().Network {
		t.Errorf("network: %+v", c.Network)
	}
	for _, row := range []struct{ vm, listener, want string }{
		{"x", "tcp 0.0.0.0:80", "127.0.0.1:8080 [::1]:8080"},
		{"x", "udp 0.0.0.0:80", `ignored: below 1024: add a rule, guest = 80, host = 8080, proto = "udp"`},
		{"x", "tcp 0.0.0.0:4099", "127.0.0.1:14099 [::1]:14099"},
		{"x", "udp 0.0.0.0:5354", "127.0.0.1:15354 [::1]:15354"},
		{"x", "tcp [::]:8443", "192.0.2.10:8443"},
		{"x", "tcp [::1]:9000", "127.0.0.1:19000 [::1]:19000"},
		{"x", "tcp [::]:9000", "127.0.0.1:9000 [::1]:9000"},
		{"db-1", "tcp 0.0.0.0:5432", "127.0.0.1:15432 [::1]:15432"},
		{"x", "tcp 0.0.0.0:5173 vite[8]", "127.0.0.2:5173"},
		{"web", "tcp 0.0.0.0:22", "127.0.0.1:2222 [::1]:2222"},
		{"web", "tcp 0.0.0.0:3306", "/tmp/web-mysql.sock"},
		{"web", "tcp 0.0.0.0:3128", "127.0.0.1:3128 [::1]:3128"},
	} {
		if got := place(c.Rules.Decide(row.vm, listener(t, row.listener))); got != row.want {
			t.Errorf("%s of %s: got %s, want %s", row.listener, row.vm, got, row.want)
		}
	}
	if got := c.Rules.Static("web"); len(got) != 1 || got[0] != listener(t, "tcp 0.0.0.0:8000") {
		t.Errorf("static: %v", got)
	}
}
