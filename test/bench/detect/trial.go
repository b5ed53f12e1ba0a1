package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	port = 8080
	// between is the time from one try of the client to the next.
	between = 100 * time.Microsecond
	// patience is how long a trial may take.
	patience = 10 * time.Second
)

var errPatience = fmt.Errorf("waited for %v in vain", patience)

// pace is the time from one try of the client to the next: until the port is there, while
// the host itself refuses, and until it is not there any more.
type pace struct{ open, closed time.Duration }

var (
	// At a fifth of that, the connections that fail keep the kernel so busy that it leaves some to a thread of its
	// own (ksoftirqd), for which the one that counts then waits 10 ms in one trial of a hundred.
	paceInNamespace = pace{between, between}
	// A VM is emulated where nothing better is to be had, and so slow then that a client which
	// reaches it more often is a flood.
	paceInVM = pace{500 * time.Microsecond, 25 * time.Millisecond}
)

// guest opens and closes the one port that is asked for, and says when that was done, by
// the clock of this machine.
type guest interface {
	// open may return before the port is open; at waits for that.
	open(proto string) (at func() (time.Time, error), err error)
	close() (at time.Time, err error)
}

// trial measures how long it takes for a port that opens in the guest, and closes again, to
// be seen from the host.
type trial struct {
	proto          string
	opened, closed func() bool // whether the client sees it
}

func (t trial) run(g guest, p pace) (opened, closed time.Duration, err error) {
	at, err := g.open(t.proto)
	if err != nil {
		return 0, 0, err
	}
	answered, err := until(t.opened, p.open)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: an answer: %w", t.proto, err)
	}
	start, err := at()
	if err != nil {
		return 0, 0, err
	}
	opened = answered.Sub(start)
	pauseBetween()
	if start, err = g.close(); err != nil {
		return 0, 0, err
	}
	refused, err := until(t.closed, p.closed)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: a refusal: %w", t.proto, err)
	}
	return opened, refused.Sub(start), nil
}

// pauseBetween lets the agents rest between two trials, for a time that has nothing to
// do with the clock that one of them may look by.
func pauseBetween() {
	time.Sleep(40*time.Millisecond + time.Duration(rand.N(int64(100*time.Millisecond))))
}

var (
	tcpTrial = trial{"TCP", asked, refused}
	udpTrial = trial{"UDP", askedUDP, refusedUDP}
)

// times are what was measured.
type times []time.Duration

func (t times) at(part float64) float64 {
	s := slices.Sorted(slices.Values(t))
	if len(s) == 0 {
		return 0
	}
	return float64(s[min(int(part*float64(len(s))), len(s)-1)].Microseconds()) / 1000
}

func (t times) String() string {
	return fmt.Sprintf("%8.2f %8.2f %8.2f %8.2f", t.at(0.5), t.at(0.9), t.at(0.99), t.at(1))
}

func (t times) short() string {
	return fmt.Sprintf("%.2f/%.2f/%.2f", t.at(0.5), t.at(0.99), t.at(1))
}

// control measures how late this machine is at what it is asked for.
type control struct {
	quit chan struct{}
	late chan times
}

func startControl() control {
	c := control{make(chan struct{}), make(chan times)}
	go func() {
		var late times
		for {
			select {
			case <-c.quit:
				c.late <- late
				return
			default:
			}
			start := time.Now()
			time.Sleep(time.Millisecond)
			late = append(late, time.Since(start)-time.Millisecond)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return c
}

func (c control) stop() times {
	close(c.quit)
	return <-c.late
}
