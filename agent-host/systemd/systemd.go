// Package systemd is what the agent and its service manager tell each other: descriptors that come with the start,
// states, signs of life. What coreos/go-systemd has of it is used; descriptors in a message it has not.
//
// It never knows what the descriptors are, or what is a sign of life.
package systemd

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// ControlName is the FileDescriptorName= of the control socket in its unit.
const ControlName = "control"

// Passed are the descriptors that the service manager gave this process: the control socket, nil for none, and
// those of the file descriptor store, by their names. It is to be called once, before any child is started.
func Passed() (control *os.File, stored []*os.File) {
	for _, f := range activation.Files(true) {
		if f.Name() == ControlName && control == nil {
			control = f
		} else {
			stored = append(stored, f)
		}
	}
	return control, stored
}

// Notified reports whether there is a service manager that wants to be told of this process.
func Notified() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Notify sends a state, as sd_notify(3) has it, with descriptors. Without a service manager it does nothing.
func Notify(state string, fds ...int) error {
	if !Notified() {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("reach the service manager: %w", err)
	}
	defer conn.Close()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	// Go's own call takes no connected socket of datagrams.
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	werr := raw.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), []byte(state), rights, nil, unix.MSG_NOSIGNAL)
		return err != unix.EAGAIN
	})
	if err = cmp.Or(werr, err); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// Reloading says that configuration is being read; daemon.SdNotifyReady says that it has been.
func Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return os.NewSyscallError("clock_gettime", err)
	}
	return Notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
}

// Watchdog gives signs of life until ctx ends, if the service manager wants any: three in the time after which it
// would end the process, each when check has returned. A check that does not return is no sign.
func Watchdog(ctx context.Context, check func()) error {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil || within == 0 {
		return err
	}
	tick := time.NewTicker(within / 3)
	defer tick.Stop()
	for {
		checked := make(chan struct{})
		go func() { defer close(checked); check() }()
		select {
		case <-checked:
		case <-ctx.Done():
			return nil
		}
		if err := Notify(daemon.SdNotifyWatchdog); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
