package tunnel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

// pipeConn is a net.Conn over a pair of files: a child's or our own standard
// input and output.
type pipeConn struct {
	r, w  *os.File
	name  pipeAddr
	after func() // once, when closed
	once  sync.Once
	// said is how a command ended and what it said last, once it is closed; nil for no command.
	said func() string
	// printed is the beginning of what has been read.
	printed []byte
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

func (c *pipeConn) Write(b []byte) (int, error)        { return c.w.Write(b) }
func (c *pipeConn) LocalAddr() net.Addr                { return c.name }
func (c *pipeConn) RemoteAddr() net.Addr               { return c.name }
func (c *pipeConn) SetReadDeadline(t time.Time) error  { return c.r.SetReadDeadline(t) }
func (c *pipeConn) SetWriteDeadline(t time.Time) error { return c.w.SetWriteDeadline(t) }
func (c *pipeConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// maxPrinted is how much of what a command prints is kept, in bytes, to be shown where
// that is no protocol of ours.
const maxPrinted = 200

func (c *pipeConn) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if room := maxPrinted - len(c.printed); room > 0 && c.said != nil {
		c.printed = append(c.printed, b[:min(n, room)]...)
	}
	return n, err
}

// readRest takes in what a command has printed that ended before it was written to.
func (c *pipeConn) readRest() {
	raw, err := c.r.SyscallConn()
	if c.said == nil || len(c.printed) > 0 || err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		b := make([]byte, maxPrinted)
		n, _ := unix.Read(int(fd), b)
		c.printed = b[:max(n, 0)]
		return true // without waiting
	})
}

func (c *pipeConn) Close() error {
	var err error
	c.once.Do(func() {
		err = errors.Join(c.w.Close(), c.r.Close())
		if c.after != nil {
			c.after()
		}
	})
	return err
}

// standardStream is what becomes a command's standard input or output: a socket,
// which moves 64 KiB with less work than a pipe with its single pages, and which
// is what other programs give their children too.
func standardStream(name string) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	for _, fd := range fds {
		// Room for several frames, so that the ends take fewer turns. The kernel
		// cuts it to what net.core.wmem_max allows.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	}
	_ = unix.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// exitGrace is how long a command has to end after its input was closed.
const exitGrace = 2 * time.Second

// startCommand runs a shell command and talks over its standard input and
// output. Its standard error goes to logOutput, line by line. Close ends the
// whole process group and waits for it.
func startCommand(command string, logOutput func(string)) (net.Conn, error) {
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w, stdin, err := standardStream("standard input")
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	r, stdout, err := standardStream("standard output")
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	defer stdout.Close()
	cmd.Stdin, cmd.Stdout = stdin, stdout
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_, _ = w.Close(), r.Close()
		return nil, err
	}
	conn := &pipeConn{r: r, w: w, name: pipeAddr(fmt.Sprintf("exec[%d]", cmd.Process.Pid))}
	drained, ending := make(chan struct{}), make(chan struct{})
	last := ""
	go func() {
		defer close(drained)
		logLines(stderr, ending, func(line string) { last = line; logOutput(line) })
	}()
	conn.after = func() { close(ending); endCommand(cmd, drained) }
	conn.said = func() string {
		<-drained
		switch code := cmd.ProcessState.ExitCode(); {
		case code < 0: // by a signal, which may be ours
			return last
		case last == "":
			return fmt.Sprintf("the command ended with exit status %d", code)
		default:
			return fmt.Sprintf("the command ended with exit status %d: %s", code, last)
		}
	}
	return conn, nil
}

// endedError is why there is no link over a command that has ended.
type endedError struct {
	said string
	err  error
}

func (e *endedError) Error() string { return e.said }
func (e *endedError) Unwrap() error { return e.err }

// explain puts what a command said in the place of an error that comes of its end.
func (c *pipeConn) explain(err error) error {
	_, auth := errors.AsType[*AuthError](err)
	_, incompatible := errors.AsType[*IncompatibleError](err)
	if c.said == nil || auth || incompatible {
		return err
	}
	said := c.said()
	if said == "" {
		return err
	}
	if printed := strings.TrimSpace(string(c.printed)); printed != "" && !bytes.Contains(c.printed, wire.FrameMagic[:]) {
		said += fmt.Sprintf("; it printed %q, which no guest agent does: its command is rum-guest-agent --stdio", wire.Clean(printed, maxPrinted))
	}
	return &endedError{said, err}
}

func endCommand(cmd *exec.Cmd, drained <-chan struct{}) {
	kill := time.AfterFunc(exitGrace, func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	<-drained
	_ = cmd.Wait()
	kill.Stop()
}

// logLines passes on what a command says, in lines of bounded length, as fast as its
// effort allows until ending is closed.
func logLines(r io.Reader, ending <-chan struct{}, logOutput func(string)) {
	in := bufio.NewReaderSize(r, 1024)
	effort := newEffort(linkEffort)
	for {
		line, _, err := in.ReadLine()
		began := clock()
		if len(line) > 0 {
			logOutput(wire.Clean(string(line), 1024))
		}
		if err != nil {
			return
		}
		effort.spent(messageCost + clock() - began)
		_ = effort.rest(ending)
	}
}
