package hostagent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// remediedError is an error that says what to do, which is known apart.
type remediedError struct {
	error
	remedy string
}

func (e *remediedError) Unwrap() error { return e.error }

func withRemedy(err error, remedy string) error {
	return &remediedError{fmt.Errorf("%w; %s", err, remedy), remedy}
}

// remedy is what to do about a link that failed so; "" where nothing is known.
func (v *vm) remedy(err error) string {
	install := "rum-host-agent install " + v.Name
	remedied, isRemedied := errors.AsType[*remediedError](err)
	incompatible, isIncompatible := errors.AsType[*handshake.IncompatibleError](err)
	switch {
	case v.Host != "" && libvirt.Hint(err) != "":
		return libvirt.Hint(err)
	case err == nil:
		return ""
	case isRemedied:
		return remedied.remedy
	case isIncompatible && incompatible.GuestIsOlder():
		return "replace the guest agent with: " + install
	case isIncompatible:
		return "install a newer rum-host-agent here"
	case v.Endpoint == (endpoint.Endpoint{}):
		return "give the domain a device with: rum-host-agent setup " + v.Name
	case v.Host != "" && (errors.Is(err, fs.ErrPermission) || errors.Is(err, wire.ErrNotOurs)):
		return "see there what is in the way, with: rum-host-agent doctor " + v.Name
	case errors.Is(err, syscall.ENODEV) && vhostLoaded():
		return fmt.Sprintf("start %s, or give it the context ID of its vsock device: no VM that runs has %d", v.Name, v.Endpoint.CID)
	case errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.ENODEV):
		return "load the kernel's module with: sudo modprobe vhost_vsock"
	case errors.Is(err, fs.ErrPermission) && v.Endpoint.Path != "":
		return fmt.Sprintf("let this user open it, or run the agent as one who may: sudo setfacl -m u:%d:rw %s", os.Getuid(), v.Endpoint.Path)
	case errors.Is(err, fs.ErrPermission):
		return "run the agent as a user who may open the device"
	case v.Endpoint.Scheme == endpoint.SchemeExec:
		return "run the command of " + v.Name + " by hand: it has to lead into the VM, to rum-guest-agent --stdio"
	case errors.Is(err, wire.ErrNotOurs):
		return fmt.Sprintf("another program than a guest agent answers at %s: name the endpoint that the agent has, or install it with: %s", v.Endpoint, install)
	case v.Endpoint.Scheme == endpoint.SchemeUnix && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		return "start the guest agent there with: rum-guest-agent --listen unix:" + v.Endpoint.Path
	case errors.Is(err, fs.ErrNotExist), v.Endpoint.Scheme == endpoint.SchemeSerial && errors.Is(err, syscall.ECONNREFUSED):
		return "start " + v.Name + ", or name the socket that it has"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrDeadlineExceeded):
		return "install the guest agent with: " + install
	}
	return ""
}

// vhostLoaded reports whether the kernel can reach VMs by vsock. ENODEV says that it knows no such VM, whether or not it could.
func vhostLoaded() bool {
	_, err := os.Stat("/sys/module/vhost_vsock")
	return err == nil
}
