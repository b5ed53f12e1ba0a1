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
	connections := []sockets{ // by a process each, which may not have as many descriptors as all take
		{pairs: 6250, listeners: 125, port: 10_000}, {pairs: 6250, listeners: 125, port: 10_125},
		{pairs: 6250, listeners: 125, port: 10_250}, {pairs: 6250, listeners: 125, port: 10_375},
	}
	datagrams := []sockets{{udp: 15_000, port: 10_000}}
	var s portwatch.Scanner // its socket is of the namespace of the first thread that uses it
	defer s.Close()
	scan := func() error {
		_, err := s.Scan()
		return err
	}
	dump := func() error {
		_, err := portwatch.LookUDPSockets()
		return err
	}
	for _, row := range []struct {
		beside string
		held   []sockets
		look   func() error
	}{
		{"50,000 established connections and 500 listeners", connections, scan},
		{"15,000 bound UDP sockets", datagrams, dump},
		{"15,000 bound UDP sockets, with their programs' names", datagrams, scan},
	} {
		took, err := looks(n, row.held, row.look)
		if err != nil {
			return fmt.Errorf("%s: %w", row.beside, err)
		}
		fmt.Printf("  %-58s %s\n", row.beside, took)
	}
	return nil
}

// looks measures something in the namespace while processes there hold sockets.
func looks(n *namespace, held []sockets, look func() error) (took times, err error) {
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
		for range 50 {
			start := time.Now()
			if err := look(); err != nil {
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
