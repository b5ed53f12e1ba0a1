package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// A crowd are VMs that announce the same ports, as many as can be announced.
const (
	crowdName  = "twenty VMs"
	crowdVMs   = 20
	crowdPorts = 4096
	crowdFirst = 10_000
	crowdRoom  = 400                    // descriptors for listeners, for each VM
	crowdPause = 300 * time.Millisecond // between new ports of the good VM
)

// Bounds of what a crowd may cost.
const (
	maxSettled = 5 * time.Second
	maxStatus  = 100 * time.Millisecond
	maxJSON    = 2 * time.Second
)

// crowdResult is what happened beside a crowd.
type crowdResult struct {
	vms            int
	room           int           // descriptors that listeners may take
	settled        time.Duration // until every port was bound or denied
	status, ofVM   time.Duration // the slowest of rum-host-agent status, and of status VM
	json           time.Duration // of status --json
	nothing        time.Duration // of a command that asks nothing, for all of these are processes
	answer         time.Duration // the slowest answer of the honest guest's agent to a program that asks for a status
	before, during time.Duration // median, from listen in the honest guest to an answer
	peak           int           // MiB
	unserved       int           // ports of the honest guest that were not
	listeners      int           // that the crowd has
	least, most    int           // of one of them
	denied         int           // ports of the crowd that there is no room for
	silent         int           // that are not bound, without a reason
}

// bad says which bounds do not hold, beside what is measured where the honest guest has an agent apart from the crowd's: the processors
// are theirs all the same.
func (r crowdResult) bad(apart crowdResult) (all []string) {
	for _, b := range []struct {
		what string
		is   bool
	}{
		{"settled", r.settled > maxSettled || r.settled == 0},
		{"answer", r.answer > maxStatus+apart.answer},
		{"status", max(r.status, r.ofVM) > maxStatus+r.nothing},
		{"status --json", r.json > maxJSON+r.nothing},
		{"new port", float64(r.during) > maxRatio*float64(apart.during)},
		{"memory", r.peak >= maxPeak},
	} {
		if b.is {
			all = append(all, b.what)
		}
	}
	return append(all, r.unfair()...)
}

// unfair says what no hurry excuses.
func (r crowdResult) unfair() (all []string) {
	if r.unserved > 0 {
		all = append(all, "unserved")
	}
	if r.silent > 0 {
		all = append(all, "denied without a reason")
	}
	if r.listeners > r.room || r.listeners < r.room*9/10 {
		all = append(all, "not what there is room for")
	}
	if r.least < r.most*3/4 {
		all = append(all, "unfair")
	}
	return all
}

// beside writes it beside what is measured where the honest guest has an agent of its own.
func (r crowdResult) beside(apart crowdResult) string {
	return fmt.Sprintf("%d VMs: settled in %v (<%v); status %v, status VM %v (<%v), --json %v (<%v) at most, beside\n"+
		"  %v for a command that asks nothing; a program is answered in %v (<%v), beside %v by an agent apart from the crowd's;\n"+
		"  a good VM's new port %v, beside %v by an agent apart and %v before the crowd; %d MiB (<%d);\n"+
		"  %d listeners of %d, %d to %d each; %d denied, %d without a reason",
		r.vms, r.settled, maxSettled, r.status, r.ofVM, maxStatus, r.json, maxJSON,
		r.nothing, r.answer, maxStatus, apart.answer, r.during, apart.during, r.before,
		r.peak, maxPeak, r.listeners, r.room, r.least, r.most, r.denied, r.silent)
}

// crowdOf is a crowd's VMs, at unix sockets in a directory, which announce their ports
// when standard input has a line.
func crowdOf(dir string, vms int) error {
	begin := make(chan struct{})
	m := mode{polite: true, session: func(s *session) {
		<-begin
		// Beside those that are announced at first, and each of another user and program, so that nothing is shared.
		ports := listenersWith(0, make([]byte, 4), crowdFirst, crowdPorts-2, func(i int) listener {
			return listener{process: fmt.Sprintf("%s%d[%d]", strings.Repeat("x", 80), i, i), uid: uint32(i)}
		})
		_ = s.control(message(messageDelta, append(append(append(number(1), number(2)...), 0, 0), ports...)))
	}}
	for i := range vms {
		l, err := net.Listen("unix", crowdSocket(dir, i))
		if err != nil {
			return err
		}
		go serve(m, l)
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	close(begin)
	select {}
}

func crowdSocket(dir string, i int) string { return filepath.Join(dir, fmt.Sprint("crowd", i)) }

// measureCrowd runs a host agent, an honest guest and a crowd, and measures for a period, then
// until all is settled, and for a period after that. Where apart is set the honest guest has a host agent of its own, which
// shares no more with the crowd's than the machine.
func measureCrowd(ctx context.Context, bin string, vms int, period time.Duration, apart bool) (r crowdResult, err error) {
	r.vms, r.room = vms, vms*crowdRoom
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "rum-hostile")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	var children sync.WaitGroup
	defer children.Wait()
	defer cancel()
	// start starts a part that says a line when it is ready.
	start := func(cmd *exec.Cmd) (orders io.Writer, err error) {
		cmd.WaitDelay = time.Second
		if orders, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
		said, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		_, err = bufio.NewReader(said).ReadString('\n')
		children.Go(func() { _ = cmd.Wait() })
		return orders, err
	}
	good, socket := filepath.Join(dir, "good"), filepath.Join(dir, "control")
	guest := self(ctx, "guest", true, bin, good)
	guest.Stderr = nil
	orders, err := start(guest)
	if err != nil {
		return r, fmt.Errorf("the honest guest: %w", err)
	}
	begin, err := start(self(ctx, "crowd", false, dir, fmt.Sprint(vms)))
	if err != nil {
		return r, fmt.Errorf("the crowd: %w", err)
	}
	log := &lineCounter{}
	// agent starts a host agent. So many descriptors are far fewer than the crowd asks for.
	agent := func(socket string, vms ...string) (*exec.Cmd, error) {
		args := []string{"-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, 2*r.room), "sh", filepath.Join(bin, "rum-host-agent"), "run", "--http", "none", "--socket", socket}
		for _, vm := range vms {
			args = append(args, "--vm", vm)
		}
		host := exec.CommandContext(ctx, "/bin/sh", args...)
		host.Stderr, host.WaitDelay = log, time.Second
		host.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := host.Start(); err != nil {
			return nil, err
		}
		children.Go(func() { _ = host.Wait() })
		return host, nil
	}
	crowd := []string{"good=unix:" + good}
	goods := socket
	if apart {
		goods = filepath.Join(dir, "apart")
		if _, err := agent(goods, crowd...); err != nil {
			return r, err
		}
		crowd = nil
	}
	for i := range vms {
		crowd = append(crowd, fmt.Sprintf("crowd%d=unix:%s", i, crowdSocket(dir, i)))
	}
	host, err := agent(socket, crowd...)
	if err != nil {
		return r, err
	}
	client, err := dialUntil(ctx, goodPort, 20*time.Second)
	if err != nil {
		return r, fmt.Errorf("the honest guest is not served: %w\n%s", err, log.text())
	}
	defer client.Close()

	var unserved atomic.Int32
	port := goodPort
	open := func() time.Duration {
		port++
		at := time.Now()
		fmt.Fprintln(orders, port)
		c, err := dialUntil(ctx, port, 5*time.Second)
		if err != nil {
			unserved.Add(1)
			return 5 * time.Second
		}
		took := time.Since(at)
		_ = c.Close()
		fmt.Fprintf(orders, "-%d\n", port) // a VM with as many as another has its share
		return took
	}
	of, ofGood := control.NewClient(socket), control.NewClient(goods)
	for linked := 0; linked < vms && ctx.Err() == nil; {
		st, err := of.StatusOf(ctx, status.Query{Rows: 1})
		if err != nil {
			return r, err
		}
		linked = 0
		for _, vm := range st.VMs {
			if vm.Name != "good" && vm.Generation > 0 {
				linked++
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	var settling atomic.Bool // whether the crowd's ports have been announced
	measuring, stop := context.WithCancel(ctx)
	defer stop()
	var asking sync.WaitGroup
	// ask has something asked again and again, and keeps the longest time beside the crowd's
	// ports. Before, it is asked too: what it takes from the good VM is no matter of theirs.
	ask := func(longest *time.Duration, pause time.Duration, what func() error) {
		asking.Go(func() {
			for measuring.Err() == nil {
				at, counts := time.Now(), settling.Load()
				if err := what(); err != nil && ctx.Err() == nil {
					unserved.Add(1)
				}
				if counts {
					*longest = max(*longest, time.Since(at))
				}
				time.Sleep(pause)
			}
		})
	}
	command := func(args ...string) func() error {
		return func() error {
			return exec.CommandContext(ctx, filepath.Join(bin, "rum-host-agent"), append(args, "--socket", socket)...).Run()
		}
	}
	ask(&r.status, 500*time.Millisecond, command("status"))
	ask(&r.ofVM, 500*time.Millisecond, command("status", "crowd0"))
	ask(&r.json, 3*time.Second, command("status", "--json"))
	ask(&r.nothing, 500*time.Millisecond, func() error {
		return exec.CommandContext(ctx, filepath.Join(bin, "rum-host-agent"), "version").Run()
	})
	ask(&r.answer, 100*time.Millisecond, func() error {
		_, err := ofGood.StatusOf(ctx, status.Query{Rows: 200})
		return err
	})
	var before, during []time.Duration
	for began := time.Now(); len(before) < 15 || time.Since(began) < period; {
		before = append(before, open())
		time.Sleep(crowdPause)
	}

	began := time.Now()
	settling.Store(true)
	if _, err := fmt.Fprintln(begin); err != nil {
		return r, err
	}
	asking.Go(func() {
		for measuring.Err() == nil {
			during = append(during, open())
			time.Sleep(crowdPause)
		}
	})
	for r.settled == 0 && time.Since(began) < time.Minute && ctx.Err() == nil {
		time.Sleep(250 * time.Millisecond)
		st, err := of.StatusOf(ctx, status.Query{Rows: 1})
		if err != nil {
			return r, err
		}
		if settled(st) {
			r.settled = time.Since(began)
		}
	}
	time.Sleep(period)
	stop()
	asking.Wait()
	r.before, r.during, r.unserved = median(before), median(during), int(unserved.Load())
	r.peak = memoryOf(host.Process.Pid, "VmHWM")
	return r, r.count(ctx, of)
}

// settled reports whether status has every port of a crowd. How they share is looked at
// in the end.
func settled(st status.Status) bool {
	for _, vm := range st.VMs {
		all := len(vm.Forwards)
		for _, n := range vm.More {
			all += n
		}
		if vm.Name != "good" && all < crowdPorts {
			return false
		}
	}
	return true
}

// count counts what the crowd has.
func (r *crowdResult) count(ctx context.Context, agent *control.Client) error {
	st, err := agent.Status(ctx)
	if err != nil {
		return err
	}
	r.least = r.room
	for _, vm := range st.VMs {
		n := 0
		for _, f := range vm.Forwards {
			n += len(f.Listening)
			if f.State == status.Denied {
				r.denied++
			}
			if f.State != status.Active && f.Reason == "" {
				r.silent++
			}
		}
		r.listeners += n
		if vm.Name != "good" {
			r.least, r.most = min(r.least, n), max(r.most, n)
		}
	}
	return nil
}
