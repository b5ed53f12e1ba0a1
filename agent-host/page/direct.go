package page

import (
	"bufio"
	"context"
	"errors"
	"strings"
	"time"
)

const (
	// maxDirectHead is the most that the head of a request may have that is answered directly, in bytes, and
	// maxDirectAnswer that an answer may, with its body.
	maxDirectHead   = 8 << 10
	maxDirectAnswer = 16 << 10
	// directWithin is how long a service has to be connected to, and for such an answer. Whether the client goes away is
	// not seen meanwhile.
	directWithin = 100 * time.Millisecond
)

// direct answers what a client asks first on its connection, while that is plain and the service answers at once. What
// it reads besides, which is returned, is the server's, and with it the connection.
func (p *Page) direct(ctx context.Context, c *client) (unread []byte, err error) {
	return (&direct{page: p, client: c, in: bufio.NewReaderSize(c.socket, maxDirectHead)}).serve(ctx)
}

// direct answers the requests of a client without a [net/http.Server] and a proxy, who make objects of each request and
// answer, and watch the client from another goroutine: for a small one that is half of the time. Nothing of an answer is
// passed on before all of it is there. So what is not plain, late or wrong is left to the server as if nothing had been
// done yet, but that the service was asked.
type direct struct {
	page   *Page
	client *client
	in     *bufio.Reader
	out    []byte // for the service or the client
}

var errNotPlain = errors.New("not plain")

// serve answers until there is a request that it leaves to the server.
func (d *direct) serve(ctx context.Context) (unread []byte, err error) {
	for {
		if _, err := d.in.Peek(1); err != nil {
			return nil, err
		}
		unread, _ = d.in.Peek(d.in.Buffered())
		head := headOf(unread)
		service, err := d.ask(ctx, head)
		if err == nil {
			err = d.receive(service)
		}
		if err != nil {
			d.client.setAsked(service)
			// The rest of a head has the time from here on.
			return unread, d.client.SetReadDeadline(time.Now().Add(headWithin))
		}
		d.client.give(service)
		if _, err := d.client.Write(d.out); err != nil {
			return nil, err
		}
		_, _ = d.in.Discard(len(head))
		if err := d.client.SetReadDeadline(time.Now().Add(idleClient)); err != nil {
			return nil, err
		}
	}
}

// ask sends a request to the service that it is for.
func (d *direct) ask(ctx context.Context, head []byte) (*kept, error) {
	sent, host, ok := plainRequest(d.out[:0], head)
	if !ok {
		return nil, errNotPlain
	}
	d.out = sent
	name, named := strings.CutSuffix(strings.ToLower(string(host)), d.page.suffix)
	if !named {
		return nil, errNotPlain
	}
	key, connect := d.page.destination(d.client, name)
	if connect == nil {
		return nil, errNotPlain
	}
	c := d.client.take(key)
	if c == nil {
		ctx, cancel := context.WithTimeout(ctx, directWithin)
		defer cancel()
		conn, err := connect(ctx)
		if err != nil {
			return nil, err
		}
		c = newKept(conn, key)
	}
	if err := c.SetDeadline(time.Now().Add(directWithin)); err != nil {
		_ = c.Close()
		return nil, err
	}
	if _, err := c.Write(sent); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// receive has the whole answer to what a service was asked in d.out, or leaves all of it to be read.
func (d *direct) receive(c *kept) error {
	c.limit.N = maxHeader
	var head []byte
	for head == nil {
		if _, err := c.r.Peek(c.r.Buffered() + 1); err != nil {
			return err
		}
		b, _ := c.r.Peek(c.r.Buffered())
		head = headOf(b)
	}
	sent, length, ok := plainAnswer(d.out[:0], head)
	if !ok {
		return errNotPlain
	}
	whole := len(head) + length
	if length == inChunks {
		b, _ := c.r.Peek(c.r.Buffered())
		n, ok := chunked(b[len(head):])
		if !ok {
			return errNotPlain
		}
		whole = len(head) + n
	}
	if whole > maxDirectAnswer {
		return errNotPlain
	}
	b, err := c.r.Peek(whole)
	if err != nil {
		return err
	}
	d.out = append(sent, b[len(head):]...)
	_, _ = c.r.Discard(whole)
	return nil
}
