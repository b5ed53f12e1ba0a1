package added_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/added"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func forward(t *testing.T, vm, ports string, proto config.Proto) added.Forward {
	t.Helper()
	m, err := config.ParseMapping(ports, proto)
	if err != nil {
		t.Fatal(err)
	}
	return added.Forward{VM: vm, Mapping: m, At: time.Now()}
}

func TestAHostPortOfAVMIsGivenOnce(t *testing.T) {
	var s added.Set
	for _, row := range []struct {
		vm, ports string
		proto     config.Proto
		kind      error
	}{
		{"dev", "8080:80", config.TCP, nil},
		{"dev", "8080:80", config.TCP, fs.ErrExist},
		{"dev", "8080:81", config.TCP, fs.ErrExist},
		{"dev", "8000-8080:7000-7080", config.TCP, fs.ErrExist},
		{"dev", "8080:80", config.UDP, nil},
		{"web", "8080:80", config.TCP, nil},
		{"dev", "8081:80", config.TCP, nil},
	} {
		if err := s.Add(forward(t, row.vm, row.ports, row.proto)); !errors.Is(err, row.kind) {
			t.Errorf("%+v: %v", row, err)
		}
	}
	if got := len(s.List("dev")); got != 3 {
		t.Errorf("%d of dev", got)
	}
	if err := s.Remove("dev", forward(t, "dev", "8082:80", config.TCP).Mapping); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was not added: %v", err)
	}
	if err := s.Remove("dev", forward(t, "dev", "8080:80", config.TCP).Mapping); err != nil || len(s.List("dev")) != 2 || len(s.List("")) != 3 {
		t.Errorf("%v, and left are %v", err, s.List(""))
	}
}

func TestWhatIsAddedLaterComesFirst(t *testing.T) {
	var s added.Set
	for _, ports := range []string{"9000-9009:8000-8009", "7000:8005"} {
		if err := s.Add(forward(t, "dev", ports, config.TCP)); err != nil {
			t.Fatal(err)
		}
	}
	for port, host := range map[uint16]uint16{8005: 7000, 8006: 9006} {
		d := s.Rules()["dev"].Decide("dev", portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port)})
		if d.Ignored || d.Host[0].Port() != host {
			t.Errorf("%d: %+v, want %d", port, d, host)
		}
	}
}
