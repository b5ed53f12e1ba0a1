package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// messageBytes is the size of a round trip's message, either way.
const messageBytes = 64

// rttConns is over how many connections, one after the other, round trips are spread: where the kernel puts the
// threads decides most of a round trip's time, and tends to stay for the life of a connection.
const rttConns = 20

// placement says where the two ends of a connection run: the index of a processor, or anywhere.
type placement struct{ client, server byte }

const anywhere = 0xff

// roundTrips measures latency on established connections, with the ends where the kernel puts them, and with both on one
// processor and on two.
func roundTrips(o options) measure {
	return func(ctx context.Context, t target) (sample, error) {
		times, err := timeRoundTrips(ctx, t, placement{anywhere, anywhere}, o.trips)
		if err != nil {
			return nil, err
		}
		s := sample{rttP50: micros(percentile(times, 50)), rttP99: micros(percentile(times, 99))}
		if o.cid != 0 {
			return s, nil // the server's processors may be other ones
		}
		for m, at := range map[metric]placement{rttOneCPU: {0, 0}, rttTwoCPUs: {0, 1}} {
			if times, err = timeRoundTrips(ctx, t, at, o.trips); err != nil {
				return nil, err
			}
			s[m] = micros(percentile(times, 50))
		}
		return s, nil
	}
}

// timeRoundTrips makes at least count round trips and returns their times, shortest first.
func timeRoundTrips(ctx context.Context, t target, at placement, count int) ([]time.Duration, error) {
	var times []time.Duration
	for range rttConns {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		some, err := timeConnection(t.reply(), at, (count+rttConns-1)/rttConns)
		if err != nil {
			return nil, err
		}
		times = append(times, some...)
	}
	slices.Sort(times)
	return times, nil
}

// timeConnection makes count round trips on one connection, after some that do not count.
func timeConnection(addr string, at placement, count int) (times []time.Duration, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err = stayOn(at.client); err == nil {
			times, err = timeHere(addr, at.server, count)
		}
	}()
	<-done
	return times, err
}

func timeHere(addr string, server byte, count int) ([]time.Duration, error) {
	conn, err := dialBlocking(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	msg := make([]byte, messageBytes)
	msg[0] = server
	return timeExchanges(conn, msg, count)
}

// timeExchanges makes count round trips, after some that do not count.
func timeExchanges(conn blockingConn, msg []byte, count int) ([]time.Duration, error) {
	for range 20 {
		if err := exchange(conn, msg); err != nil {
			return nil, err
		}
	}
	times := make([]time.Duration, count)
	for i := range times {
		start := time.Now()
		if err := exchange(conn, msg); err != nil {
			return nil, err
		}
		times[i] = time.Since(start)
	}
	return times, nil
}

// reply is an echo that runs where the first byte of a connection says.
func reply(accepted net.Conn) {
	conn, err := blocking(accepted.(*net.TCPConn))
	accepted.Close()
	if err == nil {
		replyBlocking(conn)
	}
}

func replyBlocking(conn blockingConn) {
	defer conn.Close()
	buf := make([]byte, messageBytes)
	n, err := conn.Read(buf)
	if err != nil || stayOn(buf[0]) != nil {
		return
	}
	for err == nil {
		if _, err = conn.Write(buf[:n]); err == nil {
			n, err = conn.Read(buf)
		}
	}
}

// stayOn keeps the calling goroutine on one processor, of those the program may use, for the rest of its life, or just on a
// thread of its own.
func stayOn(index byte) error {
	runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
	if index == anywhere {
		return nil
	}
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	for cpu, left := 0, int(index)%all.Count(); ; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if left == 0 {
			one.Set(cpu)
			break
		}
		left--
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	return nil
}

// blockingConn waits in read(2) itself, as most programs that take turns do. Through Go's poller either end would wake the
// runtime's monitor for every message once a round trip takes longer than about 10 us: a cost of the ends, which
// comes to more than the way between them and which loopback is just quick enough to escape.
type blockingConn int

func dialBlocking(addr string) (blockingConn, error) {
	if strings.HasPrefix(addr, vsockScheme) {
		return dialVsock(addr)
	}
	conn, err := net.DialTimeout("tcp4", addr, 10*time.Second)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	return blocking(conn.(*net.TCPConn))
}

// blocking makes a blocking descriptor of a connection, which is still to be closed. Go has set TCP_NODELAY on one of TCP.
func blocking(conn syscall.Conn) (blockingConn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	controlErr := raw.Control(func(shared uintptr) {
		if fd, err = unix.FcntlInt(shared, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, false)
		}
	})
	if err == nil {
		err = controlErr
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30})
	}
	return blockingConn(fd), err
}

func (c blockingConn) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(c), b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (c blockingConn) Write(b []byte) (int, error) {
	n, err := unix.Write(int(c), b)
	return max(n, 0), err
}

func (c blockingConn) Close() error { return unix.Close(int(c)) }

// exchange sends msg to an echo service and waits for all of it.
func exchange(conn io.ReadWriter, msg []byte) error {
	if _, err := conn.Write(msg); err != nil {
		return fmt.Errorf("round trip: %w", err)
	}
	if _, err := io.ReadFull(conn, msg); err != nil {
		return fmt.Errorf("round trip: %w", err)
	}
	return nil
}

// percentile of sorted times, by nearest rank.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
