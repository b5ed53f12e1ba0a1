package upgrade

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// versionTimeout bounds how long a new agent may take to say its version. It is long for a machine that is busy.
var versionTimeout = 20 * time.Second

// checkVersion reports a binary that does not run here, or that has another version than was ordered: [Upgrader.Check] has
// compared that one with what runs. The order is proved by then, and the binary is what was ordered.
func checkVersion(ctx context.Context, path, want string) error {
	program, err := inMemory(path)
	if err != nil {
		return err
	}
	defer program.Close()
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/fd/3", "--version")
	cmd.Args[0] = "rum-guest-agent"
	cmd.ExtraFiles = []*os.File{program}
	cmd.WaitDelay = time.Second
	var said strings.Builder
	cmd.Stdout = &limitedWriter{&said, maxSaid}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("what has come does not run here: %w", err)
	}
	version, ok := strings.CutPrefix(strings.TrimSuffix(said.String(), "\n"), "rum-guest-agent ")
	switch {
	case !ok:
		return fmt.Errorf("what has come is no rum-guest-agent: asked for its version it says %q", said.String())
	case wire.Clean(version, wire.MaxUpgradeVersion) != want: // as an order has it
		return fmt.Errorf("what has come is %q, and %q was ordered", version, want)
	}
	return nil
}

// inMemory is a program in a file that has no name: nothing may be run from where the state directory is, on some machines.
func inMemory(path string) (*os.File, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("rum-guest-agent", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "rum-guest-agent")
	if _, err := io.Copy(f, src); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// limitedWriter passes on so many bytes, and takes the others in silence.
type limitedWriter struct {
	w io.Writer
	n int
}

func (l *limitedWriter) Write(b []byte) (int, error) {
	some := b[:min(l.n, len(b))]
	l.n -= len(some)
	_, err := l.w.Write(some)
	return len(b), err
}
