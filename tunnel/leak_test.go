package tunnel_test

import (
	"io"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// TestThreeThousandConnectionsLeaveNothingBehind counts what both sides of a
// link, which are in this process, have left.
func TestThreeThousandConnectionsLeaveNothingBehind(t *testing.T) {
	const n = 3000
	eachKind(t, func(t *testing.T, l *link) {
		target := service(t, func(c *net.TCPConn) {
			defer c.Close()
			_, _ = io.WriteString(c, "hello")
		})
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		var counters relay.Counters
		once := func() {
			client, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			accepted, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			s, err := l.Open(t.Context(), target, nil)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go relay.Relay(relay.TCP(accepted.(*net.TCPConn)), s, &counters, func(err error) { done <- err })
			if got, err := io.ReadAll(client); err != nil || string(got) != "hello" {
				t.Fatalf("%q, %v", got, err)
			}
			_ = client.Close()
			if err := soon(t, done, "the stream has ended"); err != nil {
				t.Fatal(err)
			}
		}
		for range 50 { // what is made once
			once()
		}
		goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
		for range n {
			once()
		}
		if in := counters.In.Load(); in != (n+50)*5 {
			t.Errorf("%d bytes were counted, %d came", in, (n+50)*5)
		}
		// Idle connections and pooled pipes come and go; 3,000 do not hide there.
		const slack = 24
		eventually(t, "goroutines and descriptors to be gone", func() bool {
			return runtime.NumGoroutine() <= goroutines+slack && openDescriptors(t) <= descriptors+slack
		})
	})
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
