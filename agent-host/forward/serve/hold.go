package serve

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

const (
	// maxWaiting is how many clients of a forward wait for its service at a time.
	maxWaiting = 64
	// The service is tried when the guest announces something, and while it does not:
	// a service may be back before its end was seen.
	holdRetryMin = 50 * time.Millisecond
	holdRetryMax = time.Second
)

var (
	errTooManyWait = fmt.Errorf("%d clients wait for the service already, which is the most", maxWaiting)
	errWithdrawn   = errors.New("the service did not come back")
)

// holding is what clients of a forward wait by. One of them at a time tries the service,
// so that what they cost does not depend on how many they are. nil is for nobody.
type holding struct {
	waiting atomic.Int32
	turn    chan struct{} // holds a token while somebody tries
	over    chan struct{} // closed with the forward

	mu      sync.Mutex
	changed chan struct{} // closed when it is worth another look, guarded by mu
}

func newHolding() *holding {
	return &holding{turn: make(chan struct{}, 1), over: make(chan struct{}), changed: make(chan struct{})}
}

// look has whoever waits try again.
func (h *holding) look() {
	if h == nil || h.waiting.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *holding) next() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// end has nobody wait any more.
func (h *holding) end() {
	if h != nil {
		close(h.over)
	}
}

// await is reach for a service that may not be there for a moment. Until it has taken the
// connection, a client that it refused is not told, and loses nothing of what it sent.
func (s *Service) await(ctx context.Context, c *relay.Client, conn relay.Conn, first []byte, h *holding, hold time.Duration) (relay.Conn, error) {
	var failed error
	if h.waiting.Load() == 0 {
		guest, err := s.reachService(ctx, c, conn, first)
		if err == nil || !mayCome(err) {
			return guest, err
		}
		failed = err
	}
	if h.waiting.Add(1) > maxWaiting {
		h.waiting.Add(-1)
		return nil, errTooManyWait
	}
	defer h.waiting.Add(-1)
	limit, cancel := context.WithTimeout(ctx, hold)
	defer cancel()
	if err := h.takeTurn(limit, conn); err != nil {
		return nil, notCome(err, failed, hold)
	}
	defer func() { <-h.turn }()
	for retry := holdRetryMin; ; retry = min(2*retry, holdRetryMax) {
		changed := h.next()
		guest, err := s.reachService(ctx, c, conn, first)
		if err == nil || !mayCome(err) {
			return guest, err
		}
		if ended := h.wait(limit, conn, changed, time.After(retry)); ended != nil {
			return nil, notCome(ended, err, hold)
		}
	}
}

// takeTurn waits until nobody else tries the service. The error is why it is not worth
// waiting for.
func (h *holding) takeTurn(ctx context.Context, client relay.Conn) error {
	there, stop := whileThere(ctx, client)
	select {
	case h.turn <- struct{}{}:
	case <-h.over:
		stop()
		return errWithdrawn
	case <-there.Done():
		return isThere(there, stop)
	}
	err := isThere(there, stop)
	if err != nil {
		<-h.turn
	}
	return err
}

// wait waits until it is worth another look, or for the time. The error is as that of takeTurn.
func (h *holding) wait(ctx context.Context, client relay.Conn, changed <-chan struct{}, retry <-chan time.Time) error {
	there, stop := whileThere(ctx, client)
	select {
	case <-changed:
	case <-retry:
	case <-h.over:
		stop()
		return errWithdrawn
	case <-there.Done():
	}
	return isThere(there, stop)
}

// isThere ends the watch of a client, and tells why it ended before. That the client is
// gone is told once, and not by the next watch.
func isThere(there context.Context, stop func()) error {
	ended := there.Err() != nil
	stop()
	if err := context.Cause(there); ended || errors.Is(err, relay.ErrClient) {
		return err
	}
	return nil
}

// notCome is why a client is turned away that has waited.
func notCome(ended, failed error, hold time.Duration) error {
	if errors.Is(ended, context.DeadlineExceeded) {
		ended = fmt.Errorf("the service did not come within %v", hold)
	}
	if failed != nil && !errors.Is(ended, relay.ErrClient) {
		return fmt.Errorf("%w: %w", ended, failed)
	}
	return ended
}

// reachService is reach, and waits for the guest to say that the service has taken the
// connection.
func (s *Service) reachService(ctx context.Context, c *relay.Client, conn relay.Conn, first []byte) (relay.Conn, error) {
	guest, err := s.reach(ctx, c, conn, first)
	if st, ok := guest.(*stream.Stream); ok && err == nil {
		if err = st.Answer(ctx); err != nil {
			st.Abort()
			return nil, err
		}
	}
	return guest, err
}

// mayCome reports whether nobody has taken a connection, nor anything of it, and somebody
// may before long: nothing listens there, or the guest is not reached.
func mayCome(err error) bool {
	if answer, ok := errors.AsType[*wire.AnswerError](err); ok {
		return answer.Status == wire.AnswerRefused
	}
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, errLink) || errors.Is(err, ErrNoWay)
}
