package remote

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
	"github.com/rum-vm/rum-agent/tunnel/mux"
)

// conn is a connection to a VM: a stream of the session, behind the request and the answer with which it begins.
type conn struct {
	*mux.Conn
	host string

	writing sync.Mutex
	request []byte // not sent yet; it goes with what is written first

	answered atomic.Bool
	reading  sync.Mutex // held while the answer is read
	answer   protocol.AnswerReader
	failed   error
}

func (c *conn) Write(b []byte) (int, error) {
	c.writing.Lock()
	before := c.request
	c.request = nil
	c.writing.Unlock()
	if before == nil {
		return c.Conn.Write(b)
	}
	n, err := c.Conn.Write(append(before, b...))
	return max(0, n-len(before)), err
}

func (c *conn) Read(b []byte) (int, error) {
	if err := c.awaitAnswer(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// awaitAnswer waits until the relay says that it has connected, or why not.
func (c *conn) awaitAnswer() error {
	if c.answered.Load() {
		return nil
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.answered.Load() || c.failed != nil {
		return c.failed
	}
	err := c.answer.Read(c.Conn)
	if err == nil {
		c.answered.Store(true)
		return nil
	}
	err = fmt.Errorf("on %s: %w", c.host, err)
	if _, refused := errors.AsType[*protocol.RefusedError](err); refused {
		c.failed = err
	}
	return err
}
