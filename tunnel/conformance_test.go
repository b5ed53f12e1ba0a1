package tunnel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

// endpointKinds are all kinds of endpoints. A new one is held to every promise by a line
// here. start begins a guest agent, a process of its own that has the key of [keyed]
// (without one it bounds the connections of a host by its descriptors), and returns how
// the host reaches it and what kills it.
var endpointKinds = []struct {
	name  string
	inVM  bool // only in a VM of the tests' own
	start func(t *testing.T) (at string, kill func())
}{
	{"unix", false, startUnix},
	{"hybrid", false, startHybrid},
	{"serial", false, startSerial},
	{"exec", false, startExec},
	{"vsock", true, startVsock},
}

func startUnix(t *testing.T) (at string, kill func()) {
	at = "unix:" + filepath.Join(t.TempDir(), "agent.sock")
	return at, startChild(t, "guest", stream.PathRaw, at, withKey).kill
}

func startHybrid(t *testing.T) (at string, kill func()) {
	at, kill = startUnix(t)
	return startVMM(t, strings.TrimPrefix(at, "unix:")).String(), kill
}

func startSerial(t *testing.T) (at string, kill func()) {
	path := filepath.Join(t.TempDir(), "port.sock")
	return "serial:" + path, startChild(t, "guest", stream.PathMux, "unix:"+path, withKey).kill
}

func startExec(t *testing.T) (at string, kill func()) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pid := filepath.Join(t.TempDir(), "pid")
	return fmt.Sprintf("exec:echo $$ >%s; %s=%s exec %s", pid, asStdioGuest, withKey, self), func() {
		b, err := os.ReadFile(pid)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(n, syscall.SIGKILL)
	}
}

func startVsock(t *testing.T) (at string, kill func()) {
	port := vsockPort.Add(1)
	kill = startChild(t, "guest", stream.PathRaw, fmt.Sprintf("vsock:%d", port), withKey).kill
	return fmt.Sprintf("vsock:%d:%d", vsockLoopback, port), kill
}

// endpointPromises are what every kind keeps.
var endpointPromises = []struct {
	name string
	hold func(t *testing.T, l *tunnel.Link)
}{
	{"bytes arrive both ways", bytesArriveBothWays},
	{"a client may end first", clientEndsFirst},
	{"a service may end first", serviceEndsFirst},
	{"a reset by the service is one for the client", serviceResets},
	{"a reset by the client is one for the service", clientResets},
	{"a refusal is a reset", refuses},
	{"early bytes arrive first", earlyBytesArriveFirst},
	{"messages of 64 KiB and one byte come back whole", longMessagesComeBack},
	{"a thousand connections at once", aThousandAtOnce},
	{"who does not read holds up nobody else", aStallHoldsUpNobody},
	{"a gibibyte arrives whole", aGibibyteArrives},
}

func TestEveryKindOfEndpointKeepsEveryPromise(t *testing.T) {
	for _, kind := range endpointKinds {
		if kind.inVM != (os.Getenv(overVsock) != "") {
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			link := func(t *testing.T) (l *tunnel.Link, kill func()) {
				at, kill := kind.start(t)
				e, err := endpoint.Parse(at)
				if err != nil {
					t.Fatal(err)
				}
				return startLink(t, &guest{endpoint: e}, keyed), kill
			}
			l, _ := link(t)
			for _, p := range endpointPromises {
				t.Run(p.name, func(t *testing.T) { p.hold(t, l) })
			}
			t.Run("an agent that is killed resets", func(t *testing.T) {
				l, kill := link(t)
				killedInADownload(t, l, kill)
			})
		})
	}
}

func bytesArriveBothWays(t *testing.T, l *tunnel.Link) {
	c := through(t, l, service(t, echo))
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
}

func clientEndsFirst(t *testing.T, l *tunnel.Link) {
	c := through(t, l, service(t, func(c *net.TCPConn) {
		defer c.Close()
		all, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "%d bytes", len(all))
	}))
	_, _ = c.Write(make([]byte, 100_000))
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "100000 bytes" {
		t.Fatalf("%q, %v", got, err)
	}
}

func serviceEndsFirst(t *testing.T, l *tunnel.Link) {
	heard := make(chan int, 1)
	c := through(t, l, service(t, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.WriteString(c, "go on")
		_ = c.CloseWrite()
		all, _ := io.ReadAll(c)
		heard <- len(all)
	}))
	if got, err := io.ReadAll(c); err != nil || string(got) != "go on" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := c.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if n := <-heard; n != 100_000 {
		t.Fatalf("the service that had ended first got %d bytes", n)
	}
}

func serviceResets(t *testing.T, l *tunnel.Link) {
	c := through(t, l, service(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
		_ = c.Close()
	}))
	_, _ = c.Write([]byte("x"))
	wantReset(t, c)
}

func clientResets(t *testing.T, l *tunnel.Link) {
	ended := make(chan error, 1)
	c := through(t, l, service(t, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.WriteString(c, "x")
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the service sees %v", err)
	}
}

func refuses(t *testing.T, l *tunnel.Link) {
	wantReset(t, through(t, l, refused(t)))
}

func earlyBytesArriveFirst(t *testing.T, l *tunnel.Link) {
	s, err := l.Open(t.Context(), service(t, echo), []byte("early, "))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := io.WriteString(s, "late"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("early, late"))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "early, late" {
		t.Fatalf("%q, %v", got, err)
	}
}

func longMessagesComeBack(t *testing.T, l *tunnel.Link) {
	c := through(t, l, service(t, echo))
	message := make([]byte, 64<<10+1)
	got := make([]byte, len(message))
	for i := range 50 {
		_, _ = io.ReadFull(numbers(), message[:len(message)/8*8])
		message[len(message)-1] = byte(i)
		if _, err := c.Write(message); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("message %d came back otherwise, or not: %v", i, err)
		}
	}
}

func aThousandAtOnce(t *testing.T, l *tunnel.Link) {
	const all, opening = 1000, 100
	target := service(t, echo)
	turn := make(chan struct{}, opening)
	var done sync.WaitGroup
	for i := range all {
		done.Go(func() {
			turn <- struct{}{}
			err := func() error {
				s, err := l.Open(t.Context(), target, nil)
				if err != nil {
					return err
				}
				t.Cleanup(func() { _ = s.Close() })
				_ = s.SetDeadline(time.Now().Add(time.Minute))
				if _, err := fmt.Fprintf(s, "%04d", i); err != nil {
					return err
				}
				got := make([]byte, 4)
				if _, err := io.ReadFull(s, got); err != nil || string(got) != fmt.Sprintf("%04d", i) {
					return fmt.Errorf("%q came back: %w", got, err)
				}
				return nil
			}()
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
			<-turn
		})
	}
	done.Wait() // none is closed before the end of the test
}

func aStallHoldsUpNobody(t *testing.T, l *tunnel.Link) {
	endless := service(t, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, numbers())
	})
	deaf := service(t, func(c *net.TCPConn) {
		defer c.Close()
		<-t.Context().Done()
	})
	through(t, l, endless) // nobody reads it
	stalled := through(t, l, deaf)
	var sending sync.WaitGroup
	sending.Go(func() { _, _ = io.Copy(stalled, numbers()) })
	defer sending.Wait()
	defer stalled.Close()
	for range 20 {
		bytesArriveBothWays(t, l)
	}
}

func aGibibyteArrives(t *testing.T, l *tunnel.Link) {
	const half = 512 << 20
	want := crc32.New(castagnoli)
	_, _ = io.CopyN(want, newBlocks(), half)
	arrived := make(chan uint32, 1)
	c := through(t, l, service(t, func(c *net.TCPConn) {
		defer c.Close()
		h := crc32.New(castagnoli)
		_, _ = io.Copy(h, c)
		arrived <- h.Sum32()
		_, _ = io.CopyN(c, newBlocks(), half)
	}))
	_ = c.SetDeadline(time.Now().Add(10 * time.Minute))
	if _, err := io.CopyN(c, newBlocks(), half); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if <-arrived != want.Sum32() {
		t.Fatal("what the guest got is not what was sent")
	}
	back := crc32.New(castagnoli)
	if n, err := io.Copy(back, c); n != half || err != nil || back.Sum32() != want.Sum32() {
		t.Fatalf("%d bytes came back, the right ones or not: %v", n, err)
	}
}

// castagnoli is a checksum that processors have an instruction for, and that is quick under
// the race detector too.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// blocks are without end, and no two are alike.
type blocks struct {
	block  []byte
	number uint64
	at     int
}

func newBlocks() *blocks {
	b := &blocks{block: make([]byte, 256<<10)}
	_, _ = numbers().Read(b.block)
	return b
}

func (b *blocks) Read(p []byte) (int, error) {
	n := copy(p, b.block[b.at:])
	if b.at += n; b.at == len(b.block) {
		b.at = 0
		b.number++
		binary.LittleEndian.PutUint64(b.block, b.number)
	}
	return n, nil
}

func killedInADownload(t *testing.T, l *tunnel.Link, kill func()) {
	c := through(t, l, service(t, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, numbers())
	}))
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	kill()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the client sees %v", err)
	}
}

// pseudoRandom reads as pseudo-random numbers. They and their checksum are
// quick to make in an emulated guest too.
type pseudoRandom struct{ *rand.PCG }

func numbers() io.Reader { return pseudoRandom{rand.NewPCG(9, 9)} }

func (r pseudoRandom) Read(p []byte) (int, error) {
	n := len(p) / 8 * 8
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], r.Uint64())
	}
	return n, nil
}
