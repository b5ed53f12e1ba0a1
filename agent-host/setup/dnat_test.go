package setup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHooksThatTranslateAddressesAreNamed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("qemu", "#!/bin/sh\n# DNAT by hand\niptables -t nat -I PREROUTING -p tcp --dport 8080 -j DNAT --to 192.168.122.5:80\n")
	write("qemu.d/nft", "nft add rule nat pre tcp dport 2222 dnat to 192.168.122.5:22\n")
	write("network", "#!/bin/sh\n# no DNAT here\n")
	write("lxc", "iptables -j DNAT\n")
	notes := dnatNotes(dir)
	if len(notes) != 2 || !strings.Contains(notes[0], "qemu:3 forwards ports by DNAT: iptables") || !strings.Contains(notes[1], "nft:1") {
		t.Errorf("got %q", notes)
	}
	if notes := dnatNotes(filepath.Join(dir, "none")); len(notes) != 0 {
		t.Errorf("no hooks, but %q", notes)
	}
}
