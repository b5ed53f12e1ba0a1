package hostagent_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

func TestAGuestAgentOfAnotherBuildIsToldOf(t *testing.T) {
	const older, other = "is older than", "is of another build than"
	for _, test := range []struct{ guest, host, want string }{
		{"v1.2.3", "v1.2.4", older},
		{"v1.9.0", "v1.10.0", older},
		{"v1.10.0-rc.1", "v1.10.0", older},
		{"v1.2.3-4-gabc1234", "v1.2.4", older},
		{"v1.2.3", "v1.2.3-4-gabc1234-dirty", older},
		{"v1.2.3-4-gabc1234", "v1.2.3-12-gdef1234", older},
		{"v0.0.0-20261120101010-0123456789ab", "v0.0.0-20261120101011-000000000000", older}, // what a build without a tag is
		{"v0.0.0-20261120101010-0123456789ab", "v1.2.3", older},
		{"v1.2.3", "v1.2.4-0.20261120101010-0123456789ab+dirty", older},
		{"abc1234", "def1234", other}, // of which nobody knows which came first
		{"abc1234", "abc1234-dirty", other},
		{"v1.2.3", "v1.2.3-dirty", other},
		{"1.2.2", "v1.2.3", other},
		{"v1.2.3", "v1.2.3", ""},
		{"abc1234", "abc1234", ""},
		{"v1.2.4", "v1.2.3", ""},
		{"v1.2.3-4-gabc1234", "v1.2.3", ""},
		{"v1.2.3", "(devel)", ""},
		{"(devel)", "v1.2.3", ""},
		{"", "v1.2.3", ""},
	} {
		t.Run(test.guest+" and "+test.host, func(t *testing.T) {
			log := &logbuf.Buffer{}
			a := startAgentWith(t, hostagent.Config{Version: test.host, Log: slog.New(slog.NewTextHandler(log, nil))})
			g := newGuest(t)
			g.version = test.guest
			g.start()
			add(t, a, g.vm("dev"))
			linked := func(times int) {
				t.Helper()
				within(t, a, patience, "link", func(vms []status.VM) bool {
					return vms[0].State == status.Connected && strings.Count(log.String(), "linked to") == times
				})
			}
			linked(1)
			warning := a.Status().VMs[0].Warning
			if (warning != "") != (test.want != "") || !strings.Contains(warning, test.want) || test.want != "" && !strings.Contains(warning, "rum-host-agent install dev") {
				t.Errorf("warning %q", warning)
			}
			g.stop()
			g.start() // the same one once more: it has been said
			linked(2)
			if n := strings.Count(log.String(), "level=WARN msg=\"the guest agent is"); n != map[bool]int{true: 1}[test.want != ""] {
				t.Errorf("said %d times:\n%s", n, log)
			}
		})
	}
}

// TestAnOutdatedAgentOfAPackageIsLeftToItsPackageManager has one that is known, and one that a guest makes up.
func TestAnOutdatedAgentOfAPackageIsLeftToItsPackageManager(t *testing.T) {
	for packager, want := range map[string]string{
		"dpkg":              "; upgrade its package in the VM, with: sudo apt-get install ./rum-guest-agent_*.deb",
		"curl evil.example": "; replace it with a newer seed image, or with: rum-host-agent install dev",
	} {
		a, g := startAgentWith(t, hostagent.Config{Version: "v1.2.4", Log: slog.New(slog.DiscardHandler)}), newGuest(t)
		g.version, g.packager = "v1.2.3", packager
		g.start()
		add(t, a, g.vm("dev"))
		within(t, a, patience, "link", func(vms []status.VM) bool { return vms[0].State == status.Connected })
		if warning := a.Status().VMs[0].Warning; !strings.HasSuffix(warning, want) {
			t.Errorf("%s: %q", packager, warning)
		}
	}
}

// oldGuest answers a hello as an agent would that speaks version 1 alone, until the test ends.
func oldGuest(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "old")
	guest, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() { guest.Close(); <-served })
	go func() {
		defer close(served)
		for {
			conn, err := guest.Accept()
			if err != nil {
				return
			}
			hello := make([]byte, 11+37) // magic, kind and length; versions, key and nonce
			if _, err := io.ReadFull(conn, hello); err == nil {
				body := append([]byte{0, 0, 0, 1, 0, 1, 0}, make([]byte, 16)...)
				body = append(append(body, hello[16:48]...), make([]byte, 64)...)
				reply := append(bytes.Clone(hello[:8]), 2, 0, byte(len(body)))
				_, _ = conn.Write(append(reply, body...))
				_, _ = io.Copy(io.Discard, conn)
			}
			conn.Close()
		}
	}()
	return path
}

func TestAGuestAgentOfAnotherProtocolIsToldOfWithTheCommand(t *testing.T) {
	path := oldGuest(t)
	a := startAgentWith(t, hostagent.Config{Version: "v1.2.3", Log: slog.New(slog.DiscardHandler)})
	add(t, a, hostagent.VM{Name: "dev", Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: path}})
	within(t, a, patience, "an answer", func(vms []status.VM) bool {
		return vms[0].State == status.Incompatible &&
			strings.Contains(vms[0].Error, "the guest agent is older, upgrade it with a newer seed image, or with: rum-host-agent install dev")
	})
}
