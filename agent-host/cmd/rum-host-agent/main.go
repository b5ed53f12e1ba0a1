// Command rum-host-agent makes the ports of VMs reachable on this host.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends a program that does not stop.
	context.AfterFunc(ctx, stop)
	c, err := newRoot().ExecuteContextC(ctx)
	os.Exit(report(os.Stderr, c.CommandPath(), err))
}
