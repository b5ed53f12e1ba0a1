package mux

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
)

// resetting is a session with resets, and two ends of a stream of it.
type resetting struct {
	host, guest *Session
	control     []*Conn // its ends
	here, there *Conn
}

func newResetting(t *testing.T) *resetting {
	t.Helper()
	a, b := net.Pipe()
	s := &resetting{}
	var err error
	log := slog.New(slog.DiscardHandler)
	if s.host, err = NewWithResets(a, true, testLimits, budget.New(budget.Link), log, admitNone); err != nil {
		t.Fatal(err)
	}
	if s.guest, err = NewWithResets(b, false, testLimits, budget.New(budget.Link), log, func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.host.Close(); _ = s.guest.Close() })
	for range 2 { // the first stream is for control
		if s.here, err = s.host.Open(); err != nil {
			t.Fatal(err)
		}
		if s.there, err = s.guest.Accept(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.control == nil {
			s.control = []*Conn{s.here, s.there}
		}
	}
	for _, c := range []*Conn{s.here, s.there} {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	}
	return s
}

// forgotten waits until neither end knows anything of a stream but that for control. yamux is told
// with what comes next.
func (s *resetting) forgotten(t *testing.T) {
	t.Helper()
	for _, c := range s.control {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, side := range []*Session{s.host, s.guest} {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			side.guard.mu.Lock()
			flows, gone := len(side.guard.flows), side.guard.gone
			side.guard.mu.Unlock()
			if flows == 1 && gone == 0 && side.NumStreams() == 1 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%d flows, %d of them gone, %d streams", flows, gone, side.NumStreams())
			}
		}
	}
}

func TestAResetReachesTheOtherEndAsOne(t *testing.T) {
	s := newResetting(t)
	if _, err := s.here.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s.there, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	s.here.Abort()
	if _, err := s.there.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other end reads %v, want a reset", err)
	}
	if err := s.there.AwaitReset(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other end awaits %v, want a reset", err)
	}
	s.there.Abort()
	s.forgotten(t)
}

func TestAnEndInOrderReachesTheOtherEndAsOneThoughTheStreamIsClosedAtOnce(t *testing.T) {
	s := newResetting(t)
	text := bytes.Repeat([]byte("0123456789"), 10_000)
	if _, err := s.here.Write(text); err != nil {
		t.Fatal(err)
	}
	_ = s.here.Close()
	if got, err := io.ReadAll(s.there); err != nil || !bytes.Equal(got, text) {
		t.Errorf("the other end reads %d bytes and %v, want %d and an end", len(got), err, len(text))
	}
	// And what it sends is not read.
	for end := time.Now().Add(20 * time.Second); ; {
		if _, err := s.there.Write(text); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the other end may write for ever to a stream that is closed here")
		}
	}
	_ = s.there.Close()
	s.forgotten(t)
}

func TestTheEndOfASessionIsAResetOfItsStreams(t *testing.T) {
	s := newResetting(t)
	go s.host.Close()
	if _, err := s.there.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other end reads %v, want a reset", err)
	}
	if err := s.there.AwaitReset(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other end awaits %v, want a reset", err)
	}
}

func TestBothHalvesOfAStreamEndApart(t *testing.T) {
	s := newResetting(t)
	if err := s.here.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the other end reads %v, want an end", err)
	}
	if _, err := s.there.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	_ = s.there.CloseWrite()
	if got, err := io.ReadAll(s.here); err != nil || string(got) != "answer" {
		t.Errorf("this end reads %q, %v", got, err)
	}
	_, _ = s.here.Close(), s.there.Close()
	s.forgotten(t)
}

func TestAResetAfterAHalfCloseIsOne(t *testing.T) {
	s := newResetting(t)
	_ = s.here.CloseWrite()
	if _, err := s.there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the other end reads %v, want an end", err)
	}
	s.here.Abort()
	if err := s.there.AwaitReset(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other end awaits %v, want a reset", err)
	}
	s.there.Abort()
	s.forgotten(t)
}
