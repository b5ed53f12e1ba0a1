package main

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/portwatch"
)

// dumps measures looks at everything beside so many sockets as few machines have.
func dumps(n *namespace) error {
	const descriptors = 100_000
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: descriptors, Max: descriptors}); err != nil {
		return fmt.Errorf("allow %d descriptors: %w", descriptors, err)
	}
	fmt.Printf("  %-58s %8s %8s %8s %8s\n", "a look at everything, ms", "p50", "p90", "p99", "max")
	for _, beside := range []struct {
		what string
		open func(*opened) error
	}{
		{"50,000 established connections and 500 listeners", func(o *opened) error { return o.tcp(25_000, 500) }},
		{"15,000 bound UDP sockets", func(o *opened) error { return o.udp(15_000) }},
	} {
		var open opened
		var took times
		err := n.do(func() error {
			defer open.close()
			if err := beside.open(&open); err != nil {
				return err
			}
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
		if err != nil {
			return fmt.Errorf("%s: %w", beside.what, err)
		}
		fmt.Printf("  %-58s %s\n", beside.what, took)
	}
	return nil
}

// opened are sockets that are to be closed.
type opened []interface{ Close() error }

func (o *opened) close() {
	for _, c := range *o {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // leaves nothing in TIME_WAIT
		}
		_ = c.Close()
	}
}

func (o *opened) tcp(connections, listeners int) error {
	var l net.Listener
	for i := range listeners {
		var err error
		if l, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", 10_000+i)); err != nil {
			return err
		}
		*o = append(*o, l)
	}
	for range connections {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return err
		}
		*o = append(*o, c)
		if c, err = l.Accept(); err != nil {
			return err
		}
		*o = append(*o, c)
	}
	return nil
}

func (o *opened) udp(sockets int) error {
	for i := range sockets {
		c, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", 10_000+i))
		if err != nil {
			return err
		}
		*o = append(*o, c)
	}
	return nil
}
