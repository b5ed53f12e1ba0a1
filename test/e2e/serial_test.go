//go:build e2e

package e2e

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// The host agent has been trying since before the guest's kernel ran. What it
// said meanwhile is in the guest's queue when the agent there comes up.
func TestHostAgentThatWaitedForTheBootIsLinked(t *testing.T) {
	eventually(t, "connected", stateIs(testContext(t), status.Connected))
}

func TestPortOfTheGuestAnswersOnLocalhostWhileItIsOpen(t *testing.T) {
	ctx := testContext(t)
	port := freePort(t)
	stop := serveInGuest(t, ctx, port, "hello")
	eventually(t, "forwarded", forwarded(ctx, port))
	if err := answers(ctx, port, "hello")(); err != nil {
		t.Error(err)
	}
	stop()
	eventually(t, "gone", gone(ctx, port))
}

func TestHalfCloseReachesTheGuest(t *testing.T) {
	ctx := testContext(t)
	port := freePort(t)
	startInGuest(t, ctx, "nc -ll -p %d -e md5sum", port)
	eventually(t, "forwarded", forwarded(ctx, port))

	body := make([]byte, 4<<20)
	for i := range body {
		body[i] = byte(rand.Uint32())
	}
	conn := dial(t, port)
	if _, err := conn.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	sum, err := io.ReadAll(conn)
	if want := fmt.Sprintf("%x", md5.Sum(body)); err != nil || !strings.HasPrefix(string(sum), want) {
		t.Errorf("the guest says %q (%v), want %s", sum, err, want)
	}
}

func TestKilledGuestAgentIsFoundAgain(t *testing.T) {
	ctx := testContext(t)
	port := freePort(t)
	serveInGuest(t, ctx, port, "still here")
	eventually(t, "answering", answers(ctx, port, "still here"))
	before := inGuest(t, ctx, "pidof rum-guest-agent")

	inGuest(t, ctx, "kill -9 %s", before)
	eventually(t, "served by another agent", func() error {
		now, err := guest.Run(ctx, "pidof rum-guest-agent")
		if err == nil && strings.TrimSpace(now) == before {
			err = fmt.Errorf("the agent is still %s", before)
		}
		return err
	})
	eventually(t, "answering", answers(ctx, port, "still here"))
	eventually(t, "connected", stateIs(ctx, status.Connected))
}

func TestGuestWithoutItsAgentIsShownAsSuch(t *testing.T) {
	ctx := testContext(t)
	port := freePort(t)
	serveInGuest(t, ctx, port, "back")
	eventually(t, "answering", answers(ctx, port, "back"))

	inGuest(t, ctx, "touch /run/agent-off; kill -9 $(pidof rum-guest-agent)")
	t.Cleanup(func() { guest.Run(context.Background(), "rm -f /run/agent-off") })
	eventually(t, "seen to be without an agent", stateIs(ctx, status.Down, status.Connecting, status.Paused))
	if err := useOnce(port); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without an agent a connection ended with %v, want a reset", err)
	}

	before := len(guest.Console())
	inGuest(t, ctx, "rm /run/agent-off")
	eventually(t, "answering", answers(ctx, port, "back"))
	// What the host said to the agent that was killed is in the line: nothing to warn of.
	if log := guest.Console()[before:]; strings.Contains(log, "level=WARN") {
		t.Errorf("the new agent warns:\n%s", log)
	}
}

func TestResetGuestIsFoundAgain(t *testing.T) {
	ctx := testContext(t)
	old, port := freePort(t), freePort(t)
	serveInGuest(t, ctx, old, "old")
	eventually(t, "answering", answers(ctx, old, "old"))

	began := time.Now()
	if err := guest.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("booted again after %v", time.Since(began).Round(10*time.Millisecond))
	eventually(t, "gone", gone(ctx, old))
	serveInGuest(t, ctx, port, "new")
	eventually(t, "answering", answers(ctx, port, "new"))
}

func TestPausedGuestKeepsItsConnections(t *testing.T) {
	ctx := testContext(t)
	port := freePort(t)
	startInGuest(t, ctx, "nc -ll -p %d -e cat", port)
	eventually(t, "forwarded", forwarded(ctx, port))
	conn := dial(t, port)
	echo(t, conn, "before")

	if err := guest.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "paused", stateIs(ctx, status.Paused))
	if _, err := conn.Write([]byte("during")); err != nil {
		t.Fatal(err)
	}
	if err := guest.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, "during")
	eventually(t, "connected", stateIs(ctx, status.Connected))
	echo(t, conn, "after")
}

// useOnce connects and reads until something happens.
func useOnce(port int) error {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	_, err = conn.Read(make([]byte, 1))
	return err
}

func dial(t *testing.T, port int) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * patience))
	return conn.(*net.TCPConn)
}

func echo(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, text)
}

func expect(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("read %q (%v), want %q", got, err, text)
	}
}
