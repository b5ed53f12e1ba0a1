package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// client is a connection to the port on the host, of a thread that sleeps in the system calls
// themselves as most programs do. What a runtime adds is no part of what is measured.
type client struct{ fd int }

// dial connects, to a UDP port too, where nothing is sent by that.
func dial(proto string, timeout time.Duration) (client, error) {
	kind := unix.SOCK_STREAM
	if proto == "UDP" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return client{}, err
	}
	limit := unix.NsecToTimeval(timeout.Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} { // connect(2) heeds the latter
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit)
		}
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		_ = unix.Close(fd)
	}
	return client{fd}, err
}

func (c client) close() { _ = unix.Close(c.fd) }

// ask sends a byte and waits for one.
func (c client) ask() error {
	if _, err := unix.Write(c.fd, []byte{1}); err != nil {
		return err
	}
	_, err := c.read()
	return err
}

// read waits for a byte. It gives 0 at the end.
func (c client) read() (byte, error) {
	var b [1]byte
	n, err := unix.Read(c.fd, b[:])
	if err == nil && n == 0 {
		err = unix.ECONNRESET // an end where an answer was to come
	}
	return b[0], err
}

// asked tells whether the port answers now.
func asked() bool {
	c, err := dial("TCP", time.Second)
	if err != nil {
		return false
	}
	defer c.close()
	return c.ask() == nil
}

func refused() bool {
	c, err := dial("TCP", time.Second)
	if err != nil {
		return err == unix.ECONNREFUSED
	}
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	c.close()
	return false
}

// askedUDP waits a little for an answer, and asks on the same socket again, as clients do.
func askedUDP() bool {
	c, err := dial("UDP", 20*time.Millisecond)
	if err != nil {
		return false
	}
	defer c.close()
	for range 50 {
		if err := c.ask(); err == nil || err == unix.ECONNREFUSED {
			return err == nil
		}
	}
	return false
}

func refusedUDP() bool {
	c, err := dial("UDP", time.Second)
	if err != nil {
		return false
	}
	defer c.close()
	_, _ = unix.Write(c.fd, []byte{1})
	// The refusal of a port that is not there has arrived with the write.
	_, err = unix.Write(c.fd, []byte{1})
	return err == unix.ECONNREFUSED
}

// until asks until the client sees something, and returns when that was.
func until(seen func() bool, between time.Duration) (at time.Time, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Else each sleep of a thread may be 50 us longer (timer_slack_ns in kernel/time/hrtimer.c).
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return at, err
	}
	pause := unix.NsecToTimespec(between.Nanoseconds())
	for start := time.Now(); !seen(); {
		if time.Since(start) > patience {
			return at, errPatience
		}
		_ = unix.Nanosleep(&pause, nil)
	}
	return time.Now(), nil
}
