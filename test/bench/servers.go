package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
)

// ports are the services a client can reach in a namespace.
type ports struct {
	iperf  int // iperf3 -s
	echo   int // sends back what it gets; connections may stay idle
	source int // sends without end to whoever connects
	reply  int // sends back what it gets, as quickly as it can, to few at a time; over UDP too
	sink   int // takes what it is sent, and says at the end how much that was
	http3  int // over UDP; what else counts datagrams has the number of source
}

// servers are the running services in a namespace.
type servers struct {
	in    netns
	ports ports
	iperf *process
	echo  *process
	http3 *process // nil for none
}

// startServers starts every service in a namespace; the caller waits for them to listen.
func startServers(in netns, p ports) (*servers, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &servers{in: in, ports: p}
	if s.echo, err = startProcess(in.command(self, roleServe, strconv.Itoa(p.echo), strconv.Itoa(p.source), strconv.Itoa(p.reply), strconv.Itoa(p.sink))...); err != nil {
		return nil, err
	}
	if err := s.startIperf(); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *servers) startIperf() (err error) {
	s.iperf, err = startProcess(s.in.command("iperf3", "-s", "-B", "127.0.0.1", "-p", strconv.Itoa(s.ports.iperf))...)
	return err
}

// reset replaces the iperf3 server, which stays busy after a test that was cut off.
func (s *servers) reset() error {
	s.iperf.stop()
	return s.startIperf()
}

func (s *servers) stop() {
	for _, p := range []*process{s.iperf, s.echo, s.http3} {
		if p != nil {
			p.stop()
		}
	}
}

// serve is the program's role in the namespace of the servers.
func serve(ctx context.Context, args []string) error {
	handlers := []func(net.Conn){echo, func(c net.Conn) { source(c) }, reply, func(c net.Conn) { sink(c) }}
	if len(args) != len(handlers) {
		return fmt.Errorf("%w: %s ECHO-PORT SOURCE-PORT REPLY-PORT SINK-PORT", errUsage, roleServe)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, handle := range handlers {
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", args[i]))
		if err != nil {
			return err
		}
		defer l.Close()
		wg.Go(func() { acceptAll(l, handle) })
	}
	return serveDatagrams(ctx, net.JoinHostPort("127.0.0.1", args[2]), net.JoinHostPort("127.0.0.1", args[1]))
}

// acceptAll serves every connection until the listener closes; connections end with the process.
func acceptAll(l net.Listener, handle func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go handle(conn)
		}
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 256) // small, because ten thousand of these wait at once
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

func source(conn io.ReadWriteCloser) {
	defer conn.Close()
	buf := make([]byte, 64<<10)
	for {
		if _, err := conn.Write(buf); err != nil {
			return
		}
	}
}

// sink answers the end of what it was sent with how many bytes that was.
func sink(conn io.ReadWriteCloser) {
	defer conn.Close()
	buf := make([]byte, 64<<10)
	for total := uint64(0); ; {
		n, err := conn.Read(buf)
		total += uint64(n)
		if err == io.EOF {
			_, _ = conn.Write(binary.NativeEndian.AppendUint64(nil, total))
		}
		if err != nil {
			return
		}
	}
}
