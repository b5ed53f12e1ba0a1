//go:build e2e

package tunnel_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
)

// TestAGibibyteArrivesWholeThroughEveryEndpoint sends 1 GiB each way.
func TestAGibibyteArrivesWholeThroughEveryEndpoint(t *testing.T) {
	const size = 1 << 30
	want := sha256.New()
	if _, err := io.CopyN(want, rand.NewChaCha8([32]byte{9}), size); err != nil {
		t.Fatal(err)
	}
	eachEndpoint(t, func(t *testing.T, l *tunnel.Link) {
		arrived := make(chan []byte, 1)
		c := through(t, l, service(t, func(c *net.TCPConn) {
			defer c.Close()
			h := sha256.New()
			_, _ = io.Copy(h, c)
			arrived <- h.Sum(nil)
			_, _ = io.CopyN(c, rand.NewChaCha8([32]byte{9}), size)
		}))
		_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
		if _, err := io.CopyN(c, rand.NewChaCha8([32]byte{9}), size); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		if !bytes.Equal(<-arrived, want.Sum(nil)) {
			t.Fatal("what the guest got is not what was sent")
		}
		back := sha256.New()
		if n, err := io.Copy(back, c); n != size || err != nil {
			t.Fatalf("%d bytes came back: %v", n, err)
		}
		if !bytes.Equal(back.Sum(nil), want.Sum(nil)) {
			t.Fatal("what came back is not what the guest sent")
		}
	})
}
