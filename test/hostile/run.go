package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// result is what a run measured.
type result struct {
	peak     int           // MiB, of the agent's memory (VmHWM)
	cpu      float64       // of one processor, while measured
	lines    int           // of its log
	trip     time.Duration // median, of the honest guest's client
	port     time.Duration // median, from listen in the honest guest to an answer
	unserved int           // round trips that failed
}

// tripPause is the time between two round trips, which are not to be what the host agent
// is busy with.
const tripPause = 2 * time.Millisecond

// patience is how long the honest guest's service may be out of reach before it counts
// as such; a machine that is busy with something else gives it late, too.
const patience = 20 * time.Second

// killAt is where an agent that grows is killed, in MiB.
const killAt = 600

// measure runs a host agent and an honest guest beside what is hostile to one of them, or
// beside the same flood into a sink.
func measure(ctx context.Context, bin string, m mode, hostile bool, period time.Duration) (r result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "rum-hostile")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	good, evil, control := filepath.Join(dir, "good"), filepath.Join(dir, "evil"), filepath.Join(dir, "control")

	var children sync.WaitGroup
	defer children.Wait()
	defer cancel()
	start := func(cmd *exec.Cmd) error {
		cmd.WaitDelay = time.Second
		if err := cmd.Start(); err != nil {
			return err
		}
		children.Go(func() { _ = cmd.Wait() })
		return nil
	}
	guestLog, log := &lineCounter{}, &lineCounter{}
	guest := self(ctx, "guest", true, bin, good)
	guest.Stderr = guestLog
	orders, err := guest.StdinPipe()
	if err != nil {
		return r, err
	}
	said, err := guest.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := start(guest); err != nil {
		return r, err
	}
	var pid int
	if _, err := fmt.Fscan(said, &pid); err != nil {
		return r, fmt.Errorf("the guest agent does not start: %w\n%s", err, guestLog.text())
	}
	args := []string{"run", "--http", "none", "--socket", control, "--vm", "good=unix:" + good}
	if m.rules != "" {
		rules := filepath.Join(dir, "rum.toml")
		if err := os.WriteFile(rules, []byte(m.rules), 0o600); err != nil {
			return r, err
		}
		args = append(args, "--config", rules)
	}
	ofHost := m.victim() == "host agent"
	if hostile && ofHost {
		args = append(args, "--vm", "evil="+m.endpoint(evil))
		if err := start(self(ctx, "evil", false, m.name, evil)); err != nil {
			return r, err
		}
	} else if err := start(self(ctx, "sink", false, evil)); err != nil {
		return r, err
	}
	host := exec.CommandContext(ctx, filepath.Join(bin, "rum-host-agent"), args...)
	host.Stderr = log
	host.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := start(host); err != nil {
		return r, err
	}
	client, err := dialUntil(ctx, goodPort, 20*time.Second)
	if err != nil {
		return r, fmt.Errorf("the honest guest is not served: %w\n%s", err, log.text())
	}
	defer client.Close()
	switch {
	case hostile && m.user != nil:
		err = start(self(ctx, "user", false, m.name, good))
	case hostile && m.local != nil:
		_, err = fmt.Fprintln(orders, m.name)
	case hostile && (m.clients > 0 || m.asks):
		err = start(self(ctx, "clients", false, m.name)) // not in here, where they would delay what is measured
	case hostile:
	case m.local != nil:
		err = start(self(ctx, "program", true, m.name))
	default:
		for range 100 { // until the sink is there
			if _, serr := os.Stat(evil); serr == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		err = start(self(ctx, "flood", false, m.name, evil))
	}
	if err != nil {
		return r, err
	}

	if ofHost {
		pid = host.Process.Pid
	} else {
		log = guestLog
	}
	began, used := time.Now(), cpuOf(pid)
	var trips, ports []time.Duration
	next := began
	for n := 1; time.Since(began) < period && ctx.Err() == nil; {
		trip, err := roundTrip(client)
		if err != nil {
			r.unserved++
			if client, err = dialUntil(ctx, goodPort, patience); err != nil {
				break
			}
			continue
		}
		trips = append(trips, trip)
		time.Sleep(tripPause)
		if memoryOf(pid, "VmRSS") > killAt {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			r.peak = killAt
			return r, nil
		}
		if time.Now().After(next) {
			next = time.Now().Add(min(period/5, time.Second/4))
			at := time.Now()
			fmt.Fprintln(orders, goodPort+n)
			c, err := dialUntil(ctx, goodPort+n, patience)
			if err != nil {
				r.unserved++
			} else {
				ports = append(ports, time.Since(at))
				_ = c.Close()
			}
			n++
		}
	}
	r.cpu = float64(cpuOf(pid)-used) / float64(time.Since(began))
	r.peak, r.lines = memoryOf(pid, "VmHWM"), log.count()
	r.trip, r.port = median(trips), median(ports)
	return r, nil
}

// disturb does what clients of the hostile guest do, until ctx ends.
func (m mode) disturb(ctx context.Context) {
	for range m.clients {
		go func() {
			if c, err := dialUntil(ctx, evilTCP, 5*time.Second); err == nil {
				if m.sends {
					go spew(chunk)(c)
				}
				<-ctx.Done()
				_ = c.Close()
			}
		}()
	}
	if m.asks {
		go func() {
			c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", evilUDP))
			if err != nil {
				return
			}
			defer c.Close()
			for ctx.Err() == nil {
				_, _ = c.Write([]byte("?")) // and never reads
				time.Sleep(100 * time.Millisecond)
			}
		}()
	}
}

// dialUntil connects to a port of this host that somebody is about to open, and has an
// answer.
func dialUntil(ctx context.Context, port int, limit time.Duration) (net.Conn, error) {
	var last error
	began := time.Now()
	for ; time.Since(began) < limit && ctx.Err() == nil; pauseAfter(time.Since(began)) {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			last = err
			continue
		}
		if port == evilTCP {
			return c, nil // which does not answer
		}
		if _, last = roundTrip(c); last == nil {
			return c, nil
		}
		_ = c.Close()
	}
	return nil, errors.Join(last, ctx.Err())
}

// pauseAfter is the pause between two tries: a port opens within milliseconds, or something
// keeps it. It is the kernel's: where there is nothing else to do, Go's sleep lasts for a
// millisecond (netpoll in runtime/netpoll_epoll.go).
func pauseAfter(waited time.Duration) {
	pause := 200 * time.Microsecond
	if waited > 50*time.Millisecond {
		pause = 2 * time.Millisecond
	}
	_ = unix.Nanosleep(&unix.Timespec{Nsec: pause.Nanoseconds()}, nil)
}

func roundTrip(c net.Conn) (time.Duration, error) {
	var b [64]byte
	began := time.Now()
	_ = c.SetDeadline(began.Add(5 * time.Second))
	if _, err := c.Write(b[:]); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, b[:])
	return time.Since(began), err
}

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// cpuOf is the processor time of a process. A tick is 10 ms (USER_HZ, time(7)).
func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memoryOf is a line of /proc/PID/status in MiB.
func memoryOf(pid int, key string) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), key+":")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.Atoi(fields[0])
	return kib / 1024
}

// lineCounter counts lines, but for those about the honest VM, which has many new ports,
// and keeps the last of them.
type lineCounter struct {
	mu   sync.Mutex
	n    int
	last []byte
}

func (l *lineCounter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n += bytes.Count(b, []byte("\n")) - bytes.Count(b, []byte(" vm=good "))
	l.last = append(l.last, b...)
	l.last = l.last[max(0, len(l.last)-4096):]
	return len(b), nil
}

func (l *lineCounter) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

func (l *lineCounter) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.last)
}
