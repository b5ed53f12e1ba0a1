package endpoint

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

// Command is a connection over the standard input and output of a command that runs.
type Command struct {
	Pipe
	cmd *exec.Cmd
	// ending is closed to end it, and drained when all that it said is read.
	ending, drained chan struct{}
	end             sync.Once
	last            string // what it said last, once drained
	printed         []byte // the beginning of what has been read
}

// maxPrinted is how much of what a command prints is kept, in bytes, to be shown where
// that is no protocol of ours.
const maxPrinted = 200

func (c *Command) Read(b []byte) (int, error) {
	n, err := c.Pipe.Read(b)
	if room := maxPrinted - len(c.printed); room > 0 {
		c.printed = append(c.printed, b[:min(n, room)]...)
	}
	return n, err
}

// readRest takes in what a command has printed that ended before it was written to.
func (c *Command) readRest() {
	raw, err := c.r.SyscallConn()
	if len(c.printed) > 0 || err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		b := make([]byte, maxPrinted)
		n, _ := unix.Read(int(fd), b)
		c.printed = b[:max(n, 0)]
		return true // without waiting
	})
}

// Close ends the whole process group of the command and waits for it.
func (c *Command) Close() error {
	var err error
	c.end.Do(func() {
		err = c.Pipe.Close()
		close(c.ending)
		c.terminate()
	})
	return err
}

// CloseWithin is Close for a command that is about to end by itself, for which it has so long.
func (c *Command) CloseWithin(grace time.Duration) error {
	_ = c.Pipe.Close()
	select {
	case <-c.drained:
	case <-time.After(grace):
	}
	return c.Close()
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

// Run runs a program and talks over its standard input and output. Its standard error
// goes to logOutput, line by line.
func Run(logOutput func(string), name string, args ...string) (*Command, error) {
	cmd := exec.Command(name, args...)
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
	c := &Command{
		Pipe: Pipe{r: r, w: w, name: pipeAddr(fmt.Sprintf("exec[%d]", cmd.Process.Pid))},
		cmd:  cmd, ending: make(chan struct{}), drained: make(chan struct{}),
	}
	go func() {
		defer close(c.drained)
		logLines(stderr, c.ending, func(line string) { c.last = line; logOutput(line) })
	}()
	return c, nil
}

// EndedError is why there is no link over a command that has ended, in the command's
// own words.
type EndedError struct {
	said string
	err  error
}

func (e *EndedError) Error() string { return e.said }

// Unwrap is what was seen of its end.
func (e *EndedError) Unwrap() error { return e.err }

// Explain closes the connection, and returns what the command said as an
// [*EndedError] in the place of err, which came of its end. A command that said
// nothing leaves err as it is.
func (c *Command) Explain(err error) error {
	c.readRest()
	_ = c.Close()
	said := c.said()
	if said == "" {
		return err
	}
	if printed := strings.TrimSpace(string(c.printed)); printed != "" && !bytes.Contains(c.printed, wire.FrameMagic[:]) {
		said += fmt.Sprintf("; it printed %q, which no guest agent does: its command is rum-guest-agent --stdio", wire.Clean(printed, maxPrinted))
	}
	return &EndedError{said, err}
}

// ExitStatus is that of a command that is closed; -1 where a signal ended it.
func (c *Command) ExitStatus() int { return c.cmd.ProcessState.ExitCode() }

// said is how a command ended that is closed, and what it said last.
func (c *Command) said() string {
	switch code := c.ExitStatus(); {
	case code < 0: // by a signal, which may be ours
		return c.last
	case c.last == "":
		return fmt.Sprintf("the command ended with exit status %d", code)
	default:
		return fmt.Sprintf("the command ended with exit status %d: %s", code, c.last)
	}
}

// exitGrace is how long a command has to end after its input was closed.
const exitGrace = 2 * time.Second

func (c *Command) terminate() {
	kill := time.AfterFunc(exitGrace, func() {
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	})
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGTERM)
	<-c.drained
	_ = c.cmd.Wait()
	kill.Stop()
}

// logLines passes on what a command says, in lines of bounded length, as fast as a
// budget allows until ending is closed.
func logLines(r io.Reader, ending <-chan struct{}, logOutput func(string)) {
	in := bufio.NewReaderSize(r, 1024)
	work := budget.New(budget.Link)
	for {
		line, _, err := in.ReadLine()
		began := clock.Now()
		if len(line) > 0 {
			logOutput(wire.Clean(string(line), 1024))
		}
		if err != nil {
			return
		}
		work.Spend(budget.MessageCost + clock.Now() - began)
		_ = work.Wait(ending)
	}
}
