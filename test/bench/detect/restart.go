package main

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// restarts stops a server and starts it again, each time with a request as soon as it
// listens, as the next command of a script does. It returns how long each was not served.
func restarts(guest *namespace, count int) (took times, err error) {
	var l net.Listener
	defer func() {
		if l != nil {
			_ = l.Close()
		}
	}()
	for i := range count {
		if l != nil {
			_ = l.Close()
		}
		mark := byte(i)
		err := guest.do(func() (err error) {
			l, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
			return err
		})
		if err != nil {
			return nil, err
		}
		start := time.Now()
		go answerWith(l, mark)
		var wrong error
		at, err := until(func() bool {
			got, err := answer()
			if err == nil && got != mark {
				wrong = fmt.Errorf("server %d was asked, and server %d has answered", mark, got)
			}
			return err == nil
		}, between)
		if err := errors.Join(err, wrong); err != nil {
			return nil, fmt.Errorf("a restarted server: %w", err)
		}
		took = append(took, at.Sub(start))
	}
	return took, nil
}

// answerWith answers each connection with a byte, and ends it.
func answerWith(l net.Listener, mark byte) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte{mark})
		_ = c.Close()
	}
}

func answer() (byte, error) {
	c, err := dial("TCP", time.Second)
	if err != nil {
		return 0, err
	}
	defer c.close()
	return c.read()
}

// later is how many took longer.
func (t times) later(than time.Duration) (n int) {
	for _, d := range t {
		if d > than {
			n++
		}
	}
	return n
}
