package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// line is what is between ssh and sshd. Either direction can be held: what has come waits there.
type line struct {
	mu   sync.Mutex
	free sync.Cond
	held map[direction]bool
}

type direction bool

const (
	towards direction = false // the server
	back    direction = true
)

// newLine has the ssh of a host connect through a line.
func newLine(t *testing.T) *line {
	t.Helper()
	l := &line{held: make(map[direction]bool)}
	l.free.L = &l.mu
	in, err := net.Listen("tcp", "127.0.0.1:2223")
	if err != nil {
		t.Fatal(err)
	}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", "127.0.0.1:2222")
			if err != nil {
				_ = c.Close()
				continue
			}
			for d, way := range map[direction][2]net.Conn{towards: {c, s}, back: {s, c}} {
				passing.Go(func() { l.pass(d, way[0], way[1]) })
			}
		}
	})
	t.Cleanup(func() { _ = in.Close(); l.hold(towards, false); l.hold(back, false); passing.Wait() })
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nexec %s -o Port=2223 -o 'HostKeyAlias=[127.0.0.1]:2222' \"$@\"\n", ssh)
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return l
}

func (l *line) pass(d direction, from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		l.mu.Lock()
		for l.held[d] {
			l.free.Wait()
		}
		l.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *line) hold(d direction, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[d] = held
	l.free.Broadcast()
}

// ssh -L takes two round trips for this. Here nothing comes back until the request is there, and nothing goes there any more until the answer
// is back: on the first connection, on one that is prepared, on those that have carried others, and on more at once than are kept.
func TestANewConnectionToAnotherHostTakesOneRoundTrip(t *testing.T) {
	r := newRemoteHost(t)
	l := newLine(t)
	g := newGuest(t, "dev")
	r.add(t, g)
	arrived := make(chan string, 100)
	service := g.listen(t, "0.0.0.0:8081")
	serveEach(service, func(c net.Conn) {
		question := make([]byte, len("question 00"))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		arrived <- string(question)
		_, _ = io.WriteString(c, "answer")
		_, _ = io.Copy(io.Discard, c)
	})
	h := r.serve(t)
	h.awaitForward(t, "server/dev", 8081, "active", active)
	for round, n := range []int{1, 1, 1, 40, 5} {
		l.hold(back, true)
		conns := make([]net.Conn, n)
		for i := range conns {
			c, err := net.Dial("tcp", "127.0.0.1:8081")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := fmt.Fprintf(c, "question %02d", i); err != nil {
				t.Fatal(err)
			}
			conns[i] = c
		}
		for i := range conns {
			select {
			case <-arrived:
			case <-time.After(20 * time.Second):
				t.Fatalf("round %d: %d of %d requests are there before anything came back", round, i, n)
			}
		}
		l.hold(towards, true)
		l.hold(back, false)
		for i, c := range conns {
			got := make([]byte, len("answer"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "answer" {
				t.Fatalf("round %d: answer %d is %q, %v, and nothing more has gone there", round, i, got, err)
			}
		}
		l.hold(towards, false)
		for _, c := range conns {
			_ = c.(*net.TCPConn).CloseWrite()
			if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
				t.Fatalf("round %d: a connection ends with %q, %v", round, rest, err)
			}
		}
	}
}
