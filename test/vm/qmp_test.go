package vm

import (
	"bufio"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// monitor plays QEMU: it greets, accepts the capabilities and answers the
// first command with answer, or never if that is empty.
func monitor(t *testing.T, answer string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qmp")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		lines := bufio.NewReader(conn)
		conn.Write([]byte(`{"QMP": {"version": {}, "capabilities": []}}` + "\n"))
		lines.ReadString('\n')
		conn.Write([]byte(`{"return": {}}` + "\n"))
		lines.ReadString('\n')
		conn.Write([]byte(answer))
		lines.ReadString('\n')
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return path
}

func TestEventsBeforeTheAnswerArePassedOver(t *testing.T) {
	path := monitor(t, `{"event": "STOP", "timestamp": {}} {"return": {"running": false}}`)
	got, err := qmp(watchdog(t), path, "query-status", nil)
	if err != nil || string(got) != `{"running": false}` {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestMonitorErrorNamesTheCommand(t *testing.T) {
	path := monitor(t, `{"error": {"class": "CommandNotFound", "desc": "no such thing"}}`)
	_, err := qmp(watchdog(t), path, "fly", nil)
	if err == nil || !strings.Contains(err.Error(), "fly") || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("got %v", err)
	}
}

func TestSilentMonitorEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := qmp(ctx, monitor(t, ""), "query-status", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
