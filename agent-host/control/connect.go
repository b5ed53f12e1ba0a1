package control

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const connectPath = "/v1/connect"

// Connection is how a connection to a port is wanted.
type Connection struct {
	// HandOver: as one that leads to the service itself, if there can be one.
	HandOver bool
	// Apart: as none of its forward's, so that it is counted nowhere.
	Apart bool
}

// connectionOf reads what a client wants.
func connectionOf(form url.Values) (as Connection, err error) {
	for name, is := range map[string]*bool{"handover": &as.HandOver, "apart": &as.Apart} {
		if *is, err = strconv.ParseBool(cmp.Or(form.Get(name), "false")); err != nil {
			return as, fmt.Errorf("%s is neither true nor false", name)
		}
	}
	return as, nil
}

// connected is the answer that a descriptor comes with.
const connected = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

// connect answers with a connection to a port of a VM: its descriptor comes with the first byte.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	t, err := targetOf(r)
	as, asErr := connectionOf(r.URL.Query())
	switch {
	case err == nil && asErr != nil:
		err = asErr
	case err == nil && t.VM == "":
		err = errors.New("vm is missing")
	case err == nil && t.Proto != "tcp":
		err = errors.New("a connection is of tcp")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	socket, ok := r.Context().Value(acceptedKey{}).(*net.UnixConn)
	if !ok {
		http.Error(w, "no descriptor can be passed over this connection", http.StatusBadRequest)
		return
	}
	conn, err := s.Connect(r.Context(), t.VM, t.Port, as)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	case conn == nil:
		http.Error(w, "there is no such VM", http.StatusNotFound)
		return
	}
	defer conn.Close()
	hijacked, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer hijacked.Close()
	_ = socket.SetWriteDeadline(time.Now().Add(answerWithin))
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return // which the client sees as an answer that is none
	}
	_ = raw.Control(func(fd uintptr) {
		// Who does not know Go expects a connection that blocks. An error here is a client that has gone.
		_ = unix.SetNonblock(int(fd), false)
		_, _, _ = socket.WriteMsgUnix([]byte(connected), unix.UnixRights(int(fd)), nil)
	})
}

// lastAccepted knows the connection that it accepted last, which is wrapped on the way to a handler.
type lastAccepted struct {
	net.Listener
	conn net.Conn
}

func (l *lastAccepted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.conn = c
	return c, err
}

type acceptedKey struct{}

// remember is for [http.Server], which accepts the next connection after it.
func (l *lastAccepted) remember(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, acceptedKey{}, l.conn)
}

// Connect returns a connection to a TCP port of a VM: the descriptor of a socket that blocks, of TCP or,
// where it is handed over, of any kind. The error is a [*RefusedError] with status 404 where there is no such VM, and with 502 where
// the port cannot be reached.
func (c *Client) Connect(ctx context.Context, vm string, port uint16, as Connection) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*answerTimeout) // the agent waits for no guest
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.failed(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	form := url.Values{"vm": {vm}, "port": {strconv.Itoa(int(port))},
		"handover": {strconv.FormatBool(as.HandOver)}, "apart": {strconv.FormatBool(as.Apart)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+connectPath+"?"+form.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if err := req.Write(conn); err != nil {
		return nil, c.failed(err)
	}
	in := &rightsReader{UnixConn: conn.(*net.UnixConn)}
	res, err := http.ReadResponse(bufio.NewReader(in), req)
	if err != nil {
		in.drop()
		return nil, c.failed(err)
	}
	if err := refusal(res); err != nil {
		in.drop()
		return nil, err
	}
	if in.file == nil {
		return nil, fmt.Errorf("the agent at %s passed no connection", c.path)
	}
	return in.file, nil
}

// rightsReader keeps the descriptor that comes with what it reads.
type rightsReader struct {
	*net.UnixConn
	file *os.File
}

func (r *rightsReader) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4)) // one descriptor; the kernel closes what has no room
	n, got, _, _, err := r.ReadMsgUnix(b, oob)
	messages, parseErr := unix.ParseSocketControlMessage(oob[:max(got, 0)])
	if parseErr != nil {
		return n, parseErr
	}
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			r.drop()
			r.file = os.NewFile(uintptr(fd), "connection")
		}
	}
	return n, err
}

// drop closes what came.
func (r *rightsReader) drop() {
	if r.file != nil {
		_ = r.file.Close()
	}
}
