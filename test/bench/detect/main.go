package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/test/vm"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

type options struct {
	bin     string
	trials  int
	starts  int
	idle    time.Duration
	sources []string
	in      []string
}

func main() {
	var o options
	pflag.StringVar(&o.bin, "bin", "bin", "the `DIRECTORY` with the agents")
	pflag.IntVar(&o.trials, "trials", 1000, "measure each `NUMBER` of times")
	pflag.IntVar(&o.starts, "starts", 20, "start a guest agent this `NUMBER` of times after a long absence")
	pflag.DurationVar(&o.idle, "idle", time.Minute, "count what idle agents do for this long")
	pflag.StringSliceVar(&o.in, "in", []string{"namespace", "vm"}, "the kinds of guests to measure")
	pflag.StringSliceVar(&o.sources, "sources", []string{"ebpf", "tracepoint", "poll"}, "the sources of events to measure")
	inside := pflag.Bool("inside", false, "for the program itself")
	serve := pflag.Bool("serve", false, "for the program itself")
	overVsock := pflag.Bool("over-vsock", false, "for the program itself")
	held := pflag.String("hold", "", "for the program itself")
	pflag.Parse()
	var err error
	switch {
	case *serve:
		err = serveTrials()
	case *held != "":
		err = hold(*held)
	case *overVsock:
		err = startsOverVsock(o)
	case *inside:
		err = runInside(o)
	default:
		err = enter(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "detect:", err)
		os.Exit(1)
	}
}

// enter runs this program again in namespaces of its own, which take everything it left
// with them.
func enter(o options) error {
	if os.Geteuid() != 0 {
		return errors.New("programs in the kernel take root: sudo make bench-detect")
	}
	if slices.Contains(o.in, "vm") {
		// There is no network inside.
		if _, err := vm.FetchKernel(context.Background(), os.Stderr); err != nil {
			return err
		}
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"--inside"}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	return cmd.Run()
}

func runInside(o options) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	if err := os.Setenv("XDG_RUNTIME_DIR", "/run"); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bring up loopback: %w: %s", err, out)
	}
	if slices.Contains(o.in, "namespace") {
		if err := measureNamespace(o); err != nil {
			return fmt.Errorf("in a namespace: %w", err)
		}
	}
	if slices.Contains(o.in, "vm") {
		for _, source := range o.sources {
			if err := measureVM(o, source); err != nil {
				return fmt.Errorf("in a VM, %s: %w", source, err)
			}
		}
		if o.starts > 0 {
			if err := measureVsock(o); err != nil {
				return fmt.Errorf("in a VM, over vsock: %w", err)
			}
		}
	}
	printNeighbours()
	return nil
}

func measureNamespace(o options) error {
	guest, err := newNamespace()
	if err != nil {
		return err
	}
	for _, source := range o.sources {
		if err := measureSource(o, guest, source); err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
	}
	fmt.Println()
	if err := dumps(guest); err != nil {
		return fmt.Errorf("a look at everything: %w", err)
	}
	return nil
}

// settled is after the last look-up of names that a change is followed by.
const settled = 8 * time.Second

const idleHead = "  %-34s %12s %12s %14s\n"

// without is what keeps the better sources from a guest agent.
var without = map[string]string{
	"ebpf":       "",
	"tracepoint": hideCgroups + "mount -t tracefs tracefs /sys/kernel/tracing && ",
	"poll":       hideCgroups + "umount -a -t tracefs; ",
}

// hideCgroups ends the mounts of cgroup v2 in a mount namespace.
const hideCgroups = "while umount -a -t cgroup2 && grep -q ' - cgroup2 ' /proc/self/mountinfo; do :; done; "

func measureSource(o options, guest *namespace, source string) (err error) {
	agents := &agents{listen: []string{"--listen", "unix:" + linkSocket}}
	defer func() {
		if stopErr := agents.stop(); err == nil {
			err = stopErr
		}
	}()
	if err := agents.startGuest(o.bin, guest, without[source]); err != nil {
		return err
	}
	fmt.Printf("\nin a namespace, %s (the guest agent says: %s)\n", source, sources(agents.guestLog.String()))
	if o.idle > 0 {
		time.Sleep(settled)
		fmt.Printf(idleHead, "idle for "+o.idle.String(), "switches/s", "% of a core", "RSS MiB")
		if err := agents.idle(o.idle, "no host"); err != nil {
			return err
		}
	}
	if err := agents.startHost(o.bin, "unix:"+linkSocket); err != nil {
		return err
	}
	if err := trials(o.trials, &inNamespace{namespace: guest}, paceInNamespace); err != nil {
		return err
	}
	again, err := restarts(guest, o.trials)
	if err != nil {
		return err
	}
	fmt.Printf("  %-34s %s   %d of %d after 5 ms, %d after 50\n", "TCP restart to first answer", again,
		again.later(5*time.Millisecond), len(again), again.later(50*time.Millisecond))
	if source == "ebpf" && o.starts > 0 {
		began, err := agents.starts(o.bin, guest, o.starts)
		if err != nil {
			return err
		}
		fmt.Printf("  %-34s %s\n", "agent's start to first answer", began)
	}
	if o.idle <= 0 {
		return nil
	}
	fmt.Printf(idleHead, "idle for "+o.idle.String(), "switches/s", "% of a core", "RSS MiB")
	for _, ports := range []int{0, 20} {
		closeAll, err := guest.listenMany(ports)
		if err != nil {
			return err
		}
		time.Sleep(settled)
		if err := agents.idle(o.idle, fmt.Sprintf("%d ports", ports)); err != nil {
			return err
		}
		closeAll()
	}
	return nil
}

// trials prints how long it takes for ports of a guest to be seen.
func trials(count int, g guest, p pace) error {
	fmt.Printf("  %-34s %8s %8s %8s %8s   %s\n", "ms", "p50", "p90", "p99", "max", "over-sleep p50/p99/max")
	for _, t := range []trial{tcpTrial, udpTrial} {
		control := startControl()
		var up, down times
		for range count {
			opened, closed, err := t.run(g, p)
			if err != nil {
				return err
			}
			up, down = append(up, opened), append(down, closed)
			pauseBetween()
		}
		late := control.stop()
		fmt.Printf("  %-34s %s   %s\n", t.proto+" listen() to first answer", up, late.short())
		fmt.Printf("  %-34s %s\n", t.proto+" close() to refusal", down)
	}
	return nil
}
