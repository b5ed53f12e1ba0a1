package tunnel

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// inBubble tells the test binary to run the test itself. It takes a process of
// its own, because yamux keeps timers in a pool, where those of a bubble's clock
// would meet those of the real one.
const inBubble = "RUM_TEST_BUBBLE"

// TestAHalfClosedStreamAnswersForAnHour half-closes a stream and lets the guest
// answer slowly, for longer than any of yamux's time-outs, on a synthetic clock.
func TestAHalfClosedStreamAnswersForAnHour(t *testing.T) {
	bubble(t, answerForAnHour)
}

// bubble runs a test on a clock of its own.
func bubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	if os.Getenv(inBubble) == "" {
		again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		again.Env = append(os.Environ(), inBubble+"=1")
		if out, err := again.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	synctest.Test(t, test)
}

func answerForAnHour(t *testing.T) {
	hostEnd, guestEnd := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	lost := make(chan error, 2)
	server := &Server{Source: func() (announce.Announcement, <-chan struct{}) { return announce.Announcement{Generation: 1}, nil }}
	guest := newGuestLink(server, accepting{}, handshake.Agreed{}, false)
	accepted := make(chan *stream.Stream, 1)
	guest.serve = func(_ context.Context, conn net.Conn, o wire.OpenRequest) {
		s := stream.NewAnswered(o.ID, &guest.ends)
		_ = guest.ends.Add(s)
		_ = s.Attach(conn)
		_, _ = conn.Write(wire.AppendAnswer(nil, wire.AnswerOK, ""))
		accepted <- s
	}
	go func() { lost <- guest.run(ctx, guestEnd) }()
	host, err := newLink(endpoint.Endpoint{Scheme: endpoint.SchemeSerial, Path: "pipe"}, Config{}, hostEnd, handshake.Agreed{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { lost <- host.Run(ctx, func(announce.Announcement) {}) }()

	out, err := host.Open(ctx, wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}, []byte("GET"))
	if err != nil {
		t.Fatal(err)
	}
	if err := out.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	in := <-accepted
	if got, err := io.ReadAll(in); err != nil || string(got) != "GET" {
		t.Fatalf("%q, %v", got, err)
	}
	go func() {
		for range 60 {
			time.Sleep(time.Minute)
			_, _ = in.Write([]byte("."))
		}
		_ = in.CloseWrite()
	}()
	began := time.Now()
	got, err := io.ReadAll(out)
	if err != nil || !bytes.Equal(got, bytes.Repeat([]byte("."), 60)) {
		t.Fatalf("after %v: %q, %v", time.Since(began), got, err)
	}
	if time.Since(began) < time.Hour {
		t.Fatal("the clock did not run")
	}
	_ = out.Close()
	_ = in.Close()
	cancel()
	<-lost
	<-lost
}
