package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// floodRate is how many datagrams of floodBytes a second are sent one way.
	floodRate  = 100_000
	floodBytes = 200
	// queryRate is how many questions of queryBytes a second are asked, over queryFlows sockets.
	queryRate  = 10_000
	queryBytes = 48
	queryFlows = 16
	// settle is how long what is under way has to arrive.
	settle = time.Second
	// downloadBytes are fetched over HTTP/3.
	downloadBytes = 100_000_000
)

// http3Program is made of the module in the folder http3.
const http3Program = "rum-bench-http3"

// startHTTP3 starts the HTTP/3 server of a namespace.
func startHTTP3(in netns, bin string, p ports) (*process, error) {
	return startProcess(in.command(filepath.Join(bin, http3Program), "serve", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.http3)))...)
}

// datagrams measures what UDP is like: round trips beside those of TCP, many small datagrams one way, questions and
// answers, and a download over HTTP/3.
func datagrams(o options) measure {
	return func(ctx context.Context, t target) (sample, error) {
		if err := waitUDP(ctx, t.reply()); err != nil {
			return nil, err
		}
		s := make(sample)
		for _, m := range []func(context.Context, options, target, sample) error{bothTrips, flood, questions, download} {
			if err := m(ctx, o, t, s); err != nil {
				return nil, err
			}
		}
		return s, nil
	}
}

// waitUDP waits until datagrams are answered: UDP has no listener to look at that a relay's would not show too.
func waitUDP(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	conn, err := dialUDP(addr, 50*time.Millisecond)
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		if err = exchange(conn, make([]byte, messageBytes)); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("UDP is not answered after %v: %w", readyTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// dialUDP makes a socket whose reads fail after a while: a datagram may be lost.
func dialUDP(addr string, wait time.Duration) (blockingConn, error) {
	conn, err := net.Dial("udp4", addr)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	fd, err := blocking(conn.(*net.UDPConn))
	if err == nil {
		tv := unix.NsecToTimeval(wait.Nanoseconds())
		err = unix.SetsockoptTimeval(int(fd), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	}
	return fd, err
}

// bothTrips times round trips over UDP and over TCP, a socket of either in turns.
func bothTrips(ctx context.Context, o options, t target, s sample) error {
	var overUDP, overTCP []time.Duration
	each := (o.trips + rttConns - 1) / rttConns
	for range rttConns {
		if err := ctx.Err(); err != nil {
			return err
		}
		some, err := timeDatagrams(t.reply(), each)
		if err != nil {
			return fmt.Errorf("over UDP: %w", err)
		}
		overUDP = append(overUDP, some...)
		if some, err = timeConnection(t.reply(), placement{anywhere, anywhere}, each); err != nil {
			return err
		}
		overTCP = append(overTCP, some...)
	}
	slices.Sort(overUDP)
	slices.Sort(overTCP)
	s[udpP50], s[udpP99] = micros(percentile(overUDP, 50)), micros(percentile(overUDP, 99))
	s[besideP50] = micros(percentile(overTCP, 50))
	s[udpOverTCP] = s[udpP50] / s[besideP50]
	return nil
}

func timeDatagrams(addr string, count int) (times []time.Duration, err error) {
	conn, err := dialUDP(addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err = stayOn(anywhere); err == nil {
			times, err = timeExchanges(conn, make([]byte, messageBytes), count)
		}
	}()
	<-done
	return times, err
}

// flood sends datagrams at a steady rate to a service that counts them.
func flood(ctx context.Context, o options, t target, s sample) error {
	conn, err := dialUDP(t.source(), settle)
	if err != nil {
		return err
	}
	defer conn.Close()
	payload := make([]byte, floodBytes)
	sent, err := steadily(ctx, floodRate, o.seconds, func() error {
		_, err := conn.Write(payload)
		return err
	})
	if err != nil {
		return fmt.Errorf("datagrams one way: %w", err)
	}
	time.Sleep(settle)
	count := make([]byte, 8)
	for range 5 { // the question may be lost too
		if _, err = conn.Write(nil); err == nil {
			if _, err = conn.Read(count); err == nil {
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("ask how many datagrams have come: %w", err)
	}
	s[floodArrived] = float64(binary.NativeEndian.Uint64(count)) / float64(sent) * floodRate
	return nil
}

// steadily does something so many times a second, as many as are due each millisecond, and returns how often it was done.
func steadily(ctx context.Context, rate, seconds int, do func() error) (done int, err error) {
	start := time.Now()
	for all := rate * seconds; done < all; {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		due := min(all, int(time.Since(start).Seconds()*float64(rate)))
		for ; done < due; done++ {
			if err := do(); err != nil {
				return done, err
			}
		}
		time.Sleep(time.Millisecond)
	}
	return done, nil
}

// questions asks at a steady rate over several sockets, and counts the answers.
func questions(ctx context.Context, o options, t target, s sample) error {
	var conns []net.Conn
	var answered atomic.Int64
	var readers sync.WaitGroup
	defer readers.Wait()
	for range queryFlows {
		conn, err := net.Dial("udp4", t.reply())
		if err != nil {
			return err
		}
		defer conn.Close()
		conns = append(conns, conn)
		readers.Go(func() {
			for buf := make([]byte, queryBytes); ; {
				if _, err := conn.Read(buf); errors.Is(err, net.ErrClosed) {
					return
				} else if err == nil {
					answered.Add(1)
				}
			}
		})
	}
	question, next := make([]byte, queryBytes), 0
	asked, err := steadily(ctx, queryRate, o.seconds, func() error {
		next++
		_, err := conns[next%len(conns)].Write(question)
		return err
	})
	if err != nil {
		return fmt.Errorf("questions: %w", err)
	}
	time.Sleep(settle)
	s[queriesAnswered] = float64(answered.Load()) / float64(asked) * queryRate
	return nil
}

// download fetches a file over HTTP/3.
func download(ctx context.Context, o options, t target, s sample) error {
	out, err := output(ctx, filepath.Join(o.bin, http3Program), "get",
		net.JoinHostPort(t.host, strconv.Itoa(t.ports.http3)), strconv.Itoa(downloadBytes))
	if err != nil {
		return fmt.Errorf("HTTP/3: %w", err)
	}
	took, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		return fmt.Errorf("HTTP/3: %w", err)
	}
	s[http3Rate] = downloadBytes * 8 / 1e9 / took
	return nil
}

// serveDatagrams answers datagrams with what they are at one address, and at the other says how many a sender has sent
// since it last asked, which it does with an empty one.
func serveDatagrams(ctx context.Context, reply, count string) error {
	var group errgroup.Group
	for _, service := range []struct {
		addr   string
		answer func(from sender, b []byte) []byte
	}{{reply, func(_ sender, b []byte) []byte { return b }}, {count, counter()}} {
		addr, err := net.ResolveUDPAddr("udp4", service.addr)
		if err != nil {
			return err
		}
		conn, err := net.ListenUDP("udp4", addr)
		if err != nil {
			return err
		}
		fd, err := blocking(conn)
		conn.Close()
		if err != nil {
			return err
		}
		defer fd.Close()
		// As servers do that are sent many: a millisecond's worth at once is not to be lost here.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		}
		group.Go(func() error { return answerDatagrams(fd, service.answer) })
	}
	<-ctx.Done()
	return nil // the process ends, and with it who waits
}

// sender is where a datagram came from, as a key.
type sender struct {
	ip   [4]byte
	port int
}

func counter() func(from sender, b []byte) []byte {
	counts := make(map[sender]uint64)
	return func(from sender, b []byte) []byte {
		if len(b) > 0 {
			counts[from]++
			return nil
		}
		n := counts[from]
		delete(counts, from)
		return binary.NativeEndian.AppendUint64(nil, n)
	}
}

// answerDatagrams waits in recvfrom(2) itself, for what blockingConn says.
func answerDatagrams(conn blockingConn, answer func(from sender, b []byte) []byte) error {
	if err := stayOn(anywhere); err != nil {
		return err
	}
	for buf := make([]byte, 2048); ; {
		n, sa, err := unix.Recvfrom(int(conn), buf, 0)
		from, ok := sa.(*unix.SockaddrInet4)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN, err == nil && !ok:
			continue
		case err != nil:
			return fmt.Errorf("recvfrom: %w", err)
		}
		if b := answer(sender{from.Addr, from.Port}, buf[:n]); b != nil {
			_ = unix.Sendto(int(conn), b, 0, sa)
		}
	}
}
