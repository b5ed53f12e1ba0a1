package integration

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

// A connection over the bridge is the host agent's alone.
func TestOnTheBridgeAKilledHostAgentResetsAndAKilledGuestAgentTouchesNothing(t *testing.T) {
	g := newGuest(t, "vm")
	bridge := g.joined(t)
	l := g.listen(t, "0.0.0.0:7300")
	uploads := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				what := make([]byte, 1)
				_, _ = io.ReadFull(c, what)
				if what[0] == 'd' {
					for {
						if _, err := c.Write(make([]byte, 1000)); err != nil {
							return
						}
						time.Sleep(time.Millisecond)
					}
				}
				_, err := io.Copy(io.Discard, c)
				uploads <- err
			}()
		}
	}()
	h := startHost(t, ",bridge="+bridge, g)
	h.awaitForward(t, "vm", 7300, "active", active)
	g.agent.kill()
	h.awaitForward(t, "vm", 7300, "on the bridge", func(f control.Forward) bool { return f.Path == "bridge" })

	download, upload := dialSaying(t, "d"), dialSaying(t, "u")
	if _, err := io.ReadFull(download, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	g.startAgent(t)
	h.awaitForward(t, "vm", 7300, "on the link", func(f control.Forward) bool { return f.Path == "vsock" })
	g.agent.kill()
	h.awaitForward(t, "vm", 7300, "on the bridge", func(f control.Forward) bool { return f.Path == "bridge" })
	if _, err := io.ReadFull(download, make([]byte, 100_000)); err != nil {
		t.Fatalf("the death of the guest agent touched a connection on the bridge: %v", err)
	}

	h.kill()
	if _, err := io.Copy(io.Discard, download); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the download ended with %v for the client, want a reset", err)
	}
	_ = upload.Close()
	select {
	case err := <-uploads:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the upload ended with %v for the service, want a reset", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the upload did not end for the service")
	}
}

func dialSaying(t *testing.T, what string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:7300")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
	return c
}
