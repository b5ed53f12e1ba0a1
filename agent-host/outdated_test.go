package hostagent_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/control"
)

func TestAnOlderGuestAgentIsToldOf(t *testing.T) {
	for _, test := range []struct {
		guest, host string
		older       bool
	}{
		{"v1.2.3", "v1.2.4", true},
		{"v1.9.0", "v1.10.0", true},
		{"v1.10.0-rc.1", "v1.10.0", true},
		{"v1.2.3-4-gabc1234", "v1.2.4", true},
		{"v1.2.3", "v1.2.3", false},
		{"v1.2.4", "v1.2.3", false},
		{"v1.2.3", "v1.2.3-4-gabc1234-dirty", false}, // after v1.2.3, not before it
		{"v1.2.3-4-gabc1234", "v1.2.3", false},
		{"v1.2.3-dirty", "v1.2.3", false},
		{"v1.2.3", "(devel)", false},
		{"(devel)", "v1.2.3", false},
		{"", "v1.2.3", false},
		{"abc1234", "v1.2.3", false},
		{"1.2.2", "v1.2.3", false},
		{"v0.0.0-20261120101010-0123456789ab", "v1.2.3", false},
		{"v1.2.3", "v1.2.4-0.20261120101010-0123456789ab+dirty", false},
	} {
		t.Run(test.guest+" and "+test.host, func(t *testing.T) {
			log := &logBuffer{}
			a := startAgentWith(t, hostagent.Config{Version: test.host, Log: slog.New(slog.NewTextHandler(log, nil))})
			g := newGuest(t)
			g.version = test.guest
			g.start()
			add(t, a, g.vm("dev"))
			linked := func(times int) {
				t.Helper()
				within(t, a, patience, "link", func(vms []control.VM) bool {
					return vms[0].State == control.Connected && strings.Count(log.String(), "linked to") == times
				})
			}
			linked(1)
			warning := a.Status().VMs[0].Warning
			if (warning != "") != test.older || test.older && !strings.Contains(warning, "rum-host-agent install dev") {
				t.Errorf("warning %q", warning)
			}
			g.stop()
			g.start() // the same one once more: it has been said
			linked(2)
			if n := strings.Count(log.String(), "is older"); n != map[bool]int{true: 1}[test.older] {
				t.Errorf("said %d times:\n%s", n, log)
			}
		})
	}
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
