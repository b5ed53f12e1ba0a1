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
	"sync"
	"syscall"
	"testing"
	"time"
)

// endpointPromises are what every kind keeps.
var endpointPromises = []struct {
	name string
	hold func(t *testing.T, l *link)
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

// killPromises are of an agent that is killed.
var killPromises = map[string]func(t *testing.T, l *link, kill func()){
	"an agent that is killed in a download resets":             killedInADownload,
	"an agent that is killed when nothing is under way resets": killedWhenIdle,
}

// waysToRelay are what the host agent does with a client: it opens a stream and relays, or,
// where each stream has a raw connection of its own, it does both at once, on one that
// may have carried another stream before.
var waysToRelay = []struct {
	name string
	now  bool
}{{"opened", false}, {"at once", true}}

func TestEveryKindOfEndpointKeepsEveryPromise(t *testing.T) {
	for _, kind := range endpointKinds {
		if kind.inVM != (os.Getenv(overVsock) != "") {
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			a := kind.start(t)
			l := linkTo(t, a)
			for _, way := range waysToRelay {
				if way.now && (a.accepted == nil || l.shared) {
					continue
				}
				t.Run(way.name, func(t *testing.T) {
					l.now = way.now
					for _, p := range endpointPromises {
						t.Run(p.name, func(t *testing.T) { p.hold(t, l) })
					}
					if way.now || l.shared {
						t.Run("raw connections are used again", func(t *testing.T) { rawConnectionsAreUsedAgain(t, l, a) })
					}
					for name, hold := range killPromises {
						t.Run(name, func(t *testing.T) {
							a := kind.start(t)
							l := linkTo(t, a)
							l.now = way.now
							hold(t, l, a.kill)
						})
					}
				})
			}
		})
	}
}

func bytesArriveBothWays(t *testing.T, l *link) {
	c := through(t, l, service(t, echo))
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
}

func clientEndsFirst(t *testing.T, l *link) {
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

func serviceEndsFirst(t *testing.T, l *link) {
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
	if n := soon(t, heard, "the service has read everything"); n != 100_000 {
		t.Fatalf("the service that had ended first got %d bytes", n)
	}
}

func serviceResets(t *testing.T, l *link) {
	c := through(t, l, service(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
		_ = c.Close()
	}))
	_, _ = c.Write([]byte("x"))
	wantReset(t, c)
}

func clientResets(t *testing.T, l *link) {
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
	if err := soon(t, ended, "the service is told of the reset"); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the service sees %v", err)
	}
}

func refuses(t *testing.T, l *link) {
	wantReset(t, through(t, l, refused(t)))
}

func earlyBytesArriveFirst(t *testing.T, l *link) {
	c := throughWith(t, l, service(t, echo), []byte("early, "))
	if _, err := io.WriteString(c, "late"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("early, late"))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "early, late" {
		t.Fatalf("%q, %v", got, err)
	}
}

func rawConnectionsAreUsedAgain(t *testing.T, l *link, a agent) {
	target := service(t, func(c *net.TCPConn) {
		defer c.Close()
		all, _ := io.ReadAll(c)
		_, _ = c.Write(all)
	})
	before := a.accepted()
	for n := range 100 {
		request := bytes.Repeat([]byte{byte(n)}, n*100)
		if reply := exchange(t, l, target, request); !bytes.Equal(reply, request) {
			t.Fatalf("stream %d: %d bytes came back, %d were sent, or others", n, len(reply), len(request))
		}
	}
	if n := a.accepted() - before; n > 30 {
		t.Errorf("%d connections to the guest for 100 streams in turn", n)
	}
}

func longMessagesComeBack(t *testing.T, l *link) {
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

func aThousandAtOnce(t *testing.T, l *link) {
	const all, opening = 1000, 100
	target := service(t, echo)
	turn := make(chan struct{}, opening)
	var done sync.WaitGroup
	for i := range all {
		done.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			err := func() error {
				c, err := l.connect(t.Context(), target, nil, func(error) {})
				if err != nil {
					return err
				}
				t.Cleanup(func() { _ = c.Close() })
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				if _, err := fmt.Fprintf(c, "%04d", i); err != nil {
					return err
				}
				got := make([]byte, 4)
				if _, err := io.ReadFull(c, got); err != nil || string(got) != fmt.Sprintf("%04d", i) {
					return fmt.Errorf("%q came back: %w", got, err)
				}
				return nil
			}()
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	done.Wait() // none is closed before the end of the test
}

func aStallHoldsUpNobody(t *testing.T, l *link) {
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

func aGibibyteArrives(t *testing.T, l *link) {
	const half, aWhile = 512 << 20, 10 * time.Minute
	want := crc32.New(castagnoli)
	_, _ = io.CopyN(want, newBlocks(), half)
	arrived := make(chan uint32, 1)
	c := through(t, l, service(t, func(c *net.TCPConn) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(aWhile))
		h := crc32.New(castagnoli)
		_, _ = io.Copy(h, c)
		arrived <- h.Sum32()
		_, _ = io.CopyN(c, newBlocks(), half)
	}))
	_ = c.SetDeadline(time.Now().Add(aWhile))
	if _, err := io.CopyN(c, newBlocks(), half); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if waitFor(t, arrived, aWhile, "the guest has all of it") != want.Sum32() {
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

func killedInADownload(t *testing.T, l *link, kill func()) {
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

// killedWhenIdle has clients that have read all there is, so that nothing holds up the end of
// a raw connection: it is there as soon as that of the link. The kernel makes it an EOF.
func killedWhenIdle(t *testing.T, l *link, kill func()) {
	target := service(t, echo)
	clients := make([]*net.TCPConn, 32)
	for i := range clients {
		clients[i] = through(t, l, target)
		if _, err := io.WriteString(clients[i], "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(clients[i], make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	kill()
	for _, c := range clients {
		if n, err := io.Copy(io.Discard, c); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a client that had read everything sees %d bytes and %v", n, err)
		}
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
