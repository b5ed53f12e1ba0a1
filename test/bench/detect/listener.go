package main

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// listener is a TCP server of one thread, which sleeps in the system calls themselves as the client's does.
type listener struct {
	epoll int

	mu sync.Mutex
	fd int // -1 once closed
}

// listenTCP opens the port, and tells when that was.
func listenTCP() (l *listener, at time.Time, err error) {
	l = &listener{}
	if l.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, at, err
	}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		err = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(l.fd, &unix.SockaddrInet4{Port: port})
	}
	if err != nil {
		return nil, at, err
	}
	go l.serve()
	err = unix.Listen(l.fd, unix.SOMAXCONN)
	at = time.Now()
	if err == nil {
		err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.fd, &unix.EpollEvent{Events: unix.EPOLLIN})
	}
	return l, at, err
}

// closedWithin is how soon the thread sees that the listener is closed, in milliseconds. To be told would take time
// of what is measured then.
const closedWithin = 100

// serve answers each request with what it got, until the listener is closed.
func (l *listener) serve() {
	runtime.LockOSThread() // never unlocked, so that the thread ends too
	defer unix.Close(l.epoll)
	var events [1]unix.EpollEvent
	for {
		_, _ = unix.EpollWait(l.epoll, events[:], closedWithin)
		c, err := l.accept()
		if err != nil {
			return
		}
		if c.fd >= 0 {
			if b, err := c.read(); err == nil {
				_, _ = unix.Write(c.fd, []byte{b})
			}
			c.close()
		}
	}
}

// accept takes the next connection, without a descriptor if there is none.
func (l *listener) accept() (client, error) {
	l.mu.Lock() // the number may be another's once it is closed
	defer l.mu.Unlock()
	if l.fd < 0 {
		return client{}, unix.EBADF
	}
	fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return client{-1}, nil
	}
	limit := unix.NsecToTimeval(time.Second.Nanoseconds())
	return client{fd}, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
}

// Close closes the port, and ends the thread.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fd := l.fd
	l.fd = -1
	return unix.Close(fd)
}
