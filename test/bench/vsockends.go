package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// endsOffset is what is added to a service's port for where it listens over AF_VSOCK itself, with no relay before it.
const endsOffset = 10_000

// vsockScheme begins the address of a service that is reached over AF_VSOCK itself.
const vsockScheme = "vsock:"

// vsockBuffer is what the bare ends ask for, as the agents do.
const vsockBuffer = 1 << 20

// dialVsock connects to a service's own listener: addr is vsock:CID:PORT.
func dialVsock(addr string) (blockingConn, error) {
	host, service, err := net.SplitHostPort(strings.TrimPrefix(addr, vsockScheme))
	if err != nil {
		return -1, err
	}
	cid, cidErr := strconv.ParseUint(host, 10, 32)
	port, portErr := strconv.ParseUint(service, 10, 32)
	if err := errors.Join(cidErr, portErr); err != nil {
		return -1, err
	}
	fd, err := vsockSocket()
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: uint32(cid), Port: uint32(port) + endsOffset}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return blockingConn(fd), nil
}

func vsockSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	for _, option := range []int{unix.SO_VM_SOCKETS_BUFFER_MAX_SIZE, unix.SO_VM_SOCKETS_BUFFER_SIZE} {
		if err := unix.SetsockoptUint64(fd, unix.AF_VSOCK, option, vsockBuffer); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("setsockopt: %w", err)
		}
	}
	return fd, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30})
}

// serveEnds has services be reached over AF_VSOCK itself.
func serveEnds(p ports) error {
	for port, handle := range map[int]func(blockingConn){
		p.source: func(c blockingConn) { source(c) }, p.sink: func(c blockingConn) { sink(c) }, p.reply: replyBlocking,
	} {
		fd, err := vsockSocket()
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: uint32(port + endsOffset)})
		}
		if err == nil {
			err = unix.Listen(fd, 16)
		}
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{})
		}
		if err != nil {
			return fmt.Errorf("listen at vsock port %d: %w", port+endsOffset, err)
		}
		go func() {
			for {
				conn, _, err := unix.Accept(fd)
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				go handle(blockingConn(conn))
			}
		}()
	}
	return nil
}
