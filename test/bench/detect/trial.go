package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"time"
)

const (
	port = 8080
	// between is the time from one try of the client to the next.
	between = 100 * time.Microsecond
	// patience is how long a trial may take.
	patience = 10 * time.Second
)

var errPatience = errors.New("waited in vain")

// trial opens a port in the guest and closes it again, and measures how long each took
// to be seen from the host.
type trial struct {
	proto string
	run   func() (opened, closed time.Duration, err error)
}

// pauseBetween lets the agents rest between two trials, for a time that has nothing to
// do with the clock that one of them may look by.
func pauseBetween() {
	time.Sleep(40*time.Millisecond + time.Duration(rand.N(int64(100*time.Millisecond))))
}

func tcpTrial(guest *namespace) trial {
	return trial{"TCP", func() (opened, closed time.Duration, err error) {
		var l net.Listener
		var start time.Time
		err = guest.do(func() (err error) {
			l, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
			start = time.Now()
			return err
		})
		if err != nil {
			return 0, 0, err
		}
		go answerAll(l)
		for !asked() {
			if time.Since(start) > patience {
				return 0, 0, fmt.Errorf("TCP: %w for an answer", errPatience)
			}
			time.Sleep(between)
		}
		opened = time.Since(start)
		pauseBetween()
		if err := l.Close(); err != nil {
			return 0, 0, err
		}
		start = time.Now()
		for !refused() {
			if time.Since(start) > patience {
				return 0, 0, fmt.Errorf("TCP: %w for a refusal", errPatience)
			}
			time.Sleep(between)
		}
		return opened, time.Since(start), nil
	}}
}

func answerAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var b [1]byte
			if _, err := c.Read(b[:]); err == nil {
				_, _ = c.Write(b[:])
			}
		}()
	}
}

func dial() (net.Conn, error) {
	return net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
}

func asked() bool {
	c, err := dial()
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	b := []byte{1}
	if _, err := c.Write(b); err != nil {
		return false
	}
	_, err = c.Read(b)
	return err == nil
}

func refused() bool {
	c, err := dial()
	if err == nil {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func udpTrial(guest *namespace) trial {
	return trial{"UDP", func() (opened, closed time.Duration, err error) {
		var server net.PacketConn
		var start time.Time
		err = guest.do(func() (err error) {
			server, err = net.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
			start = time.Now()
			return err
		})
		if err != nil {
			return 0, 0, err
		}
		go func() {
			b := make([]byte, 16)
			for {
				n, from, err := server.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = server.WriteTo(b[:n], from)
			}
		}()
		c, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return 0, 0, err
		}
		defer c.Close()
		b := []byte{1}
		for {
			_, err := c.Write(b)
			if err == nil {
				_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				if _, err = c.Read(b); err == nil {
					break
				}
			}
			if time.Since(start) > patience {
				return 0, 0, fmt.Errorf("UDP: %w for an answer: %w", errPatience, err)
			}
			time.Sleep(between)
		}
		opened = time.Since(start)
		pauseBetween()
		if err := server.Close(); err != nil {
			return 0, 0, err
		}
		start = time.Now()
		for {
			c, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return 0, 0, err
			}
			_, _ = c.Write(b)
			// The refusal of a port that is not there has arrived with the write.
			_, err = c.Write(b)
			_ = c.Close()
			if errors.Is(err, syscall.ECONNREFUSED) {
				return opened, time.Since(start), nil
			}
			if time.Since(start) > patience {
				return 0, 0, fmt.Errorf("UDP: %w for a refusal", errPatience)
			}
			time.Sleep(between)
		}
	}}
}

// times are what was measured.
type times []time.Duration

func (t times) at(part float64) float64 {
	s := slices.Sorted(slices.Values(t))
	if len(s) == 0 {
		return 0
	}
	return float64(s[min(int(part*float64(len(s))), len(s)-1)].Microseconds()) / 1000
}

func (t times) String() string {
	return fmt.Sprintf("%8.2f %8.2f %8.2f %8.2f", t.at(0.5), t.at(0.9), t.at(0.99), t.at(1))
}

func (t times) short() string {
	return fmt.Sprintf("%.2f/%.2f/%.2f", t.at(0.5), t.at(0.99), t.at(1))
}

// control measures how late this machine is at what it is asked for.
type control struct {
	quit chan struct{}
	late chan times
}

func startControl() control {
	c := control{make(chan struct{}), make(chan times)}
	go func() {
		var late times
		for {
			select {
			case <-c.quit:
				c.late <- late
				return
			default:
			}
			start := time.Now()
			time.Sleep(time.Millisecond)
			late = append(late, time.Since(start)-time.Millisecond)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return c
}

func (c control) stop() times {
	close(c.quit)
	return <-c.late
}
