package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
)

const eventsPath = "/v1/events"

// maxWatchers follow events or wait at a time: each has a connection of those that are answered.
const maxWatchers = 32

// events answers with what happened, if that is asked for, and with what happens, a line of
// JSON each, until the client goes or reads nothing for answerWithin.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	after, err := s.position(r.URL.Query().Get("since"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	leave, ok := s.stay(w)
	if !ok {
		return
	}
	defer leave()
	vm := r.URL.Query().Get("vm")
	w.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(w)
	// An error here is of a writer that has no deadlines.
	inTime := func() { _ = control.SetWriteDeadline(time.Now().Add(answerWithin)) }
	inTime()
	if control.Flush() != nil { // says that what happens from now on is not missed
		return
	}
	lines := json.NewEncoder(w)
	// An error here is a client that has gone.
	_ = s.Events.Follow(r.Context(), after, func(all []events.Event) error {
		inTime()
		for _, e := range all {
			if vm != "" && e.VM != vm && e.Kind != events.Missed {
				continue
			}
			if err := lines.Encode(e); err != nil {
				return err
			}
		}
		return control.Flush()
	})
}

// stay counts a client whose answer takes time, or refuses it.
func (s *Server) stay(w http.ResponseWriter) (leave func(), ok bool) {
	if s.watchers.Add(1) > maxWatchers {
		s.watchers.Add(-1)
		http.Error(w, fmt.Sprintf("%d clients watch or wait already, which is the most", maxWatchers), http.StatusServiceUnavailable)
		return nil, false
	}
	return func() { s.watchers.Add(-1) }, true
}

// position is the cursor from which a client wants to know what happened: one that it names,
// that of so long ago, or that of now.
func (s *Server) position(since string) (uint64, error) {
	if since == "" {
		return s.Events.Now(), nil
	}
	if cursor, err := strconv.ParseUint(since, 10, 64); err == nil {
		return cursor, nil
	}
	d, err := time.ParseDuration(since)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("since=%q is neither a cursor nor a duration, such as 10m", since)
	}
	return s.Events.At(time.Now().Add(-d)), nil
}
