package tunnel_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

// vmm is the VMM of a hybrid endpoint, as strict as Firecracker, from which Cloud Hypervisor and vhost-device-vsock have
// theirs (docs/vsock.md there): a command of 32 bytes at most, no answer but an end where it leads nowhere, and no half-close.
// At an end of the host's nothing of the guest's arrives any more, and an end of the guest's is not passed on until it
// has closed the connection.
type vmm struct {
	agent string // where the guest agent is, at port 1021
	mu    sync.Mutex
	port  int // of the host that was last given
}

// startVMM starts a VMM whose guest has the agent at a unix socket.
func startVMM(t *testing.T, agent string) endpoint.Endpoint {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vmm.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	v := &vmm{agent: agent, port: 1 << 30}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer in.Close()
				v.serve(in.(*net.UnixConn))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); conns.Wait() })
	return endpoint.Endpoint{Scheme: endpoint.SchemeHybrid, Path: path, Port: endpoint.DefaultPort}
}

func (v *vmm) serve(in *net.UnixConn) {
	port, err := readConnect(in)
	if err != nil || port != endpoint.DefaultPort {
		return
	}
	conn, err := net.Dial("unix", v.agent)
	if err != nil {
		return
	}
	out := conn.(*net.UnixConn)
	defer out.Close()
	v.mu.Lock()
	v.port++
	answer := fmt.Sprintf("OK %d\n", v.port)
	v.mu.Unlock()
	for _, piece := range []string{answer[:2], answer[2:]} { // it may come in any number of pieces
		if _, err := io.WriteString(in, piece); err != nil {
			return
		}
	}
	var back sync.WaitGroup
	defer back.Wait()
	back.Go(func() {
		_, _ = io.Copy(in, out)
		awaitClose(out)
		_ = in.Close()
	})
	_, _ = io.Copy(out, in)
	_, _ = in.Close(), out.Close()
}

// readConnect reads the command of the host, byte by byte: what follows is the guest's.
func readConnect(r io.Reader) (port int, err error) {
	var line [32]byte
	for n := range line {
		if _, err := io.ReadFull(r, line[n:n+1]); err != nil {
			return 0, err
		}
		if line[n] != '\n' {
			continue
		}
		words := strings.Fields(string(line[:n]))
		if len(words) < 2 || !strings.EqualFold(words[0], "connect") {
			break
		}
		return strconv.Atoi(words[1])
	}
	return 0, errors.New("no command")
}

// awaitClose returns once the other end has closed a connection, or this one has.
func awaitClose(c *net.UnixConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, _ := unix.Poll(p, 0)
		return n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}

// A VMM knows no half-close, so that ends must be told apart from the connections it carries.
func TestHybridKeepsItsPromisesBehindAVMMThatIsAsStrictAsFirecracker(t *testing.T) {
	strict := func(t *testing.T) *link {
		g := startGuest(t, stream.PathRaw, tunnel.Config{})
		g.endpoint = startVMM(t, g.endpoint.Path)
		return startLink(t, g, tunnel.Config{})
	}
	t.Run("an answer after a half-close arrives", func(t *testing.T) { clientEndsFirst(t, strict(t)) })
	t.Run("a reset arrives", func(t *testing.T) { serviceResets(t, strict(t)) })
	t.Run("a port where nobody listens is named", func(t *testing.T) {
		at := startVMM(t, "")
		at.Port = 7
		if _, err := dialLink(t, at, tunnel.Config{}); err == nil || !strings.Contains(err.Error(), "refused port 7") {
			t.Errorf("%v, want an error that names the port", err)
		}
	})
}
