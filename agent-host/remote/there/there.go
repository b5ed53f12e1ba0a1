// Package there runs commands of this program on another host, over ssh as that host's relay is run, where they are about
// a VM of that host.
package there

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/remote/address"
	"github.com/rum-vm/rum-agent/agent-host/shellword"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
	"github.com/rum-vm/rum-agent/agent-host/vmflag"
)

// Target is a VM of another host.
type Target struct {
	Address address.Address
	// VM is what it is called there. It does not begin with a dash.
	VM string
}

// ExitError says that a command there has ended so, and has said why.
type ExitError struct{ Status int }

func (e *ExitError) Error() string {
	return fmt.Sprintf("it ended there with exit status %d", e.Status)
}

// Find tells which VM of which host HOST/VM is: one of the agent at a socket, or of rum.toml, or what ssh knows by that name.
// It reports false for a VM of this host.
func Find(ctx context.Context, socket, name string) (t Target, remote bool, err error) {
	host, vm, remote := strings.Cut(name, "/")
	if !remote {
		return t, false, nil
	}
	st, unknown := ask.Status(ctx, socket, status.Query{VM: name, Rows: 1})
	if unknown == nil && len(st.VMs) == 1 && st.VMs[0].Host == "" { // which --vm has named so
		return t, false, nil
	}
	if err := vmflag.CheckDomain(vm); err != nil {
		return t, true, err
	}
	if strings.HasPrefix(vm, "-") {
		return t, true, output.Misuse(fmt.Errorf("VM %q: a name that begins with a dash would be a flag there", vm))
	}
	t.VM = vm
	t.Address, err = addressOf(host, st.Discovery)
	return t, true, err
}

func addressOf(host string, served []status.Discovery) (address.Address, error) {
	for _, d := range served {
		if d.Host != host {
			continue
		}
		if a, is, err := address.ParseLibvirt(d.Source); is {
			return a, err
		}
		return address.Parse(d.Source)
	}
	if file, err := userconfig.Open("", ""); err == nil {
		for _, a := range file.Current().Hosts {
			if a.Name() == host {
				return a, nil
			}
		}
	}
	a, err := address.Parse("ssh://" + host)
	if strings.Contains(host, ":") { // an address of IPv6
		a, err = address.Parse("ssh://[" + host + "]")
	}
	if err != nil {
		return a, output.Misuse(err)
	}
	return a, nil
}

// Name is what the VM is called here.
func (t Target) Name() string { return t.Address.Name() + "/" + t.VM }

// Run runs a command of this program there, at the terminal if there is one. What it says is passed on as it is. The
// error is an [*ExitError] where it fails.
func (t Target) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, words ...string) error {
	return t.run(ctx, stdin, stdout, stderr, isTerminal(stdin) && isTerminal(stdout), words)
}

func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func (t Target) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, terminal bool, words []string) error {
	line := shellword.Join(append([]string{"rum-host-agent"}, words...)...)
	args := t.Address.SSH(line)
	if terminal {
		args = t.Address.Terminal(line)
	}
	ssh := exec.CommandContext(ctx, "ssh", args...)
	ssh.Stdin, ssh.Stdout, ssh.Stderr = stdin, stdout, stderr
	err := ssh.Run()
	switch exit, failed := errors.AsType[*exec.ExitError](err); {
	case err == nil:
		return nil
	case !failed:
		return output.Advise(fmt.Errorf("ssh: %w", err), "install the package openssh-client")
	case exit.ExitCode() == notFound:
		return output.Advise(fmt.Errorf("there is no rum-host-agent on %s", t.Address.Name()), "install it with: "+t.Address.Install())
	default:
		return &ExitError{max(1, exit.ExitCode())}
	}
}

// notFound is the exit status of a shell that finds no such command.
const notFound = 127

// Words are a command about the VM as it is given there, with the flags that were given here. What is behind comes after --, and
// files are the flags that name files of this host, which that one does not have.
func (t Target) Words(name string, flags *pflag.FlagSet, behind []string, files ...string) (words []string, err error) {
	words = []string{name}
	if t.Address.Libvirt != "" && !flags.Changed("libvirt") {
		words = append(words, "--libvirt="+t.Address.Libvirt)
	}
	flags.Visit(func(f *pflag.Flag) {
		if f.Name == "socket" { // of the agent here
			return
		}
		values := []string{f.Value.String()}
		if all, ok := f.Value.(pflag.SliceValue); ok {
			values = all.GetSlice()
		}
		for _, v := range values {
			words = append(words, "--"+f.Name+"="+v)
		}
		if slices.Contains(files, f.Name) {
			err = output.Misuse(output.Advise(fmt.Errorf("--%s names a file of this host, and %s is on %s", f.Name, t.Name(), t.Address.Name()),
				"copy it there and run there, with its name: "+t.By(name, "--"+f.Name, "FILE", t.VM)))
		}
	})
	words = append(words, t.VM)
	if len(behind) > 0 {
		words = append(append(words, "--"), behind...)
	}
	return words, err
}

// ImportKey is how the key of the VM, which is there, comes here.
func (t Target) ImportKey() string {
	return t.By("keys", "export", t.VM) + " | " + shellword.Join("rum-host-agent", "keys", "import", t.Name())
}

// By is how to run a command of this program there by hand.
func (t Target) By(words ...string) string {
	line := shellword.Join(append([]string{"rum-host-agent"}, words...)...)
	if strings.Contains(line, "'") { // a shell here reads it too
		line = shellword.Quote(line)
	}
	return "ssh " + t.Address.Destination() + " " + line
}

// Bounds of an examination there, whose host is not trusted.
const (
	maxReport = 256 << 10 // bytes
	maxChecks = 100
)

// Doctor has the VM, and what it needs of its host, looked at there.
func (t Target) Doctor(ctx context.Context) ([]status.Check, error) {
	var out, said bounded
	err := t.run(ctx, nil, &out, &said, false, []string{"doctor", "--json", t.VM})
	var report struct{ Checks []status.Check }
	if json.Unmarshal(out.Bytes(), &report) == nil && len(report.Checks) > 0 {
		err = nil // that something is wrong is among them
	}
	if _, failed := errors.AsType[*ExitError](err); failed {
		text := strings.TrimSpace(said.String())
		err = fmt.Errorf("%s cannot be asked: %s", t.Address.Name(), output.CleanError(text[strings.LastIndexByte(text, '\n')+1:]))
	}
	if err != nil {
		return nil, err
	}
	all := report.Checks[:min(len(report.Checks), maxChecks)]
	for i := range all {
		c := &all[i]
		c.Name, c.Text = output.Clean(t.Address.Name()+"/"+c.Name), output.CleanError(c.Text)
		if c.Remedy = output.CleanError(c.Remedy); c.Remedy != "" {
			c.Remedy = "on " + t.Address.Name() + ": " + c.Remedy
		}
		c.Command = "" // it would be for a shell there
	}
	return all, nil
}

// bounded takes the beginning of what is written.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, maxReport-b.Len()))])
	return len(p), nil
}
