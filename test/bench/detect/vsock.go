package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rum-vm/rum-agent/test/vm"
)

// measureVsock measures in a VM how long a guest agent takes from its start to the first answer, over vsock. Both
// agents are there, and the kernel's vsock leads from one to the other.
func measureVsock(o options) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	machine, err := vm.Start(ctx, vm.Config{Memory: 1024, Guest: vm.Initramfs{
		Files: map[string]string{
			"/bin/rum-guest-agent": filepath.Join(o.bin, "rum-guest-agent"), "/bin/rum-host-agent": filepath.Join(o.bin, "rum-host-agent"),
			"/bin/detect": self,
		},
		// With the second the machine is a host, where the guest agent knocks.
		Modules: []string{"vsock_loopback", "vhost_vsock"},
	}})
	if err != nil {
		return err
	}
	defer machine.Stop()
	out, err := machine.Run(ctx, fmt.Sprintf("/bin/detect --over-vsock --bin /bin --starts %d 2>&1", o.starts))
	fmt.Print(out)
	return err
}

// startsOverVsock is what runs in that VM.
func startsOverVsock(o options) (err error) {
	guest, err := newNamespace()
	if err != nil {
		return err
	}
	agents := &agents{listen: []string{"--listen", "vsock", "--allow-cid", "1"}}
	defer func() {
		if stopErr := agents.stop(); err == nil {
			err = stopErr
		}
	}()
	if err := agents.startGuest(o.bin, guest, ""); err != nil {
		return err
	}
	if err := agents.startHost(o.bin, "vsock:1"); err != nil {
		return err
	}
	control := startControl()
	began, err := agents.starts(o.bin, guest, o.starts)
	if err != nil {
		return err
	}
	fmt.Printf("\nin a VM, over vsock\n")
	fmt.Printf("  %-34s %8s %8s %8s %8s   %s\n", "ms", "p50", "p90", "p99", "max", "over-sleep p50/p99/max")
	fmt.Printf("  %-34s %s   %s\n", "agent's start to first answer", began, control.stop().short())
	return nil
}
