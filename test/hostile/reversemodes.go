package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"time"
)

// What a guest can do with a port of the host that a rule gives to it.

const reversePort = 6500

var reverseRule = fmt.Sprintf("[[forward]]\nguest = %d\nhost = %d\nvm = \"evil\"\nreverse = true\n", reversePort, reversePort)

// reverseStream is what opens a stream to that port. IDs are even.
func reverseStream(id uint32) []byte {
	b := append(number(1<<63|uint64(id)), number(1)...)
	return mux(muxData, muxSYN, id, uint32(len(b)), b)
}

func reverseModes() []mode {
	return []mode{
		{name: "reverse refused", endpoint: many, polite: true, rules: reverseRule, session: manyReverse, sink: chunk},
		{name: "reverse churn", endpoint: many, polite: true, rules: reverseRule, session: func(s *session) {
			_ = discard()
			manyReverse(s)
		}, sink: chunk},
		{name: "thin data", endpoint: many, polite: true, rules: reverseRule, session: func(s *session) {
			_ = discard()
			_, _ = s.conn.Write(reverseStream(2))
			time.Sleep(100 * time.Millisecond) // the host connects
			s.thin(2)
		}, sink: chunk},
	}
}

// manyReverse opens one after the other, and ends each when there are a hundred.
func manyReverse(s *session) {
	for id := uint32(2); ; id += 2 {
		b := reverseStream(id)
		if id > 200 {
			b = append(b, mux(muxWindow, muxRST, id-200, 0, nil)...)
		}
		if _, err := s.conn.Write(b); err != nil {
			return
		}
	}
}

// thin sends data on a stream, a byte in each frame, as fast as it is taken; what comes
// back is taken too.
func (s *session) thin(id uint32) {
	const turn, window = 2000, 200_000
	b := append(bytes.Repeat(mux(muxData, 0, id, 1, []byte{'x'}), turn), mux(muxWindow, 0, id, turn, nil)...)
	for sent := 0; ; sent += turn {
		if _, err := s.conn.Write(b); err != nil {
			return
		}
		s.mu.Lock()
		for sent-s.granted[id] > window && !s.ended {
			s.more.Wait()
		}
		s.mu.Unlock()
	}
}

// discard is the service of the host, which reads.
func discard() error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", reversePort))
	if err != nil {
		return err // from a link before
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
		}
	}()
	return nil
}
