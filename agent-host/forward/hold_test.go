package forward_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// held is the rule behind all others, with hold.
func held(d time.Duration) policy.Rules {
	return func(vm string, l portlist.Listener) policy.Decision {
		decision := policy.SamePort(vm, l)
		decision.Hold = d
		return decision
	}
}

// asStatic are rules that are static, for what Static tells of.
func asStatic(rules policy.Rules) policy.Rules {
	return func(vm string, l portlist.Listener) policy.Decision {
		d := rules(vm, l)
		d.Static = true
		return d
	}
}

// restarting is an echo server in the guest that stops and starts, on a port that
// nothing else takes meanwhile.
type restarting struct {
	port    uint16
	address string
	l       net.Listener
	conns   sync.WaitGroup
}

func newRestarting(t *testing.T) *restarting {
	port := ownnet.FreePort(t)
	s := &restarting{port: port, address: addr("127.0.0.3", port)}
	t.Cleanup(s.stop)
	return s
}

func (s *restarting) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.l = l
	s.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
}

func (s *restarting) stop() {
	if s.l != nil {
		s.l.Close()
		s.l = nil
	}
	s.conns.Wait()
}

// asks connects and says something, which comes back once somebody is there.
func asks(t *testing.T, address string) (answer <-chan error) {
	t.Helper()
	c := dial(t, address)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer c.Close()
		got := make([]byte, 5)
		_, err := io.ReadFull(c, got)
		if err == nil && string(got) != "hello" {
			err = errors.New("another answer")
		}
		done <- err
	}()
	return done
}

func isHeld(all []status.Forward) bool {
	return len(all) == 1 && all[0].State == status.Active && all[0].Reason == status.Held && len(all[0].Guest) == 0
}

func waiting(n int64) func([]status.Forward) bool {
	return func(all []status.Forward) bool { return len(all) == 1 && all[0].ConnectionsActive == n }
}

func TestClientsWaitForAServiceThatRestarts(t *testing.T) {
	s := newRestarting(t)
	vm := newTable(t, forward.Config{Rules: held(time.Minute)}).Add("dev")
	vm.SetLink(linkTo(s.address))
	there := listeners(s.port, "0.0.0.0")
	for range 3 {
		s.start(t)
		vm.Announce(there)
		if f := one(t, vm); f.State != status.Active || f.Reason != "" {
			t.Errorf("while it is there: %+v", f)
		}
		if err := <-asks(t, addr("127.0.0.1", s.port)); err != nil {
			t.Fatal(err)
		}
		s.stop()
		early := asks(t, addr("127.0.0.1", s.port)) // the guest has not told yet
		vm.Announce(nil)
		if all := vm.Status(); !isHeld(all) {
			t.Errorf("while it is not there: %+v", all)
		}
		late := asks(t, addr("::1", s.port))
		eventually(t, vm, "both wait", waiting(2))
		s.start(t)
		vm.Announce(there)
		if err := errors.Join(<-early, <-late); err != nil {
			t.Fatal(err)
		}
		eventually(t, vm, "both have gone", waiting(0))
		s.stop()
	}
	if f := one(t, vm); f.LastError != "" || f.BytesOut != 3*3*5 {
		t.Errorf("%+v", f)
	}
}

// A service that is back before its end was seen is announced as if nothing had been.
func TestAServiceThatIsBackUnseenIsFound(t *testing.T) {
	s := newRestarting(t)
	vm := newTable(t, forward.Config{Rules: held(time.Minute)}).Add("dev")
	vm.SetLink(linkTo(s.address))
	vm.Announce(listeners(s.port, "0.0.0.0"))
	answer := asks(t, addr("127.0.0.1", s.port))
	eventually(t, vm, "it waits", waiting(1))
	s.start(t)
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

func TestAServiceThatDoesNotComeBackIsRefusedAsEver(t *testing.T) {
	s := newRestarting(t)
	vm := newTable(t, forward.Config{Rules: held(500 * time.Millisecond)}).Add("dev")
	vm.SetLink(linkTo(s.address))
	vm.Announce(listeners(s.port, "0.0.0.0"))
	vm.Announce(nil)
	answer := asks(t, addr("127.0.0.1", s.port))
	if err := <-answer; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	eventually(t, vm, "the port is closed", func(all []status.Forward) bool { return len(all) == 0 })
	wantClosed(t, addr("127.0.0.1", s.port))
}

func TestClientsOfAStaticRuleWaitForItsFirstService(t *testing.T) {
	for name, link := range map[string]bool{"the guest is there": true, "nor is the guest": false} {
		t.Run(name, func(t *testing.T) {
			s := newRestarting(t)
			static := func(string) []portlist.Listener { return listeners(s.port, "0.0.0.0") }
			vm := newTable(t, forward.Config{Rules: asStatic(held(time.Minute)), Static: static}).Add("dev")
			if link {
				vm.SetLink(linkTo(s.address))
			}
			vm.Announce(nil)
			if all := vm.Status(); !isHeld(all) {
				t.Errorf("%+v", all)
			}
			answer := asks(t, addr("127.0.0.1", s.port))
			eventually(t, vm, "it waits", waiting(1))
			s.start(t)
			vm.SetLink(linkTo(s.address))
			if err := <-answer; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAClientOfAStaticRuleWaitsNoLongerThanItSays(t *testing.T) {
	s := newRestarting(t)
	static := func(string) []portlist.Listener { return listeners(s.port, "0.0.0.0") }
	vm := newTable(t, forward.Config{Rules: asStatic(held(100 * time.Millisecond)), Static: static}).Add("dev")
	vm.SetLink(linkTo(s.address))
	vm.Announce(nil)
	if err := <-asks(t, addr("127.0.0.1", s.port)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	eventually(t, vm, "the reason is shown", func(all []status.Forward) bool {
		return strings.Contains(all[0].LastError, "the service did not come within 100ms: ") && strings.Contains(all[0].LastError, "refused")
	})
	if !isHeld(vm.Status()) {
		t.Errorf("%+v", vm.Status())
	}
}

func TestNoMoreThan64ClientsWaitAndThoseWhoGoMakeRoom(t *testing.T) {
	const most = 64
	s := newRestarting(t)
	vm := newTable(t, forward.Config{Rules: held(time.Minute)}).Add("dev")
	vm.SetLink(linkTo(s.address))
	vm.Announce(listeners(s.port, "0.0.0.0"))
	vm.Announce(nil)
	var gone []*net.TCPConn
	turnedAway := make(chan error, most+1) // one of them, and not always the last
	for range most + 1 {
		c := dial(t, addr("127.0.0.1", s.port))
		gone = append(gone, c)
		go func() {
			_, err := c.Read(make([]byte, 1))
			turnedAway <- err
		}()
	}
	if err := <-turnedAway; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("want a reset, got %v", err)
	}
	eventually(t, vm, "all others wait", waiting(most))
	eventually(t, vm, "the reason is shown", func(all []status.Forward) bool {
		return strings.Contains(all[0].LastError, "64 clients wait for the service already")
	})
	for _, c := range gone {
		_ = c.SetLinger(0)
		c.Close()
	}
	eventually(t, vm, "all have gone", waiting(0))
	var answers []<-chan error
	for range most {
		answers = append(answers, asks(t, addr("127.0.0.1", s.port)))
	}
	eventually(t, vm, "others wait", waiting(most))
	s.start(t)
	vm.Announce(listeners(s.port, "0.0.0.0"))
	for _, a := range answers {
		if err := <-a; err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatRulesHoldNoMoreGoesAtOnce(t *testing.T) {
	for name, rules := range map[string]policy.Rules{
		"no hold": nil,
		"kept in the guest": func(string, portlist.Listener) policy.Decision {
			return policy.Decision{Verdict: status.Ignored, Hold: time.Minute}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRestarting(t)
			table := newTable(t, forward.Config{Rules: held(time.Minute)})
			vm := table.Add("dev")
			vm.SetLink(linkTo(s.address))
			vm.Announce(listeners(s.port, "0.0.0.0"))
			vm.Announce(nil)
			answer := asks(t, addr("127.0.0.1", s.port))
			eventually(t, vm, "it waits", waiting(1))
			table.SetRules(rules, nil, nil, nil)
			if all := vm.Status(); len(all) != 0 {
				t.Errorf("%+v", all)
			}
			if err := <-answer; !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("%v, want a reset", err)
			}
			wantClosed(t, addr("127.0.0.1", s.port))
		})
	}
}

// Nobody knows what listens while the agent is away, and the ports of a VM that went are
// better free.
func TestWithoutALinkNothingIsHeld(t *testing.T) {
	s := newRestarting(t)
	vm := newTable(t, forward.Config{Rules: held(time.Minute)}).Add("dev")
	vm.SetLink(linkTo(s.address))
	vm.Announce(listeners(s.port, "0.0.0.0"))
	vm.SetLink(nil)
	vm.Announce(nil)
	if all := vm.Status(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// What is back on another address, or is another's by now, is not kept from its place.
func TestAHeldPortGivesWayToWhatListensThere(t *testing.T) {
	s := newRestarting(t)
	vm := newTable(t, forward.Config{Rules: held(time.Minute)}).Add("dev")
	vm.SetLink(linkTo(s.address))
	vm.Announce(listeners(s.port, "127.0.0.1"))
	vm.Announce(nil)
	vm.Announce(listeners(s.port, "192.168.5.15"))
	f := one(t, vm)
	if f.State != status.Active || f.Reason != "" || f.Guest[0] != addr("192.168.5.15", s.port) {
		t.Errorf("%+v", f)
	}
}
