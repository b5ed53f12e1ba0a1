package tunnel_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// childRole tells a test binary which agent it is to be, and where.
const childRole = "RUM_TEST_CHILD"

// withKey has a guest agent that is a child demand the key of [keyed].
const withKey = "keyed"

// beChild is an agent, until it fails or is killed, or the process that started it has
// ended however it may: a Pdeathsig would come with the end of a thread of that one.
func beChild(role []string) error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	if role[0] == "guest" {
		cfg := tunnel.Config{}
		if slices.Contains(role[3:], withKey) {
			cfg = keyed
		}
		return beGuest(role[1], role[2], cfg)
	}
	return beHost(role[1], role[2])
}

// beGuest serves links where it listens.
func beGuest(kind, at string, cfg tunnel.Config) error {
	server := &tunnel.Server{Config: cfg, Source: (&source{changed: make(chan struct{})}).get}
	e, err := endpoint.ParseListen(at)
	if err != nil {
		return err
	}
	l, err := endpoint.Listen(e, []uint32{vsockLoopback}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	l = telling{l}
	if kind != stream.PathMux {
		return server.Serve(context.Background(), l)
	}
	serveLines(context.Background(), server, l)
	return nil
}

// telling is a listener that says on standard output, a byte for each, what it accepts.
type telling struct{ net.Listener }

func (l telling) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		_, err = os.Stdout.Write([]byte{'+'})
	}
	return c, err
}

// beHost forwards a port to a target, and says which port it is.
func beHost(at, target string) error {
	e, err := endpoint.Parse(at)
	if err != nil {
		return err
	}
	l, err := tunnel.Dial(context.Background(), e, tunnel.Config{})
	if err != nil {
		return err
	}
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	addr := ln.Addr()
	a, err := relay.NewAcceptor(ln)
	if err != nil {
		return err
	}
	to := wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort(target)}}
	err = a.Serve(func(c *relay.Client) {
		if l.RelayNow(c, to, nil, new(relay.Counters), func(error) {}) {
			return
		}
		go func() {
			s, err := l.Open(context.Background(), to, nil)
			if err != nil {
				c.Abort()
				return
			}
			relay.Relay(c.Conn(), s, new(relay.Counters), func(error) {})
		}()
	}, func(error) {}, nil)
	if err != nil {
		return err
	}
	fmt.Println(addr)
	return l.Run(context.Background(), func(announce.Announcement) {})
}

// child is a process of this test binary.
type child struct {
	cmd      *exec.Cmd
	said     string       // its first line
	accepted atomic.Int64 // connections, if it is a guest agent
}

func startChild(t *testing.T, role ...string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childRole+"="+strings.Join(role, " "), "GORACE=atexit_sleep_ms=0")
	c.cmd.Stderr = testWriter{t}
	if _, err := c.cmd.StdinPipe(); err != nil { // which ends with this process
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("the agent of the test did not begin: %v", err)
	}
	c.said = strings.TrimSpace(line)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			if _, err := lines.ReadByte(); err != nil {
				return
			}
			c.accepted.Add(1)
		}
	}()
	t.Cleanup(func() { c.kill(); <-read })
	return c
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// An agent is killed during uploads and downloads, of which none may end for
// anybody as if it were complete. The kernel closes what a process leaves.
func TestAKilledAgentResetsWhatItCarried(t *testing.T) {
	const kills, transfers = 10, 5
	for _, kind := range []string{stream.PathRaw, stream.PathMux} {
		for _, victim := range []string{"host", "guest"} {
			t.Run(kind+" "+victim, func(t *testing.T) {
				t.Parallel()
				uploads := make(chan error, kills*transfers)
				target := service(t, func(c *net.TCPConn) {
					defer c.Close()
					what := []byte{0}
					if _, err := io.ReadFull(c, what); err != nil {
						uploads <- fmt.Errorf("before the kill: %w", err)
						return
					}
					if what[0] == 'd' {
						_, _ = io.Copy(c, endless{})
						return
					}
					_, _ = c.Write([]byte{1})
					_, err := io.Copy(io.Discard, c)
					uploads <- err
				})
				for range kills {
					killOne(t, kind, victim, target.Addrs[0].String(), transfers)
				}
				for range kills * transfers {
					select {
					case err := <-uploads:
						if !errors.Is(err, syscall.ECONNRESET) {
							t.Errorf("an upload that was cut ended with %v for the service, want a reset", err)
						}
					case <-time.After(10 * time.Second):
						t.Fatal("an upload that was cut did not end for the service")
					}
				}
			})
		}
	}
}

// killOne kills an agent while it carries some transfers each way.
func killOne(t *testing.T, kind, victim, target string, transfers int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	guest := startChild(t, "guest", kind, "unix:"+path)
	defer guest.kill()
	scheme := "unix:"
	if kind == stream.PathMux {
		scheme = "serial:"
	}
	host := startChild(t, "host", scheme+path, target)
	defer host.kill()

	var flowing, over sync.WaitGroup
	for i := range 2 * transfers {
		c, err := net.Dial("tcp", host.said)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		download := i%2 == 0
		flowing.Add(1)
		over.Go(func() {
			defer c.Close()
			if download {
				_, _ = c.Write([]byte("d"))
			} else {
				_, _ = c.Write([]byte("u"))
			}
			_, err := io.ReadFull(c, make([]byte, 1))
			flowing.Done()
			if err != nil {
				t.Errorf("before the kill: %v", err)
				return
			}
			if !download {
				_, _ = io.Copy(c, endless{})
				return
			}
			if n, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a download that was cut after %d bytes ended with %v for the client, want a reset", n, err)
			}
		})
	}
	flowing.Wait()
	if victim == "host" {
		host.kill()
	} else {
		guest.kill()
	}
	over.Wait()
}

// endless is a source of bytes without end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }
