package vm

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// ExitError is a command that ran in the guest and failed there.
type ExitError struct {
	Command string
	Status  int
	Output  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("guest command %q ended with status %d: %s", e.Command, e.Status, strings.TrimSpace(e.Output))
}

// shell runs commands in a guest whose shell reads from a virtio-serial port.
//
// The stream is one shell for the whole life of the VM, reboots included, so
// every answer is framed: a line "<number> <status>", the output in base64 and
// the number again. Output goes through a file, so a command may leave
// background processes behind without holding up the answer.
type shell struct {
	mu     sync.Mutex
	conn   net.Conn
	lines  *bufio.Reader
	number int
}

func newShell(conn net.Conn) *shell {
	// The number starts where no earlier process's can be.
	return &shell{conn: conn, lines: bufio.NewReader(conn), number: int(time.Now().UnixNano() % 1e9)}
}

// run executes command and returns its standard output and error together.
func (s *shell) run(ctx context.Context, command string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	s.conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { s.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	status, out, err := s.exchange(command)
	if err != nil {
		return "", fmt.Errorf("run %q in the guest: %w", command, cause(ctx, err))
	}
	if status != 0 {
		return out, &ExitError{Command: command, Status: status, Output: out}
	}
	return out, nil
}

func (s *shell) exchange(command string) (status int, out string, err error) {
	script := base64.StdEncoding.EncodeToString([]byte(command))
	// The empty line ends what an interrupted request may have left behind.
	_, err = fmt.Fprintf(s.conn, "\necho %[2]s | base64 -d >/tmp/run.%[1]d; "+
		"sh /tmp/run.%[1]d </dev/null >/tmp/out.%[1]d 2>&1; echo %[1]d $?; "+
		"base64 /tmp/out.%[1]d; echo %[1]d; rm -f /tmp/run.%[1]d /tmp/out.%[1]d\n", s.number, script)
	if err != nil {
		return 0, "", err
	}
	first, last := fmt.Sprintf("%d %%d\n", s.number), fmt.Sprintf("%d\n", s.number)
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return 0, "", err
		}
		if _, err := fmt.Sscanf(line, first, &status); err == nil {
			break
		}
	}
	var encoded strings.Builder
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return 0, "", err
		}
		if line == last {
			break
		}
		encoded.WriteString(strings.TrimSpace(line))
	}
	body, err := base64.StdEncoding.DecodeString(encoded.String())
	return status, string(body), err
}
