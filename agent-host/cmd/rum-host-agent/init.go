package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/rumtoml"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

type initOptions struct {
	*shared
	path  string
	yes   bool
	ports []string
}

func newInit(s *shared) *cobra.Command {
	o := initOptions{shared: s}
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a commented rum.toml",
		Long: `Write a commented rum.toml, with the ports that are seen in running VMs. It asks
what to do with them, unless --yes says that nothing needs asking. A file that is
there already is replaced only by someone who is asked and says so.`,
		Example: "  rum-host-agent init\n  rum-host-agent init --yes --port 8080:80 --port 5353/udp",
		Args:    atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return o.run(c.Context(), os.Stdin, c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&o.path, "config", configfile.DefaultPath(), "`FILE` to write")
	c.Flags().BoolVar(&o.yes, "yes", false, "ask nothing; a file that exists is an error")
	c.Flags().StringArrayVar(&o.ports, "port", nil, "a rule, as `[HOST:]GUEST[/PROTO]` with a port or a range on each side; may be repeated")
	return c
}

func (o *initOptions) run(ctx context.Context, in *os.File, out io.Writer) error {
	plan := rumtoml.New()
	for _, s := range o.ports {
		if err := plan.Name(s); err != nil {
			return output.Misuse(fmt.Errorf("--port %q: %w", s, err))
		}
	}
	if o.path == "" {
		return output.Misuse(errors.New("this user has no home; name the file with --config"))
	}
	_, err := os.Lstat(o.path)
	exists := !errors.Is(err, fs.ErrNotExist)
	if exists && o.yes {
		return output.Advise(fmt.Errorf("%s exists", o.path), "remove it, or write another file with --config FILE")
	}
	if !o.yes && !term.IsTerminal(int(in.Fd())) {
		return output.Misuse(errors.New("there is no terminal to ask at; say --yes"))
	}
	// Without an agent nothing is seen, and the file is as good.
	st, err := ask.Status(ctx, o.socket, status.Query{})
	if n := plan.See(st); err == nil && n == 0 {
		fmt.Fprintln(out, "No ports are seen in running VMs.")
	} else if err != nil {
		fmt.Fprintln(out, "No agent runs, so the ports of VMs are not known.")
	}
	if !o.yes {
		// Nothing is written yet, and a read of the terminal does not see ctx: the first Ctrl-C ends the program.
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		if !plan.Ask(in, out, o.path, exists) {
			fmt.Fprintln(out, "Nothing is written.")
			return nil
		}
	}
	if err := plan.Write(o.path, exists); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is written. An agent that runs with it uses it at once.\n", output.Clean(o.path))
	return nil
}
