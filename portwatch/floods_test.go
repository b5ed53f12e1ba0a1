package portwatch_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/events"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"golang.org/x/sys/unix"
)

func TestLostEventsLeadToALookAtEverything(t *testing.T) {
	alone(t, func(cgroup string) {
		k, err := portwatch.OpenCgroup(cgroup, 4096)
		if err != nil {
			t.Fatal(err)
		}
		w, _ := follow(t, never, k)
		k.Stop()
		var last netip.AddrPort
		for port := 2000; port < 2400; port++ { // 24 bytes each
			addr, closeIt := opener{"udp4", fmt.Sprintf("127.0.0.1:%d", port)}.open(t)
			defer closeIt()
			last = addr
		}
		k.Go()
		until(t, w, "the last of many sockets", has("udp", last))
	})
}

func TestPortsThatFlapCostLittleAndEndAsTheyAre(t *testing.T) {
	alone(t, func(cgroup string) {
		w, _ := follow(t, never, openCgroup(t, cgroup))
		before, _ := w.State()
		start, spent := time.Now(), processTime(t)
		const ports = 1000
		for i := range ports * 2 {
			l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", 2000+i%ports))
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			if ahead := time.Duration(i)*time.Millisecond - time.Since(start); ahead > 0 {
				time.Sleep(ahead)
			}
		}
		took := time.Since(start)
		spent = processTime(t) - spent
		_, addr := listen(t, "tcp4", "127.0.0.1:8080")
		rested := time.Now()
		s := until(t, w, "the last one and no other", func(s portwatch.State) bool {
			return has("tcp", addr)(s) && len(s.Listeners) == 1
		})
		late := time.Since(rested)
		rate := float64(s.Generation-before.Generation) / took.Seconds()
		t.Logf("%.0f changes a second, %v of CPU in %v with the flapping itself, settled after %v", rate, spent, took, late)
		if rate > 220 { // a name may follow each look
			t.Errorf("%.0f changes a second", rate)
		}
	})
}

func TestAFloodOfEventsIsNotReadOneByOneAndHidesNoPort(t *testing.T) {
	alone(t, func(cgroup string) {
		k := openCgroup(t, cgroup)
		w, _ := follow(t, never, k)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var events, late int64
		var flood sync.WaitGroup
		before, start := k.Waits(), time.Now()
		flood.Go(func() {
			for ctx.Err() == nil { // what is gone before it is looked for
				if c, err := net.ListenPacket("udp4", "127.0.0.1:0"); err == nil {
					c.Close()
					events += 2
				}
			}
		})
		const ports = 5
		for i := range ports {
			addr, closeIt := opener{"tcp4", fmt.Sprintf("127.0.0.1:%d", 8080+i)}.open(t)
			opened := time.Now()
			until(t, w, "a port beside the flood", has("tcp", addr))
			late = max(late, time.Since(opened).Milliseconds())
			time.Sleep(200 * time.Millisecond) // of the flood
			if err := closeIt(); err != nil {
				t.Fatal(err)
			}
			until(t, w, "the port to go", hasNot("tcp", addr))
		}
		waits, took := k.Waits()-before, time.Since(start)
		cancel()
		flood.Wait()
		t.Logf("%d events in %v, waited for %d times, a port at most %d ms late", events, took, waits, late)
		// A burst of 500 is read as it comes, and then 1,000 a second; looks come to that.
		if float64(waits) > 1000+1500*took.Seconds() {
			t.Errorf("waited %d times for %d events in %v", waits, events, took)
		}
		until(t, w, "what is left", func(s portwatch.State) bool { return len(s.Listeners) == 0 })
	})
}

// asUser runs f on a thread that is a user's, and ends.
func asUser(uid int, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		lockThread()
		// The user of a thread alone is changed by the system call itself (nptl(7)).
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			panic(errno)
		}
		f()
	}()
	<-done
}

func TestWhatAQuietUserDoesWakesNobodyAndIsKnownAsHis(t *testing.T) {
	alone(t, func(cgroup string) {
		const quiet, container = 1001, 165_536 + 33 // of a block of subordinate IDs
		k := openCgroup(t, cgroup)
		defer k.Close()
		k.SetQuiet(quiet, true)
		type result struct {
			all []events.Event
			err error
		}
		woken := make(chan result)
		go func() {
			all, _, err := k.Wait(time.Now().Add(soon), nil)
			woken <- result{all, err}
		}()
		asUser(quiet, func() {
			for _, o := range append(tcpSockets[:1:1], tcpSockets[2], udpSockets[0], udpSockets[2]) {
				_, closeIt := o.open(t)
				if err := closeIt(); err != nil {
					t.Error(err)
				}
			}
		})
		other, closeOther := opener{"tcp4", "127.0.0.1:9090"}.open(t)
		defer closeOther()
		r := <-woken
		if r.err != nil {
			t.Fatal(r.err)
		}
		opened, closed := make(map[uint16]int), make(map[uint16]int)
		for _, e := range r.all {
			switch {
			case e.Port == other.Port() && e.User != 0 || e.Port != other.Port() && e.User != quiet:
				t.Errorf("port %d is user %d's", e.Port, e.User)
			case e.Opened:
				opened[e.Port]++
			default:
				closed[e.Port]++
			}
		}
		if opened[8080] != 2 || opened[5201] != 2 || opened[9090] != 1 || closed[8080] != 2 || closed[5201] != 2 {
			t.Errorf("opened %v, closed %v: what the quiet user did is not read with what woke", opened, closed)
		}
		k.SetQuiet(quiet, false)
		go func() {
			all, _, err := k.Wait(time.Now().Add(soon), nil)
			woken <- result{all, err}
		}()
		asUser(quiet, func() { _, closeIt := tcpSockets[0].open(t); defer closeIt(); r = <-woken })
		if len(r.all) == 0 || r.all[0].User != quiet {
			t.Errorf("who is not quiet any more: %+v", r.all)
		}
		if _, err := k.Read(); err != nil {
			t.Fatal(err)
		}
		var inContainer []events.Event
		asUser(container, func() {
			_, closeIt := udpSockets[0].open(t)
			defer closeIt()
			inContainer, _, _ = k.Wait(time.Now().Add(soon), nil)
		})
		if len(inContainer) == 0 || inContainer[0].User != portlist.UserOf(container) || inContainer[0].User == container {
			t.Errorf("a user of a block: %+v, want %d", inContainer, portlist.UserOf(container))
		}
	})
}

// More than can be read of what one user does, and another's ports.
func TestAUserWhoFloodsDoesNotHoldUpAnothersPort(t *testing.T) {
	alone(t, func(cgroup string) {
		k := openCgroup(t, cgroup)
		w, _ := follow(t, never, k)
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			asUser(1001, func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					if l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", 20_000+n%5000)); err == nil {
						l.Close()
					}
				}
			})
		}()
		var late []time.Duration
		for n := range 50 {
			addr, closeIt := opener{"tcp4", fmt.Sprintf("127.0.0.1:%d", 9000+n)}.open(t)
			opened := time.Now()
			until(t, w, "a port beside the flood", has("tcp", addr))
			late = append(late, time.Since(opened))
			defer closeIt()
		}
		close(stop)
		<-ended
		slices.Sort(late)
		t.Logf("a port was shown after %v, %v at most", late[len(late)/2], late[len(late)-1])
		until(t, w, "nothing of the flood to be left", func(s portwatch.State) bool { return len(s.Listeners) == 50 })
	})
}

func TestOfAUserWithListenersWithoutNumberOnlySoManyAreShown(t *testing.T) {
	alone(t, func(cgroup string) {
		var open []func() error
		asUser(1001, func() {
			for n := range portlist.MaxOfUser + 100 {
				_, closeIt := opener{"tcp4", fmt.Sprintf("127.0.0.1:%d", 20_000+n)}.open(t)
				open = append(open, closeIt)
			}
		})
		w, _ := follow(t, never, openCgroup(t, cgroup))
		shown := func(n int, over ...uint32) func(portwatch.State) bool {
			return func(s portwatch.State) bool { return len(s.Listeners) == n && slices.Equal(s.Over, over) }
		}
		until(t, w, "as many as there may be", shown(portlist.MaxOfUser, 1001))
		// When they get their names all are listed again.
		until(t, w, "names", func(s portwatch.State) bool { return s.Listeners[0].Process != "" })
		open[0]()
		until(t, w, "one less", shown(portlist.MaxOfUser-1, 1001))
		asUser(1001, func() {
			for _, at := range []string{"127.0.0.1:19001", "127.0.0.1:19000"} { // before those that there are
				_, closeIt := opener{"tcp4", at}.open(t)
				open = append(open, closeIt)
				until(t, w, "one in the place of what has gone", has("tcp", netip.MustParseAddrPort("127.0.0.1:19001")))
			}
		})
		addr, closeIt := opener{"tcp4", "127.0.0.1:30000"}.open(t)
		defer closeIt()
		until(t, w, "another user's", has("tcp", addr))
		until(t, w, "no other beside it", shown(portlist.MaxOfUser+1, 1001))
		for _, closeIt := range open[1:] {
			closeIt()
		}
		if out, err := exec.Command("ip", "address", "add", "192.0.2.1/32", "dev", "lo").CombinedOutput(); err != nil { // a look at everything
			t.Fatal(err, string(out))
		}
		until(t, w, "nobody to have more", shown(1))
	})
}

// Each change is listed for its port alone: all of them have to come to what a scan finds.
func TestWhatIsShownAfterManyChangesIsWhatAScanFinds(t *testing.T) {
	alone(t, func(cgroup string) {
		w, _ := follow(t, never, openCgroup(t, cgroup))
		dice := rand.New(rand.NewPCG(1, 2))
		addrs := []string{"127.0.0.1", "0.0.0.0", "127.0.0.2", "[::1]", "[::]"}
		open := make(map[string]io.Closer)
		for range 3000 {
			at := fmt.Sprintf("%s:%d", addrs[dice.IntN(len(addrs))], 2000+dice.IntN(40))
			network := []string{"tcp", "udp"}[dice.IntN(2)]
			if c := open[network+at]; c != nil {
				c.Close()
				delete(open, network+at)
				continue
			}
			var c io.Closer
			var err error
			if network == "tcp" {
				c, err = net.Listen("tcp", at)
			} else {
				c, err = net.ListenPacket("udp", at)
			}
			if err == nil { // or another has the address
				open[network+at] = c
			}
		}
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		want, err := new(portwatch.Scanner).Scan()
		if err != nil {
			t.Fatal(err)
		}
		until(t, w, "what a scan finds", func(s portwatch.State) bool {
			return slices.EqualFunc(s.Listeners, want, func(a, b portlist.Listener) bool {
				a.Process, b.Process = "", ""
				return a == b
			})
		})
	})
}
