package control

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/time/rate"
)

const logPath = "/v1/log"

// A guest's log goes to a client at logRate bytes a second for long, and logBurst at once: what a guest agent keeps of it.
const (
	logRate  = 32 << 10
	logBurst = 512 << 10
)

// logWithin bounds how long a guest may take to send the lines that it has.
var logWithin = time.Minute

// log answers with the last lines of a guest agent's log, and if that is asked for with those that come later. They are as
// the guest sends them: whoever shows them makes them safe to show.
func (s *Server) log(w http.ResponseWriter, r *http.Request) {
	form := r.URL.Query()
	lines, err := strconv.ParseUint(cmp.Or(form.Get("lines"), "1000"), 10, 32)
	if err != nil {
		http.Error(w, "lines is not a number", http.StatusBadRequest)
		return
	}
	follow, err := strconv.ParseBool(cmp.Or(form.Get("follow"), "false"))
	if err != nil {
		http.Error(w, "follow is neither true nor false", http.StatusBadRequest)
		return
	}
	leave, ok := s.stay(w)
	if !ok {
		return
	}
	defer leave()
	log, err := s.GuestLog(r.Context(), form.Get("vm"), uint32(lines), follow)
	if err != nil {
		guestRefuses(w, err)
		return
	}
	defer log.Close()
	stop := context.AfterFunc(r.Context(), func() { _ = log.Close() })
	defer stop()
	if !follow {
		late := time.AfterFunc(logWithin, func() { _ = log.Close() })
		defer late.Stop()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	control := http.NewResponseController(w)
	pace := rate.NewLimiter(logRate, logBurst)
	for b := make([]byte, 32<<10); ; {
		// An error here is of a writer that has no deadlines, and then of a client that has gone.
		_ = control.SetWriteDeadline(time.Now().Add(answerWithin))
		if control.Flush() != nil {
			return
		}
		n, err := log.Read(b)
		if n > 0 {
			_ = control.SetWriteDeadline(time.Now().Add(answerWithin + time.Duration(n)*time.Second/logRate))
			if pace.WaitN(r.Context(), n) != nil {
				return
			}
			if _, err := w.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				panic(http.ErrAbortHandler) // so that the client sees that it was cut
			}
			return
		}
	}
}

// guestRefuses answers that a guest agent was asked in vain.
func guestRefuses(w http.ResponseWriter, err error) {
	code := http.StatusBadGateway
	switch {
	case errors.Is(err, fs.ErrNotExist):
		code = http.StatusNotFound
	case errors.Is(err, fs.ErrExist):
		code = http.StatusConflict
	}
	http.Error(w, err.Error(), code)
}

// Log asks for the last lines of the log of a VM's guest agent, and with follow for those that come later. They are as the
// guest sends them. The error is a [*RefusedError] with status 404 where there is no such VM, and with 502 where its agent
// does not show them. The caller closes what is returned, whose end is [io.EOF] unless it was cut.
func (c *Client) Log(ctx context.Context, vm string, lines uint32, follow bool) (io.ReadCloser, error) {
	form := url.Values{"vm": {vm}, "lines": {strconv.FormatUint(uint64(lines), 10)}, "follow": {strconv.FormatBool(follow)}}
	return c.patient().get(ctx, logPath, form)
}
