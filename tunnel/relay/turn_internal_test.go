package relay

import (
	"net"
	"testing"
	"time"
)

// TestALoopThatIsStuckTakesNoTurn has a loop that serves a client, and does not return.
func TestALoopThatIsStuckTakesNoTurn(t *testing.T) {
	Turn()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	a, err := NewAcceptor(l)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	serving, goOn := make(chan struct{}), make(chan struct{})
	serve := func(c *Client) {
		close(serving)
		<-goOn
		_ = c.Conn().Close()
	}
	if err := a.Serve(serve, func(error) {}, func(error) {}); err != nil {
		t.Fatal(err)
	}
	Turn()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-serving
	turned := make(chan struct{})
	go func() { defer close(turned); Turn() }()
	select {
	case <-turned:
		t.Error("a loop that is stuck took a turn")
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	<-turned
}
