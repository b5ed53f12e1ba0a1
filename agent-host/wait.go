package hostagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// A port is tried when something has happened, and while nothing does: what the guest does not
// announce may be there, as behind a static rule.
const (
	waitRetryMin = 50 * time.Millisecond
	waitRetryMax = time.Second
)

var errHappened = errors.New("something has happened")

// Wait returns as soon as a port, which it has in the guest or on the host, answers through a
// forward in the VM of that name or, if that is empty, in any. The error is why it did not when
// ctx ended. A UDP port answers when it is forwarded and somebody listens.
func (a *Agent) Wait(ctx context.Context, vm, proto string, port uint16) (status.Answer, error) {
	cursor := a.Events().Now()
	for retry := waitRetryMin; ; retry = min(2*retry, waitRetryMax) {
		answer, err := a.try(ctx, vm, proto, port)
		if err == nil {
			return answer, nil
		}
		pause, cancel := context.WithTimeout(ctx, retry)
		_ = a.Events().Follow(pause, cursor, func(all []events.Event) error {
			cursor = all[len(all)-1].Cursor
			return errHappened
		})
		cancel()
		if ctx.Err() != nil {
			return status.Answer{}, err
		}
	}
}

// try reports where a port answers, or why it does not.
func (a *Agent) try(ctx context.Context, vm, proto string, port uint16) (status.Answer, error) {
	var failed error
	for st := range a.VMs(status.Query{VM: vm, Port: port}) {
		for _, f := range st.Forwards {
			if f.Proto != proto || f.Reverse || f.State != status.Active {
				continue
			}
			err := a.tryForward(ctx, st.Name, f)
			if err == nil {
				return status.Answer{Answers: true, VM: st.Name, Host: f.Listening}, nil
			}
			failed = err
		}
	}
	all := a.Explain(vm, proto, port)
	for _, e := range all {
		if i := slices.IndexFunc(e.Steps, func(s status.Step) bool { return s.Name == status.StepLink && !s.OK }); i >= 0 {
			return status.Answer{}, errors.New(e.Steps[i].Text) // and all else for this
		}
	}
	if failed != nil {
		return status.Answer{}, failed
	}
	for _, e := range all {
		if i := slices.IndexFunc(e.Steps, func(s status.Step) bool { return !s.OK }); i >= 0 {
			return status.Answer{}, errors.New(e.Steps[i].Text)
		}
	}
	return status.Answer{}, errors.New("there is no such VM")
}

func (a *Agent) tryForward(ctx context.Context, vm string, f status.Forward) error {
	if f.Proto == "udp" {
		if len(f.Guest) == 0 {
			return errors.New("nothing listens in the guest")
		}
		return nil
	}
	a.mu.Lock()
	v := a.find(vm)
	a.mu.Unlock()
	if v == nil {
		return fmt.Errorf("the VM %s has gone", vm)
	}
	err := errors.New("it is not open on the host any more")
	for _, s := range v.forwards.Services(f.Proto, f.Port) {
		if err = s.Probe(ctx); err == nil {
			return nil
		}
	}
	return err
}
