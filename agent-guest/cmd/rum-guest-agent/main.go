package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends a program that does not stop.
	context.AfterFunc(ctx, stop)
	os.Exit(report(os.Stderr, run(ctx, os.Args[1:], os.Stdout, os.Stderr)))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	flags := o.flags()
	err := flags.Parse(args)
	command := flags.Arg(0)
	switch {
	case errors.Is(err, pflag.ErrHelp), err == nil && command == "help" && flags.NArg() == 1:
		_, err = fmt.Fprintf(stdout, "%s%s", usageText, flags.FlagUsages())
		return err
	case err != nil:
		return misuse(err)
	case o.version, command == "version" && flags.NArg() == 1:
		_, err = fmt.Fprintf(stdout, "rum-guest-agent %s\n", versionOrBuild())
		return err
	case command == "help", command == "version":
		return misuse(fmt.Errorf("%s: unexpected argument %q", command, flags.Arg(1)))
	case flags.NArg() == 0:
		if err := o.check(); err != nil {
			return err
		}
		return serve(ctx, o, stderr)
	case command != "ports" && command != "status" && command != "open" && command != "profile":
		return &problem{err: fmt.Errorf("unknown command %q", command), hint: "the commands are ports, status, open, profile, version and help; none serves the host", usage: true}
	case flags.NFlag() > 0:
		return misuse(fmt.Errorf("the flags before %s are for serving only", command))
	case command == "status":
		return status(flags.Args()[1:], stdout)
	case command == "open":
		return open(ctx, flags.Args()[1:], stdout)
	case command == "profile":
		return profile(flags.Args()[1:], stdout)
	default:
		return ports(flags.Args()[1:], stdout)
	}
}
