package strangers_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/strangers"
)

// TestWhoHasSaidSomethingStaysWhereTheMachineIsBusy has as many connections as there may
// be, none of which is read from. Those that said something are not to go for others.
func TestWhoHasSaidSomethingStaysWhereTheMachineIsBusy(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func(says string) (accepted net.Conn) {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte(says)); err != nil {
			t.Fatal(err)
		}
		if accepted, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { accepted.Close() })
		return accepted
	}
	set := strangers.New()
	admit := func(conn net.Conn, most time.Duration) (*strangers.Stranger, error) {
		ctx, cancel := context.WithTimeout(t.Context(), most)
		defer cancel()
		return set.Admit(ctx, conn)
	}
	silent, err := admit(connect(""), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var said []*strangers.Stranger
	for range strangers.Max - 1 {
		st, err := admit(connect("raw"), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, st)
	}
	one, err := admit(connect("raw"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if !set.WasEvicted(silent) {
		t.Error("who said nothing is there still")
	}
	if _, err := admit(connect("raw"), time.Second); err == nil {
		t.Error("there is room for one more than there may be")
	}
	set.Known(one)
	if _, err := admit(connect("raw"), time.Minute); err != nil {
		t.Errorf("no room where one is known: %v", err)
	}
	for i, st := range said {
		if set.WasEvicted(st) {
			t.Fatalf("connection %d had to go", i)
		}
	}
}
