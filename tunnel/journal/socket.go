package journal

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/journal"
)

// path is where the journal takes entries.
const path = "/run/systemd/journal/socket"

// Socket is where entries go. It is for one goroutine.
type Socket struct{ conn net.Conn }

// Dial returns the journal's socket if this program's standard error is a stream of the journal, and nil if not: then
// somebody else reads it.
func Dial() (*Socket, error) {
	if ours, err := journal.StderrIsJournalStream(); err != nil || !ours {
		return nil, err
	}
	// Connected: on a socket that is not, nothing wakes who waits for room at the other end.
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return nil, fmt.Errorf("reach the journal: %w", err)
	}
	return &Socket{conn}, nil
}

// Write writes an entry. It waits while the journal takes none, and dials again where the journal has gone.
func (s *Socket) Write(entry []byte) (int, error) {
	n, err := s.conn.Write(entry)
	if err == nil {
		return n, nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return 0, err
	}
	_ = s.conn.Close()
	s.conn = conn
	return s.conn.Write(entry)
}
