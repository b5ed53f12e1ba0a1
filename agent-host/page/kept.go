package page

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay/sockio"
)

// plain passes on requests that want an answer and no more, which are most. It asks and reads in the goroutine of
// whoever wants to know: in an [http.Transport] two others have each connection, and a request wakes them three
// times, which for small answers takes longer than all else. What they are for is to watch connections that
// wait for a request, so these wait for keptFor only.
//
// A connection to a service is its client's alone: what a service sends behind an answer a moment later would be taken
// for that to another client's request, and the answer to that for the next. [direct] asks on the same ones.
type plain struct{}

// keptFor is less than the time after which servers say that they waited in vain, which would be taken for the answer
// to what is asked next.
const keptFor = time.Second

// isPlain reports whether a request is one of those. To HEAD some servers send a body, which would be taken for an
// answer too.
func isPlain(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.Method == http.MethodGet && (r.Body == nil || r.Body == http.NoBody) && r.Header.Get("Upgrade") == ""
}

// kept is a connection to a service, which is kept for the next request.
type kept struct {
	net.Conn
	key   string
	limit io.LimitedReader // of what is read
	r     *bufio.Reader
	w     *bufio.Writer
	used  bool      // it has brought an answer
	since time.Time // when it began to wait for another request
}

func newKept(conn net.Conn, key string) *kept {
	c := &kept{Conn: conn, key: key, limit: io.LimitedReader{R: conn}, w: bufio.NewWriter(conn)}
	c.r = bufio.NewReaderSize(&c.limit, maxDirectAnswer)
	return c
}

// quiet reports whether the service has neither ended the connection nor said anything since its last answer, which
// would be taken for the next.
func (c *kept) quiet() bool {
	switch conn := c.Conn.(type) {
	case interface{ Quiet() bool }:
		return conn.Quiet()
	case sockio.Socket:
		return sockio.New(conn).Quiet()
	}
	return false
}

var (
	errUnasked  = errors.New("the service changes to a protocol that nobody asked for")
	errTooLarge = fmt.Errorf("its header is larger than %d MiB", maxHeader>>20)
)

// RoundTrip makes it an [http.RoundTripper].
func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	d, client := destinationOf(r.Context()), clientOf(r.Context())
	c := client.takeAsked()
	if c != nil && c.key != d.key {
		_ = c.Close() // rules have changed meanwhile
		c = nil
	}
	for asked := c != nil; ; asked = false {
		if c == nil {
			c = client.take(d.key)
		}
		if c == nil {
			conn, err := d.connect(r.Context())
			if err != nil {
				return nil, err
			}
			c = newKept(conn, d.key)
		}
		// The service may still end one meanwhile that it has answered on.
		res, err := p.ask(c, r, asked)
		if err == nil || !c.used || r.Context().Err() != nil || errors.Is(err, errTooLarge) {
			return res, err
		}
		c = nil
	}
}

// ask sends a request, unless c was asked it already, and reads the header of its answer, at the end of whose body c waits
// for another request, or is closed.
func (p plain) ask(c *kept, r *http.Request, asked bool) (res *http.Response, err error) {
	stop := context.AfterFunc(r.Context(), func() { _ = c.Close() })
	defer func() {
		if err != nil {
			stop()
			_ = c.Close()
		}
	}()
	c.limit.N = maxHeader
	err = c.SetDeadline(time.Time{}) // it may have that of a direct request
	if err == nil && !asked {
		if err = r.Write(c.w); err == nil {
			err = c.w.Flush()
		}
	}
	if err != nil {
		return nil, err
	}
	half := &destinationOf(r.Context()).half
	half.asked(c.Conn)
	trace := httptrace.ContextClientTrace(r.Context())
	for {
		if res, err = http.ReadResponse(c.r, r); err != nil && c.limit.N <= 0 {
			err = errTooLarge
		}
		if err != nil {
			return nil, err
		}
		if res.StatusCode == http.StatusSwitchingProtocols {
			return nil, errUnasked
		}
		if res.StatusCode >= 200 {
			break
		}
		if trace != nil && trace.Got1xxResponse != nil {
			if err = trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
				return nil, err
			}
		}
	}
	c.limit.N = math.MaxInt64
	b := &body{ReadCloser: res.Body, buffered: c.r.Buffered, over: func(whole bool) {
		if again := half.answered(); stop() && again && whole && !res.Close {
			clientOf(r.Context()).give(c)
		} else {
			_ = c.Close()
		}
	}}
	if res.Body == http.NoBody {
		b.end(true)
	} else {
		res.Body = b
	}
	return res, nil
}

// body is that of an answer.
type body struct {
	io.ReadCloser
	buffered func() int       // bytes that are here already
	over     func(whole bool) // nil once it was called
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end(err == io.EOF)
	}
	return n, err
}

func (b *body) Close() error {
	b.end(false) // first: what is left is not waited for
	return b.ReadCloser.Close()
}

func (b *body) end(whole bool) {
	if over := b.over; over != nil {
		b.over = nil
		over(whole)
	}
}

// take is the client's connection to a service, if it has waited for a moment only and nothing has happened on it since;
// nil for none.
func (c *client) take(key string) *kept {
	c.mu.Lock()
	k := c.kept
	c.kept = nil
	c.mu.Unlock()
	if k != nil && (k.key != key || time.Since(k.since) >= keptFor || !k.quiet()) {
		_ = k.Close()
		return nil
	}
	return k
}

// give has a connection that has brought an answer wait for the client's next request. What there is behind that was not
// asked for.
func (c *client) give(k *kept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.kept != nil || k.r.Buffered() > 0 {
		_ = k.Close()
		return
	}
	k.used, k.since = true, time.Now()
	c.kept = k
	if c.stale == nil {
		c.stale = time.AfterFunc(keptFor, c.forgetKept)
	} else {
		c.stale.Reset(keptFor)
	}
}

// forgetKept closes the connection to a service that nothing is asked on any more.
func (c *client) forgetKept() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != nil && (c.closed || time.Since(c.kept.since) >= keptFor) {
		_ = c.kept.Close()
		c.kept = nil
	}
}
