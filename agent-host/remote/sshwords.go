package remote

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// sshSaid is what ssh, and the relay by way of it, said on standard error.
type sshSaid struct {
	mu             sync.Mutex
	last           string
	changed, older bool // of the host's key; of an agent that knows no relay
}

// maxSaid bounds what is shown of it, in bytes.
const maxSaid = 300

func (s *sshSaid) line(line string) {
	line = wire.Clean(strings.TrimSpace(line), maxSaid)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = s.changed || strings.Contains(line, "REMOTE HOST IDENTIFICATION HAS CHANGED")
	s.older = s.older || strings.Contains(line, `unknown command "relay"`)
	if line != "" {
		s.last = line
	}
}

// cut explains the end of a session.
func (h *Host) cut(err error, ssh *endpoint.Command, said *sshSaid) error {
	_ = ssh.CloseWithin(exitGrace)
	said.mu.Lock()
	defer said.mu.Unlock()
	if said.last != "" && ssh.ExitStatus() > 0 {
		return fmt.Errorf("the connection to %s was lost: %s", h.Address.Name(), said.last)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("the connection to %s was lost", h.Address.Name())
	}
	return fmt.Errorf("the connection to %s was lost: %w", h.Address.Name(), err)
}

// Exit statuses of ssh(1) and of shells.
const (
	sshFailed     = 255
	notExecutable = 126
	notFound      = 127
)

// explain says why there is no session, and what to do about it. code is ssh's exit status.
func (h *Host) explain(err error, code int, said *sshSaid) error {
	said.mu.Lock()
	defer said.mu.Unlock()
	name, to := h.Address.Name(), h.Address.Destination()
	advise := func(text, hint string) error { return libvirt.Advise(errors.New(text), hint) }
	if version, ok := errors.AsType[*protocol.VersionError](err); ok {
		if version.Theirs > protocol.Version {
			return libvirt.Advise(fmt.Errorf("%s does not fit: %w", name, err), "upgrade rum-host-agent here")
		}
		return libvirt.Advise(fmt.Errorf("%s does not fit: %w", name, err), "upgrade rum-host-agent on "+name+" with: "+h.Address.Install())
	}
	switch {
	case code == notFound:
		return advise("there is no rum-host-agent on "+name, "install it with: "+h.Address.Install())
	case code == notExecutable:
		return advise("rum-host-agent on "+name+" cannot be run: "+said.last, "install one for that machine")
	case said.older:
		return advise("rum-host-agent on "+name+" is older than this one and knows no relay", "upgrade it with: "+h.Address.Install())
	case said.changed:
		return advise("ssh: the host key of "+name+" has changed", "if "+name+" was set up anew, forget the old key with: ssh-keygen -R "+h.Address.KeyName())
	case strings.HasPrefix(said.last, "Host key verification failed"):
		return advise("ssh: the host key of "+name+" is not known here", "accept it once with: ssh "+to+" true")
	case code == sshFailed && strings.Contains(said.last, "Permission denied"):
		return advise("ssh: "+said.last, "it has to let you in without a question: ssh-copy-id "+to+", or ssh-add")
	case code == sshFailed && said.last != "":
		return errors.New("ssh: " + strings.TrimPrefix(said.last, "ssh: "))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s does not answer within %v", name, greetTimeout)
	case code > 0 && said.last != "":
		return fmt.Errorf("the relay on %s ended with exit status %d: %s", name, code, said.last)
	}
	return fmt.Errorf("%s: %w", name, err)
}
