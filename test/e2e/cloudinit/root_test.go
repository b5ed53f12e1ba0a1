//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/rum-vm/rum-agent/test/e2e/cloudinit/cloudguest"
)

// enter mounts the disk $1 at $2 and runs the rest of its arguments there. The mounts are in a namespace that ends with it.
const enter = `
disk=$1 root=$2
shift 2
mount -o loop,ro "$disk" "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
exec chroot "$root" "$@"
`

// inRoot runs a program in the guest's system, which is not booted: the same packages, at the speed of this machine. Only
// /tmp can be written to. An error carries what the program said.
func inRoot(t *testing.T, stdin []byte, command ...string) (string, error) {
	t.Helper()
	image, err := cloudguest.System.Fetch(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-euc", enter, "sh", image.Disk, t.TempDir()}, command...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), errors.Join(err, errors.New(strings.TrimSpace(stderr.String())))
	}
	return stdout.String(), nil
}
