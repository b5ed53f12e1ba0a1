package tunnel

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pipeConn is a net.Conn over a pair of files: a child's or our own standard
// input and output.
type pipeConn struct {
	r, w  *os.File
	name  pipeAddr
	after func() // once, when closed
	once  sync.Once
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

func (c *pipeConn) Read(b []byte) (int, error)         { return c.r.Read(b) }
func (c *pipeConn) Write(b []byte) (int, error)        { return c.w.Write(b) }
func (c *pipeConn) LocalAddr() net.Addr                { return c.name }
func (c *pipeConn) RemoteAddr() net.Addr               { return c.name }
func (c *pipeConn) SetReadDeadline(t time.Time) error  { return c.r.SetReadDeadline(t) }
func (c *pipeConn) SetWriteDeadline(t time.Time) error { return c.w.SetWriteDeadline(t) }
func (c *pipeConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
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

// growPipe makes a pipe hold several frames, so that the ends take fewer turns.
// 1 MiB is what pipe(7) allows without privilege; less works too.
func growPipe(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
}

// exitGrace is how long a command has to end after its input was closed.
const exitGrace = 2 * time.Second

// startCommand runs a shell command and talks over its standard input and
// output. Its standard error goes to logOutput, line by line. Close ends the
// whole process group and waits for it.
func startCommand(command string, logOutput func(string)) (net.Conn, error) {
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	conn := &pipeConn{name: pipeAddr(fmt.Sprintf("exec[%d]", cmd.Process.Pid))}
	// os/exec documents neither, but both are files with deadlines.
	conn.w, conn.r = stdin.(*os.File), stdout.(*os.File)
	growPipe(conn.w)
	growPipe(conn.r)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		logLines(stderr, logOutput)
	}()
	conn.after = func() { endCommand(cmd, drained) }
	return conn, nil
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

// logLines passes on what a command says, in lines of bounded length.
func logLines(r io.Reader, logOutput func(string)) {
	in := bufio.NewReaderSize(r, 1024)
	for {
		line, _, err := in.ReadLine()
		if len(line) > 0 {
			logOutput(clean(string(line), 1024))
		}
		if err != nil {
			return
		}
	}
}
