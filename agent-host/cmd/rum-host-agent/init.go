package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
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
	plan := plan{all: true}
	for _, s := range o.ports {
		r, err := parsePorts(s)
		if err != nil {
			return misuse(fmt.Errorf("--port %q: %w", s, err))
		}
		plan.rules = append(plan.rules, r)
	}
	if o.path == "" {
		return misuse(errors.New("this user has no home; name the file with --config"))
	}
	_, err := os.Lstat(o.path)
	exists := !errors.Is(err, fs.ErrNotExist)
	if exists && o.yes {
		return advise(fmt.Errorf("%s exists", o.path), "remove it, or write another file with --config FILE")
	}
	if !o.yes && !term.IsTerminal(int(in.Fd())) {
		return misuse(errors.New("there is no terminal to ask at; say --yes"))
	}
	// Without an agent nothing is seen, and the file is as good.
	st, err := askStatus(ctx, o.socket, status.Query{})
	plan.seen = seenPorts(st)
	if err == nil && len(plan.seen) == 0 {
		fmt.Fprintln(out, "No ports are seen in running VMs.")
	} else if err != nil {
		fmt.Fprintln(out, "No agent runs, so the ports of VMs are not known.")
	}
	if !o.yes {
		// Nothing is written yet, and a read of the terminal does not see ctx: the first Ctrl-C ends the program.
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		talk := &dialogue{in: bufio.NewReader(in), out: out}
		if !talk.complete(&plan, o.path, exists) {
			fmt.Fprintln(out, "Nothing is written.")
			return nil
		}
	}
	text := plan.text()
	if _, err := config.Parse(o.path, []byte(text)); err != nil {
		return advise(fmt.Errorf("the rules contradict each other: %w", mistakes(err)[0]), "give each host port once")
	}
	if err := writeFile(o.path, text, exists); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is written. An agent that runs with it uses it at once.\n", clean(o.path))
	return nil
}

// seenPorts are the ports of VMs that are forwarded or might be, once each.
func seenPorts(st status.Status) []seenPort {
	var seen []seenPort
	for _, vm := range st.VMs {
		for _, f := range vm.Forwards {
			if len(f.Guest) == 0 {
				continue
			}
			host, low := hostForLow(f)
			if f.State == status.Ignored && !(low && f.Rule == config.DefaultRule) {
				continue
			}
			if !low {
				host = f.Port
			}
			seen = addSeen(seen, seenPort{port: f.Port, host: host, proto: f.Proto, by: []string{describeSeen(vm.Name, f.Process)}})
		}
	}
	leaveApart(seen)
	return seen
}

// hostForLow proposes a host port for what stays in the guest for its low port alone.
func hostForLow(f status.Forward) (host uint16, low bool) {
	addr, err := netip.ParseAddrPort(f.Guest[0])
	if err != nil {
		return 0, false // a socket's path
	}
	return config.HostForLow(portlist.Listener{Proto: f.Proto, Addr: netip.AddrPortFrom(addr.Addr(), f.Port)})
}

// writeFile leaves no half of a file. A new one must not be there, also not since
// it was looked for; an old one is replaced at once, also behind a symbolic link.
func writeFile(path, text string, replace bool) (err error) {
	if replace {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	name := path
	if replace {
		name += ".new"
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil && replace {
		err = os.Rename(name, path)
	}
	if err != nil {
		os.Remove(name)
	}
	return err
}
