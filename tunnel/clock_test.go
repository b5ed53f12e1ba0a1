package tunnel

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// pipeLink is both ends of a link over an in-memory line, which the clock of a
// synctest bubble runs with.
func pipeLink(t *testing.T) (*Link, *guestLink) {
	t.Helper()
	hostEnd, guestEnd := net.Pipe()
	server := &Server{Source: func() (Announcement, <-chan struct{}) { return Announcement{Generation: 1}, nil }}
	guest, err := newGuestLink(server, guestEnd, agreed{})
	if err != nil {
		t.Fatal(err)
	}
	host, err := newLink(Endpoint{Scheme: SchemeSerial, Path: "pipe"}, Config{}, hostEnd, agreed{})
	if err != nil {
		t.Fatal(err)
	}
	return host, guest
}

// TestAHalfClosedStreamAnswersForAnHour half-closes a stream and lets the guest
// answer slowly, for longer than any of yamux's time-outs, on a synthetic clock.
func TestAHalfClosedStreamAnswersForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := pipeLink(t)
		ctx, cancel := context.WithCancel(t.Context())
		lost := make(chan error, 2)
		go func() { lost <- host.Run(ctx, func(Announcement) {}) }()
		accepted := make(chan *Stream, 1)
		guest.serve = func(_ context.Context, conn net.Conn, o openRequest) {
			s := newStream(o.ID, &guest.ends)
			s.answered = true
			_ = guest.ends.add(s)
			_ = s.attach(conn)
			_, _ = conn.Write(appendAnswer(nil, AnswerOK, ""))
			accepted <- s
		}
		go func() { lost <- guest.run(ctx) }()

		out, err := host.Open(ctx, Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}, []byte("GET"))
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
	})
}
