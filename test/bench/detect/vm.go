package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/test/vm"
)

// orders is the port at which the server in a VM is told what to do. It is forwarded as
// every port is.
const orders = 7000

// serveTrials opens and closes a port as it is told, line by line, and answers each line
// with its clock when that was done.
func serveTrials() error {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", orders))
	if err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	var s server
	began := time.Now()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		at := time.Now()
		if proto, ok := strings.CutPrefix(lines.Text(), "open "); ok {
			pauseBetween() // until the order is no part of what is measured
			at, err = s.open(proto)
			pauseBetween() // nor is the answer, which goes by the same way as the first request
		} else if lines.Text() == "close" {
			pauseBetween()
			at, err = s.close()
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c, at.Sub(began)); err != nil {
			return err
		}
	}
	return nil
}

// inVM is a server in a VM.
type inVM struct {
	c     net.Conn
	lines *bufio.Scanner
	began time.Time // when the server's clock was at zero
}

func dialVM() (*inVM, error) {
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", orders))
	if err != nil {
		return nil, err
	}
	v := &inVM{c: c, lines: bufio.NewScanner(c)}
	if err := v.setClock(); err != nil {
		_ = c.Close()
		return nil, err
	}
	return v, nil
}

// send has the server do something.
func (v *inVM) send(line string) error {
	_ = v.c.SetDeadline(time.Now().Add(patience))
	_, err := fmt.Fprintln(v.c, line)
	return err
}

// done waits until the server has, and returns when that was by the server's clock.
func (v *inVM) done() (time.Duration, error) {
	if !v.lines.Scan() {
		return 0, fmt.Errorf("the server in the VM has ended: %w", v.lines.Err())
	}
	return time.ParseDuration(v.lines.Text())
}

func (v *inVM) order(line string) (time.Duration, error) {
	if err := v.send(line); err != nil {
		return 0, err
	}
	return v.done()
}

// setClock compares the clocks: of some questions, the one that was answered first is
// wrong by half of what that took at most.
func (v *inVM) setClock() error {
	best := time.Hour
	for range 10 {
		asked := time.Now()
		clock, err := v.order("clock")
		if err != nil {
			return err
		}
		if took := time.Since(asked); took < best {
			best, v.began = took, asked.Add(took/2-clock)
		}
	}
	return nil
}

// open does not wait for the server's word, which may come later than what it tells of.
func (v *inVM) open(proto string) (func() (time.Time, error), error) {
	if err := v.setClock(); err != nil {
		return nil, err
	}
	return func() (time.Time, error) {
		clock, err := v.done()
		return v.began.Add(clock), err
	}, v.send("open " + proto)
}

func (v *inVM) close() (at time.Time, err error) {
	clock, err := v.order("close")
	return v.began.Add(clock), err
}

// withoutInVM is what keeps the better sources from a guest agent in a VM.
var withoutInVM = map[string]string{
	"ebpf":       "",
	"tracepoint": "umount /sys/fs/cgroup && ",
	"poll":       "umount /sys/fs/cgroup && umount /sys/kernel/tracing && ",
}

func measureVM(o options, source string) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	guest, err := vm.Start(ctx, vm.Config{Guest: vm.Initramfs{
		// Init would start an agent of its own before there is something to take away.
		Files: map[string]string{"/bin/agent": filepath.Join(o.bin, "rum-guest-agent"), "/bin/detect": self},
		Script: withoutInVM[source] + "/bin/agent --listen serial:/dev/virtio-ports/" + vm.AgentPort + " &\n" +
			"while :; do /bin/detect --serve; done",
	}})
	if err != nil {
		return err
	}
	defer guest.Stop()
	agents := new(agents)
	defer func() {
		if stopErr := agents.stop(); err == nil {
			err = stopErr
		}
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, guest.Console())
		}
	}()
	if err := guest.Ready(ctx); err != nil {
		return err
	}
	if err := agents.startHost(o.bin, "serial:"+guest.SerialSocket()); err != nil {
		return err
	}
	var server *inVM
	if err := agents.await("the server in the VM", func() bool { server, err = dialVM(); return err == nil }); err != nil {
		return err
	}
	defer server.c.Close()
	fmt.Printf("\nin a VM, %s (the guest agent says: %s)\n", source, sources(guest.Console()))
	return trials(o.trials, server, paceInVM)
}
