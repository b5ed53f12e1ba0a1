package tunnel

import (
	"context"
	"errors"
	"fmt"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// ErrNoHost is that there is no host that could be asked to open a URL.
var ErrNoHost = errors.New("no host is linked")

var (
	errKeyless   = fmt.Errorf("%w that has proved a key, which opening a page takes; give this VM one there with: rum-host-agent install VM", ErrNoHost)
	errOlderHost = fmt.Errorf("%w that knows how to open a page: its agent is older than this one, upgrade it", ErrNoHost)
)

// OpenURL asks a host to open a URL of a user's, of at most [wire.MaxURL] bytes: of those with a key the one that was
// linked first, and after one that opens nothing for this guest the next. The error is that there is none to
// ask, which wraps [ErrNoHost], or that the link or ctx ended before there was an answer.
func (s *Server) OpenURL(ctx context.Context, user uint32, url string) (a wire.OpenURLAnswerMessage, err error) {
	err = ErrNoHost
	for _, l := range s.allLinks() {
		if e := l.cannotOpen(); e != nil {
			if a.Outcome != wire.OpenNotAllowed {
				err = e
			}
			continue
		}
		a, err = l.urls.Ask(ctx, user, url, l.control.send, l.session.CloseChan())
		if err != nil || a.Outcome != wire.OpenNotAllowed {
			return a, err
		}
	}
	return a, err
}

// cannotOpen is why the host cannot be asked to open a URL; nil if it can.
func (l *guestLink) cannotOpen() error {
	select {
	case <-l.started:
	default:
		return ErrNoHost
	}
	l.mu.Lock()
	ended := l.ended
	l.mu.Unlock()
	switch {
	case ended:
		return ErrNoHost
	case l.urls.Orders == nil:
		return errKeyless
	case !l.agreed.OpensURLs():
		return errOlderHost
	}
	return nil
}
