package control

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"golang.org/x/net/netutil"
)

// Paths of the API.
const (
	statusPath  = "/v1/status"
	metricsPath = "/v1/metrics"
)

// maxClients are answered at a time; the others wait.
const maxClients = 64

// answerWithin is how long a client may take to read an answer, which may be tens of
// megabytes. Tests wait less.
var answerWithin = 30 * time.Second

// Server answers clients of the control socket.
type Server struct {
	// Status, without the VMs, and VMs are asked for each request; they must not
	// block.
	Status func() status.Status
	VMs    func(status.Query) iter.Seq[status.VM]
	// Explain tells why a port of a VM, or of all, answers or does not; nothing where there is no VM
	// of that name.
	Explain func(vm, proto string, port uint16) []status.Explanation
	// Wait returns as soon as a port answers, or with why it did not when ctx ended.
	Wait func(ctx context.Context, vm, proto string, port uint16) (status.Answer, error)
	// Connect connects to a TCP port of a VM; nil, without an error, where there is no VM of that name.
	Connect func(ctx context.Context, vm string, port uint16, as Connection) (net.Conn, error)
	// GuestLog opens the log of a VM's guest agent; its error wraps [fs.ErrNotExist] where there is no such VM.
	GuestLog func(ctx context.Context, vm string, lines uint32, follow bool) (io.ReadCloser, error)
	// Upgrade has a VM's guest agent replaced by a binary; its error is as that of GuestLog.
	Upgrade func(ctx context.Context, vm string, u Upgrade, binary io.Reader) error
	// AddForward adds a rule to those of a VM, RemoveForward takes it back, and Forwards are
	// those that were added to a VM, or with an empty name to all. Errors wrap [fs.ErrNotExist]
	// where something is not there, and [fs.ErrExist] where something is in the way.
	AddForward    func(vm, ports, proto string, hold time.Duration) (status.Added, error)
	RemoveForward func(vm, ports, proto string) (status.Added, error)
	Forwards      func(vm string) ([]status.Added, error)
	// Release gives a port of the host back; its errors are as those.
	Release func(vm, proto string, port uint16) ([]status.GivenBack, error)
	// Requests are the pages that VMs ask to open, and Answer is the user's to one; its error wraps [fs.ErrNotExist]
	// where that does not wait for it, and else is why nothing could be opened.
	Requests func() []status.Request
	Answer   func(ctx context.Context, id string, accept bool) error
	// Link returns a URL of the page, which opens a session; nil where there is no page. Its error is told as
	// that of something in the way.
	Link func() (string, error)
	// Reload has the configuration files read anew, and returns then. Its error is that of ctx.
	Reload func(ctx context.Context) error
	// Events are what happened.
	Events *events.History
	// Metrics answers Prometheus; nil for nobody.
	Metrics http.Handler
	Log     *slog.Logger

	watchers atomic.Int32
}

// Serve answers on l until ctx ends, which gives nil. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("/", s.Handler())
	mux.HandleFunc("POST "+connectPath, s.connect)
	mux.HandleFunc("POST "+linkPath, s.link)
	mux.HandleFunc("GET "+logPath, s.log)
	mux.HandleFunc("POST "+upgradePath, s.upgrade)
	return s.serve(ctx, l, mux)
}

// Handler answers as the control socket does, but for what needs a unix socket, what opens sessions of
// the page, and what guest agents do themselves. Whether a client may ask is for the caller to know.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.handleReads(mux)
	mux.HandleFunc("GET "+waitPath, s.wait)
	s.handleForwards(mux)
	mux.HandleFunc("POST "+releasePath, s.release)
	mux.HandleFunc("POST "+reloadPath, s.reload)
	s.handleRequests(mux)
	return mux
}

func (s *Server) serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	accepted := &lastAccepted{Listener: l}
	srv := &http.Server{
		Handler:           handler,
		ConnContext:       accepted.remember,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      answerWithin, // a client that does not read costs memory no longer
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(netutil.LimitListener(accepted, maxClients))
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve control socket: %w", err)
}

// handleReads adds what changes nothing.
func (s *Server) handleReads(mux *http.ServeMux) {
	mux.HandleFunc("GET "+statusPath, s.status)
	mux.HandleFunc("GET "+healthPath, s.health)
	mux.HandleFunc("GET "+eventsPath, s.events)
	mux.HandleFunc("GET "+explainPath, s.explain)
	if s.Metrics != nil {
		mux.Handle("GET "+metricsPath, s.Metrics)
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	form := r.URL.Query()
	rows, err := strconv.Atoi(cmp.Or(form.Get("rows"), "0"))
	if err != nil || rows < 0 {
		http.Error(w, "rows is not a number", http.StatusBadRequest)
		return
	}
	port, err := strconv.ParseUint(cmp.Or(form.Get("port"), "0"), 10, 16)
	if err != nil {
		http.Error(w, "port is not a port", http.StatusBadRequest)
		return
	}
	if state := form.Get("state"); state != "" && !slices.Contains(status.ForwardStates, state) {
		http.Error(w, "state is none of "+strings.Join(status.ForwardStates, ", "), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// An error here is a client that has gone.
	_ = s.write(w, status.Query{VM: form.Get("vm"), Rows: rows, Port: uint16(port), State: form.Get("state")})
}

// writeVM writes a VM forward by forward.
func writeVM(w io.Writer, vm status.VM) error {
	forwards := vm.Forwards
	vm.Forwards = []status.Forward{}
	text, err := json.Marshal(vm)
	if err != nil {
		return err
	}
	at := bytes.Index(text, []byte(noForwards)) + len(noForwards) - 1
	if _, err := w.Write(text[:at]); err != nil {
		return err
	}
	one := json.NewEncoder(w)
	for i := range forwards {
		if i%256 == 255 {
			time.Sleep(100 * time.Microsecond) // the processor is not this client's alone
		}
		if i > 0 {
			if _, err := io.WriteString(w, ","); err != nil {
				return err
			}
		}
		if err := one.Encode(&forwards[i]); err != nil {
			return err
		}
	}
	_, err = w.Write(text[at:])
	return err
}

// noForwards is in the text of a VM once: in a string, the quotes would be escaped.
const noForwards = `"forwards":[]`

// write writes a status VM by VM: thousands of forwards of many VMs are never in
// memory at once.
func (s *Server) write(w io.Writer, q status.Query) error {
	st := s.Status()
	st.VMs = []status.VM{}
	head, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if _, err := w.Write(bytes.TrimSuffix(head, []byte("]}"))); err != nil {
		return err
	}
	separator := ""
	for vm := range s.VMs(q) {
		if _, err := io.WriteString(w, separator); err != nil {
			return err
		}
		if err := writeVM(w, vm); err != nil {
			return err
		}
		separator = ","
	}
	_, err = io.WriteString(w, "]}\n")
	return err
}
