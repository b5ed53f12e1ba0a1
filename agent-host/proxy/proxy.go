package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// Port is a TCP port of a VM, and the control socket of the agent that leads there.
type Port struct {
	Socket, VM string
	Number     uint16
}

// Parse reads the number of a port on the command line.
func (p *Port) Parse(text string) error {
	var n ask.Number
	if err := n.Set(text); err != nil {
		return output.Misuse(err)
	}
	p.Number = uint16(n)
	return nil
}

// Join copies between the port and two files until both directions have ended, and returns nil if
// that is how it ended. Each direction ends by itself: the end of in is told to the service, and
// that of the service closes out. Whatever else ends the connection is an error at once.
func (p *Port) Join(ctx context.Context, in, out *os.File) error {
	f, err := p.connect(ctx, false)
	if err != nil {
		return err
	}
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return err
	}
	var to io.WriteCloser = file{out}
	if info, err := out.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		to = copied{out, out} // to devices there is no splice(2), and what it took would be lost
	}
	if err = join(ctx, relay.TCP(conn.(*net.TCPConn)), in, to); err == nil {
		return nil
	}
	if _, ofFile := errors.AsType[*fs.PathError](err); ofFile && errors.Is(err, unix.EPIPE) {
		// Its reader has gone. A write, unlike splice(2), has Go end this program by SIGPIPE where that is standard output.
		_, _ = out.Write([]byte{0})
	}
	ended := fmt.Errorf("port %d of %s: %w", p.Number, output.Clean(p.VM), err)
	if errors.Is(err, errReset) {
		return output.Advise(ended, "see why with: "+p.explain())
	}
	return ended
}

// file is one whose end its reader is told. Of a socket that is standard input as well, as inetd
// has it, there is another descriptor, and to close one tells nobody.
type file struct{ *os.File }

func (f file) Close() error {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) }) // which is no socket mostly
	}
	return f.File.Close()
}

// copied is a file that is written to, and nothing else.
type copied struct {
	io.Writer
	io.Closer
}

// HandOver passes the connection to the port on to who is at the other end of a unix socket, whose
// it is from then on.
func (p *Port) HandOver(ctx context.Context, to *os.File) error {
	f, err := p.connect(ctx, true)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Sendmsg(int(to.Fd()), []byte{0}, unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL)
	if errors.Is(err, unix.ENOTSOCK) || errors.Is(err, unix.EINVAL) {
		return output.Misuse(errors.New("--fdpass hands a connection over to a unix socket at standard output, as ssh has it there with ProxyUseFdpass yes; this is none"))
	}
	if err != nil {
		return fmt.Errorf("hand the connection over to the unix socket at standard output: %w", err)
	}
	return nil
}

// connect asks the agent for the connection.
func (p *Port) connect(ctx context.Context, handOver bool) (*os.File, error) {
	f, err := control.NewClient(p.Socket).Connect(ctx, p.VM, p.Number, control.Connection{HandOver: handOver})
	switch refused, ok := errors.AsType[*control.RefusedError](err); {
	case err == nil:
		return f, nil
	case ok && refused.Status == http.StatusNotFound:
		return nil, ask.NoVM(ctx, p.Socket, p.VM)
	case ok && !errors.Is(err, fs.ErrPermission):
		return nil, output.Advise(errors.New(refused.Text), "see why with: "+p.explain())
	}
	return nil, ask.Advise(p.Socket, err)
}

// explain is the command that tells why the port does not answer.
func (p *Port) explain() string {
	return ask.Command(p.Socket, "explain", strconv.Itoa(int(p.Number)), "--vm", p.VM)
}
