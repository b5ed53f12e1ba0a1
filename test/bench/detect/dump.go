package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/portwatch"
)

// sockets are what a process holds open: pairs of connected ones and so many listeners from
// a port on, and UDP sockets from that port on.
type sockets struct{ pairs, listeners, udp, port int }

// dumps measures looks at everything beside so many sockets as few machines have.
func dumps(n *namespace) error {
	fmt.Printf("  %-58s %8s %8s %8s %8s\n", "a look at everything, ms", "p50", "p90", "p99", "max")
	for _, beside := range []struct {
		what string
		held []sockets // by a process each, which may not have as many descriptors as all take
	}{
		{"50,000 established connections and 500 listeners", []sockets{
			{pairs: 6250, listeners: 125, port: 10_000}, {pairs: 6250, listeners: 125, port: 10_125},
			{pairs: 6250, listeners: 125, port: 10_250}, {pairs: 6250, listeners: 125, port: 10_375},
		}},
		{"15,000 bound UDP sockets", []sockets{{udp: 15_000, port: 10_000}}},
	} {
		took, err := scans(n, beside.held)
		if err != nil {
			return fmt.Errorf("%s: %w", beside.what, err)
		}
		fmt.Printf("  %-58s %s\n", beside.what, took)
	}
	return nil
}

// scans measures looks at everything while processes in the namespace hold sockets.
func scans(n *namespace, held []sockets) (took times, err error) {
	var holders []*holder
	defer func() {
		for _, h := range holders {
			err = errors.Join(err, h.stop())
		}
	}()
	for _, s := range held {
		h, err := startHolder(n, s)
		if err != nil {
			return nil, err
		}
		holders = append(holders, h)
	}
	return took, n.do(func() error {
		var s portwatch.Scanner // its socket is of the namespace of this thread
		defer s.Close()
		for range 50 {
			start := time.Now()
			if _, err := s.Scan(); err != nil {
				return err
			}
			took = append(took, time.Since(start))
		}
		return nil
	})
}

// holder is this program as a process that holds sockets until its input ends.
type holder struct {
	cmd   *exec.Cmd
	input io.Closer
}

func startHolder(n *namespace, s sockets) (*holder, error) {
	cmd := exec.Command("/proc/self/exe", fmt.Sprintf("--hold=%d,%d,%d,%d", s.pairs, s.listeners, s.udp, s.port))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.do(cmd.Start); err != nil {
		return nil, err
	}
	h := &holder{cmd, in}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("hold sockets: %w", err), h.stop())
	}
	return h, nil
}

func (h *holder) stop() error {
	_ = h.input.Close()
	return h.cmd.Wait()
}

// hold opens sockets, says so on standard output, and holds them until standard input ends.
func hold(order string) error {
	var s sockets
	if _, err := fmt.Sscanf(order, "%d,%d,%d,%d", &s.pairs, &s.listeners, &s.udp, &s.port); err != nil {
		return err
	}
	limit := uint64(2*s.pairs + s.listeners + s.udp + 100)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("allow %d descriptors: %w", limit, err)
	}
	open, err := s.open()
	if err != nil {
		return err
	}
	fmt.Println("open")
	_, err = io.Copy(io.Discard, os.Stdin)
	for _, c := range open {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // leaves nothing in TIME_WAIT
		}
		_ = c.Close()
	}
	return err
}

func (s sockets) open() (all []io.Closer, err error) {
	var l net.Listener
	for i := range s.listeners {
		if l, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", s.port+i)); err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	for range s.pairs {
		near, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return nil, err
		}
		far, err := l.Accept()
		if err != nil {
			return nil, err
		}
		all = append(all, near, far)
	}
	for i := range s.udp {
		c, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", s.port+i))
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}
