package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/shellword"
)

// receive runs a script from standard input, as root: it needs to be a file, because the last part of the one that installs is
// an archive that it reads from itself. The file may have the key in it, and goes whatever happens.
const receive = `set -eu
umask 077
for tool in cat id mktemp rm; do
	command -v "$tool" >/dev/null || { echo "rum-host-agent: $tool is missing there: install it, and run this again" >&2; exit 1; }
done
script=
trap '[ -z "$script" ] || rm -f "$script"' EXIT
trap 'exit 1' HUP INT TERM
{ script=$(mktemp) && cat >"$script"; } || {
	echo "rum-host-agent: cannot keep the script there: ${TMPDIR:-/tmp} has to be writable and have room (see df ${TMPDIR:-/tmp}); mend that, and run this again" >&2
	exit 1
}
if [ "$(id -u)" = 0 ]; then sh "$script"; elif sudo -n sh -c :; then sudo -n sh "$script"; else exit 77; fi
printf 'rum-host-agent: the script %s\n' 'has run to its end'`

// notRoot is what that exits with where it has not become root: EX_NOPERM of sysexits.h.
const notRoot = 77

// hostKeyRefused is what ssh says last when the host's key is not what it knows.
const hostKeyRefused = "Host key verification failed."

// overSSH runs scripts with ssh. newKey says what to do where the host has another key than it had; empty for what is
// always true.
func overSSH(to string, options []string, newKey string) way {
	const hint = "what went wrong is said above"
	byHand := func(command string) string {
		return shellword.Join(append(append([]string{"ssh"}, options...), "--", to, command)...)
	}
	return way{to: to, hint: hint, run: func(ctx context.Context, script []byte, stdout, stderr io.Writer) error {
		// The login shell there may be one of another family.
		command := "exec sh -c " + shellword.Quote(receive)
		args := append(append([]string{"-T"}, options...), "--", to, command)
		said, end := &tail{w: stderr}, &proof{w: stdout}
		ssh := exec.CommandContext(ctx, "ssh", args...)
		ssh.Stdin, ssh.Stdout, ssh.Stderr = newProgress(stderr, len(script)).reader(bytes.NewReader(script)), end, said
		ssh.Cancel = func() error { return ssh.Process.Signal(syscall.SIGTERM) }
		ssh.WaitDelay = 5 * time.Second
		err := ssh.Run()
		proven := end.check()
		exit, ok := errors.AsType[*exec.ExitError](err)
		switch {
		case err == nil && proven != nil:
			return output.Advise(fmt.Errorf("%s: %w", to, proven), "let that login run commands: the key there has command= in authorized_keys, or sshd has a ForceCommand, "+
				"or its shell is none; see with: "+byHand("id"))
		case errors.Is(err, exec.ErrNotFound):
			return output.Advise(err, "install openssh-client")
		case ok && exit.ExitCode() == notRoot:
			return output.Advise(fmt.Errorf("the login to %s is not root, and has no sudo without a password", to), "go in as root or a user who has, with --to USER@HOST, or allow that user sudo")
		case !ok || exit.ExitCode() != 255: // what ssh itself returns when it fails
			return err
		case strings.Contains(string(said.last), hostKeyRefused):
			hint := "see which key it should have, and connect once by hand with: " + byHand("true")
			if newKey != "" {
				hint = newKey
			}
			return output.Advise(fmt.Errorf("%s does not have the host key that it had", to), hint)
		}
		return output.Advise(fmt.Errorf("cannot reach %s with ssh", to), "try it by hand with: "+byHand("true")+", and name the VM's address with --to USER@HOST")
	}}
}

// tail passes on what is written, and keeps the end of it.
type tail struct {
	w    io.Writer
	last []byte
}

// maxTail is how much is kept, in bytes.
const maxTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p[max(0, len(p)-maxTail):]...)
	t.last = t.last[max(0, len(t.last)-maxTail):]
	return t.w.Write(p)
}
