package serve

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// shortageShown is how long after the last reset a shortage of descriptors counts as
// over.
const shortageShown = time.Minute

// shortage is that clients are reset for want of descriptors: one matter, whichever
// port they come to. The zero value is none.
type shortage struct {
	mu     sync.Mutex
	why    error
	last   time.Time
	resets int // since it began
}

func (s *shortage) note(why *reserve.SpentError, log *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.last) > shortageShown {
		s.resets = 0
		log.Warn("new connections are reset until some of those there are have ended", "reason", why)
	}
	s.why, s.last = why, now
	s.resets++
}

// Shortage tells that new connections are reset for want of descriptors, or were
// within the last minute; "" if not.
func (t *Server) Shortage() string {
	s := &t.shortage
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resets == 0 || time.Since(s.last) > shortageShown {
		return ""
	}
	return fmt.Sprintf("%v: %d new connections were reset, the last %v ago",
		s.why, s.resets, time.Since(s.last).Truncate(time.Second))
}
