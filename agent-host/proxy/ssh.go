package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/install"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/shellword"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// SSH is how ssh gets into VMs: through the agent, without a network in between.
type SSH struct {
	// Socket is the agent's control socket.
	Socket string
	// Project returns the project that has a VM of that name; nil for none.
	Project func(vm string) *projects.Project
}

// Run becomes ssh into a VM, whose exit status is then that of this program. It returns an error
// only. The command is empty for a login shell.
func (s *SSH) Run(ctx context.Context, vm string, command []string) error {
	if _, err := s.vms(ctx, vm); err != nil {
		return err
	}
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		return output.Advise(err, "install openssh-client")
	}
	options, err := s.options(vm)
	if err != nil {
		return err
	}
	args := []string{"ssh"}
	for _, o := range options {
		args = append(args, "-o", o)
	}
	args = append(append(args, "--", hostOf(vm)), command...)
	return os.NewSyscallError("exec "+ssh, unix.Exec(ssh, args, os.Environ()))
}

// Config writes what ~/.ssh/config needs for a VM or, without a name, for all that the agent serves. Why one of those
// has no place there is a comment, and the error where none has.
func (s *SSH) Config(ctx context.Context, w io.Writer, vm string) error {
	names, err := s.vms(ctx, vm)
	if err != nil {
		return err
	}
	var none error
	for i, name := range names {
		options, err := s.options(name)
		switch {
		case err == nil:
			none = nil
		case i == 0 || none != nil:
			none = err
		}
		switch {
		case err != nil && vm != "":
			return err
		case err != nil:
			_, err = fmt.Fprintf(w, "# %s: %s\n", output.Clean(name), output.CleanError(err.Error()))
		default:
			_, err = fmt.Fprintf(w, "Host %s\n", hostOf(name))
			for _, o := range options {
				key, value, _ := strings.Cut(o, "=")
				_, err = fmt.Fprintf(w, "    %s %s\n", key, value)
			}
		}
		if err != nil {
			return err
		}
	}
	return none
}

// vms are the names of the VMs that are meant, which the agent serves.
func (s *SSH) vms(ctx context.Context, vm string) (names []string, err error) {
	st, err := ask.Status(ctx, s.Socket, status.Query{VM: vm, Rows: 1})
	if err != nil {
		return nil, err
	}
	for _, v := range st.VMs {
		names = append(names, v.Name)
	}
	if len(names) == 0 {
		return nil, ask.NoVM(ctx, s.Socket, vm)
	}
	return names, nil
}

// hostOf is what a VM is called for ssh. It is no name that anything else has.
func hostOf(vm string) string { return "rum-" + vm }

// aliasOf is under what name ssh keeps the host key of a VM. It takes no notice of case in those.
func aliasOf(vm string) string {
	lower := strings.ToLower(vm)
	if lower == vm {
		return hostOf(vm)
	}
	sum := sha256.Sum256([]byte(vm))
	return fmt.Sprintf("%s-%x", hostOf(lower), sum[:4])
}

// plainName is a name in which neither ssh_config(5) nor ssh itself sees more than a name.
var plainName = regexp.MustCompile(`^[A-Za-z0-9._+-]+$`)

// options are those of ssh_config(5), each as KEY=VALUE.
func (s *SSH) options(vm string) ([]string, error) {
	if !plainName.MatchString(vm) {
		return nil, output.Advise(fmt.Errorf("ssh has no host of the name %q", output.Clean(vm)), "name the VM with letters, digits, dots, dashes and underscores")
	}
	proxy, err := s.proxyCommand(vm)
	if err != nil {
		return nil, err
	}
	options := []string{"ProxyCommand=" + proxy, "ProxyUseFdpass=yes"}
	p := s.Project(vm)
	if p == nil {
		host, err := install.HostKeyOptions(aliasOf(vm))
		return append(options, host...), err
	}
	user := p.File.Current().User
	if user == "" {
		return nil, output.Advise(fmt.Errorf("%s names a user that is not used", p.File.Path()), "correct [ssh] user or [user] name there")
	}
	login, err := install.LoginOptions(p)
	return append(append(options, "User="+user), login...), err
}

// proxyCommand leads ssh through this program, whatever its directory and environment are.
func (s *SSH) proxyCommand(vm string) (string, error) {
	self, err := self()
	if err != nil {
		return "", err
	}
	socket, err := filepath.Abs(s.Socket)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(self+socket, "\n\r") {
		return "", errors.New("ssh takes no command with a line break, as the path of this program or of its socket has")
	}
	plain := strings.NewReplacer("%", "%%") // of the tokens of ssh_config(5)
	words := []string{plain.Replace(self), "proxy", "--fdpass", "--socket", plain.Replace(socket)}
	if strings.HasPrefix(vm, "-") {
		words = append(words, "--") // which would be a flag
	}
	return shellword.Join(append(words, vm)...) + " %p", nil
}

// self is where this program is found: by a name that stays when it is replaced, if there is one.
func self() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	found, err := exec.LookPath(filepath.Base(self))
	if err != nil || !filepath.IsAbs(found) {
		return self, nil
	}
	a, errA := os.Stat(self)
	b, errB := os.Stat(found)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return found, nil
	}
	return self, nil
}
