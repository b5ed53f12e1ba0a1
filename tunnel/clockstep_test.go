//go:build e2e

package tunnel_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/stream"
	"golang.org/x/sys/unix"
)

// TestAStepOfTheClockResetsNobody sets the clock on the wall of a VM of the tests' own,
// which both agents see.
func TestAStepOfTheClockResetsNobody(t *testing.T) {
	if os.Getenv(overVsock) == "" {
		t.Fatal("this is not a VM of the tests' own, whose clock may be set")
	}
	for _, kind := range []string{stream.PathRaw, stream.PathMux} {
		l := startLink(t, startGuest(t, kind, keyed), keyed)
		before := through(t, l, service(t, echo))
		_ = before.SetDeadline(time.Time{})
		// Deadlines that are set now are to come when they would have.
		patient, err := l.Open(t.Context(), service(t, echo), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer patient.Close()
		_ = patient.SetDeadline(time.Now().Add(10 * time.Minute))
		impatient, err := l.Open(t.Context(), service(t, echo), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer impatient.Close()
		for _, step := range []time.Duration{5 * time.Second, -5 * time.Second, time.Hour, -48 * time.Hour, 47 * time.Hour} {
			stepClock(t, step)
			for n := range 20 {
				c := through(t, l, service(t, echo))
				if err := echoes(c); err != nil {
					t.Fatalf("%s: connection %d after a step of %v: %v", kind, n, step, err)
				}
			}
			if err := echoes(before); err != nil {
				t.Fatalf("%s: the connection from before, after a step of %v: %v", kind, step, err)
			}
			if l.Silent() {
				t.Fatalf("%s: silent after a step of %v", kind, step)
			}
			if seen := time.Since(l.LastSeen()); seen > time.Minute {
				t.Fatalf("%s: last seen %v ago after a step of %v", kind, seen, step)
			}
			if err := echoes(patient); err != nil {
				t.Fatalf("%s: with ten minutes to go, after a step of %v: %v", kind, step, err)
			}
			_ = impatient.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			stepClock(t, -time.Hour)
			_, err := impatient.Read(make([]byte, 1))
			stepClock(t, time.Hour)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: at its deadline a read ended with %v", kind, err)
			}
		}
	}
}

func stepClock(t *testing.T, by time.Duration) {
	t.Helper()
	now := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
	if err := unix.Settimeofday(&now); err != nil {
		t.Fatal(err)
	}
}

func echoes(c io.ReadWriter) error {
	var got [5]byte
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, got[:])
	if err == nil && string(got[:]) != "hello" {
		err = errors.New("it answered " + string(got[:]))
	}
	return err
}
