package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/test/vm"
)

// onceLimit ends a DEMO_ONCE run that hangs; under emulation on two busy cores
// a run takes about half a minute.
const onceLimit = 3 * time.Minute

func init() {
	// The host agent dies with the thread that started it: make that the one
	// that lives longest.
	runtime.LockOSThread()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	once := os.Getenv("DEMO_ONCE") != ""
	if once {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, onceLimit, fmt.Errorf("no page within %v", onceLimit))
		defer cancel()
	}
	err := demo(ctx, newTerminal(os.Stdout), once)
	if context.Cause(ctx) == context.Canceled && !once {
		return // Ctrl-C is how it is meant to end
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, out *terminal, once bool) error {
	if err := checkPort(port); err != nil {
		return err
	}
	kernel, err := vm.FetchKernel(ctx, out)
	if err != nil {
		return err
	}
	accel, err := vm.Accelerator(ctx, kernel)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "rum-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	guest := newGuest(filepath.Join(dir, "agent"))
	out.step("a guest with kernel %s boots in QEMU (%s), reached over %s", kernel.Release, accel, guest.endpoint)
	machine, err := vm.Start(ctx, guest.config)
	if err != nil {
		return err
	}
	defer machine.Stop()

	agent, err := startHostAgent(ctx, dir, "demo="+guest.endpoint)
	if err != nil {
		return err
	}
	defer agent.stop()
	if err := machine.Ready(ctx); err != nil {
		return err
	}
	out.step("the guest is up; nothing listens on port %d in it", port)
	if _, err := machine.Run(ctx, guest.startServer); err != nil {
		return err
	}
	out.step("a web server starts in the guest %v from now", serverDelay)

	if err := waitForForward(ctx, agent, out, once); err != nil {
		return err
	}
	page, err := fetch(ctx, guest.name)
	if err != nil {
		return err
	}
	out.step("GET http://localhost:%d, answered by the guest:", port)
	out.block(page)
	table, err := agent.command(ctx, "status")
	if err != nil {
		return err
	}
	out.step("rum-host-agent status:")
	out.block(table)
	if once {
		return nil
	}
	out.step("open http://localhost:%d in a browser; Ctrl-C ends the demo", port)
	select {
	case <-ctx.Done():
		return nil
	case <-agent.ended:
		return agent.failure()
	}
}
