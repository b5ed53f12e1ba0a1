package page

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// lingerFor is how long a client that has its answer is still read whose request has not ended: one that is closed
// while it sends sees a reset, and may lose the answer.
const lingerFor = 500 * time.Millisecond

// duplex is the body of a request by HTTP/1, whose answer may begin before it has ended. The client's connection is
// closed then: where the next request begins cannot be known.
type duplex struct {
	io.ReadCloser
	client  *client
	whole   atomic.Bool // it was read to its end
	reading sync.Mutex  // held while it is read
	over    bool        // the answer has ended
}

var errAnswered = errors.New("the request is answered already")

func (b *duplex) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.over {
		return 0, errAnswered
	}
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.whole.Store(true)
	}
	return n, err
}

// answer is called before the answer begins, whose header is h. A server that is to close the connection does not wait
// for the rest of the body first.
func (b *duplex) answer(h http.Header) {
	if b != nil && !b.whole.Load() {
		h.Set("Connection", "close")
	}
}

// end is called once the answer has ended. The rest of the body is the server's.
func (b *duplex) end() {
	if b.whole.Load() {
		return
	}
	_ = b.client.SetReadDeadline(time.Unix(1, 0)) // ends a read
	b.reading.Lock()
	b.over = true
	b.reading.Unlock()
	_ = b.client.SetReadDeadline(time.Now().Add(lingerFor))
}
