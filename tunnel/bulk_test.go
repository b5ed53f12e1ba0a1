//go:build e2e

package tunnel_test

import (
	"hash/crc64"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

// TestAGibibyteArrivesWholeThroughEveryEndpoint sends 1 GiB each way. Over
// vsock that is its own endpoint kind alone.
func TestAGibibyteArrivesWholeThroughEveryEndpoint(t *testing.T) {
	const size, aWhile = 1 << 30, 15 * time.Minute
	table := crc64.MakeTable(crc64.ECMA)
	want := crc64.New(table)
	if _, err := io.CopyN(want, numbers(), size); err != nil {
		t.Fatal(err)
	}
	bothWays := func(t *testing.T, l *link) {
		arrived := make(chan uint64, 1)
		c := through(t, l, service(t, func(c *net.TCPConn) {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(aWhile))
			h := crc64.New(table)
			_, _ = io.Copy(h, c)
			arrived <- h.Sum64()
			_, _ = io.CopyN(c, numbers(), size)
		}))
		_ = c.SetDeadline(time.Now().Add(aWhile))
		if _, err := io.CopyN(c, numbers(), size); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		if waitFor(t, arrived, aWhile, "the guest has all of it") != want.Sum64() {
			t.Fatal("what the guest got is not what was sent")
		}
		back := crc64.New(table)
		if n, err := io.Copy(back, c); n != size || err != nil {
			t.Fatalf("%d bytes came back: %v", n, err)
		}
		if back.Sum64() != want.Sum64() {
			t.Fatal("what came back is not what the guest sent")
		}
	}
	if os.Getenv(overVsock) == "" {
		eachEndpoint(t, bothWays)
		return
	}
	t.Run("vsock", func(t *testing.T) {
		bothWays(t, startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{}))
	})
}
