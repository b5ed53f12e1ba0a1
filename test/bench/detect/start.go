package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// rested is how long a guest agent is away before it is started again. The host tries at its longest intervals by
// then: every 0.5 s for 15 s, and after 1, 2 and 4 more.
const rested = 25 * time.Second

// starts measures how long it takes from the start of a guest agent, for which the host has
// waited for long, to the first answer of a service that listens.
func (a *agents) starts(bin string, guest *namespace, count int) (took times, err error) {
	server := inNamespace{namespace: guest}
	if _, err := server.open("TCP"); err != nil {
		return nil, err
	}
	defer server.close()
	for range count {
		if err := a.guest.Process.Signal(unix.SIGTERM); err != nil {
			return nil, err
		}
		if err := a.guest.Wait(); err != nil {
			return nil, err
		}
		time.Sleep(rested)
		if err := guest.do(func() error { return a.launchGuest(bin, "") }); err != nil {
			return nil, err
		}
		start := time.Now()
		at, err := until(asked, between)
		if err != nil {
			return nil, fmt.Errorf("a started agent: an answer: %w", err)
		}
		took = append(took, at.Sub(start))
	}
	return took, nil
}
