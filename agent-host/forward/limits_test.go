package forward_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/portwatch"
)

// anyPort listens on a free port in the place of the one that is asked for: tests
// of thousands of ports would meet those of others.
func anyPort(netip.AddrPort) (*net.TCPListener, error) {
	return net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
}

// many are listeners of one program on n ports from first up.
func many(program string, first, n int) []portwatch.Listener {
	out := make([]portwatch.Listener, n)
	for i := range out {
		out[i] = listeners(uint16(first+i), "0.0.0.0")[0]
		out[i].Process = fmt.Sprintf("%s[%d]", program, 100+i)
	}
	return out
}

// states counts forwards.
func states(vm *forward.VM) map[string]int {
	count := map[string]int{}
	for _, f := range vm.Status() {
		count[f.State]++
	}
	return count
}

func TestTwentyVMsWithAllPortsShareWhatThereIs(t *testing.T) {
	const vms, ports, budget = 20, 4096, 4000
	table := newTable(t, forward.Config{Listen: anyPort, Descriptors: budget})
	all := many("flood", 10000, ports)
	var hogs []*forward.VM
	for i := range vms {
		hogs = append(hogs, withOwn(table, fmt.Sprint("hog", i), fmt.Sprintf("127.64.2.%d", i+1)))
	}
	good := withOwn(table, "good", ownOne)

	began := time.Now()
	var wg sync.WaitGroup
	for _, vm := range hogs {
		wg.Go(func() { vm.Announce(all) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()

	// Meanwhile others are served.
	slowest, turns := time.Duration(0), 0
	for port := uint16(9000); ; port++ {
		asked := time.Now()
		good.Announce(listeners(port, "0.0.0.0"))
		if f := one(t, good); f.Port != port || len(f.Listening) != 3 {
			t.Fatalf("%+v", f)
		}
		hogs[0].Status()
		slowest, turns = max(slowest, time.Since(asked)), turns+1
		select {
		case <-done:
		case <-time.After(20 * time.Millisecond):
			continue
		}
		break
	}
	t.Logf("all announced after %v; the good VM waited %v at most", time.Since(began), slowest)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	if turns < 3 {
		t.Errorf("the good VM was served %d times meanwhile: it waits for all the others", turns)
	}
	used := 0
	for i, vm := range hogs {
		mine, denied := 0, 0
		for _, f := range vm.Status() {
			mine += len(f.Listening)
			if strings.Contains(f.Reason, "this VM has its share of the descriptors") {
				denied++
			}
		}
		if mine < budget/vms*3/4 || mine > budget/vms*5/4 || denied == 0 {
			t.Errorf("VM %d has %d listeners of %d, %d without room", i, mine, budget, denied)
		}
		used += mine
	}
	if used > budget || used < budget*9/10 {
		t.Errorf("%d listeners of %d", used, budget)
	}

	// What goes makes room.
	for _, vm := range hogs[1:] {
		vm.Close()
	}
	if n := states(hogs[0]); n[control.Active] != 1024 {
		t.Errorf("alone, it has %v", n)
	}
}

func TestARangeOverTheLimitDoesNotKeepAnOrdinaryPortOut(t *testing.T) {
	vm := newTable(t, forward.Config{Listen: anyPort}).Add("dev")
	ftp := many("vsftpd", 10000, 2000)
	vm.Announce(ftp)
	if n := states(vm); n[control.Active] != 1024 || n[control.Denied] != 976 {
		t.Fatal(n)
	}
	web := many("nginx", 8080, 3)
	vm.Announce(append(slices.Clone(ftp), web...))
	for _, f := range vm.Status()[:3] {
		if f.Process[:5] != "nginx" || f.State != control.Active {
			t.Errorf("%+v", f)
		}
	}
	if n := states(vm); n[control.Active] != 1024 {
		t.Error(n)
	}
	// And what gave way has it back.
	vm.Announce(ftp)
	if n := states(vm); n[control.Active] != 1024 || n[control.Denied] != 976 {
		t.Error(n)
	}
}

func TestOneUserOfAGuestDoesNotTakeTheRoomOfAnother(t *testing.T) {
	vm := newTable(t, forward.Config{Listen: anyPort}).Add("dev")
	flood := many("flood", 10000, 2000)
	for i := range flood {
		flood[i].UID = 1000
		flood[i].Process = fmt.Sprintf("name%d[%d]", i, 100+i) // as many programs as ports
	}
	vm.Announce(flood)
	if n := states(vm); n[control.Active] != 1024 {
		t.Fatal(n)
	}
	web := many("name7", 8080, 20) // and one of them has this name too
	for i := range web {
		web[i].UID = 1001
	}
	vm.Announce(append(slices.Clone(flood), web...))
	for _, f := range vm.Status()[:20] {
		if f.Port >= 8100 || f.State != control.Active {
			t.Errorf("%+v", f)
		}
	}
	if n := states(vm); n[control.Active] != 1024 {
		t.Error(n)
	}
}

func TestAVMThatNeedsLittleHasItBesideOneThatHasAll(t *testing.T) {
	table := newTable(t, forward.Config{Listen: anyPort, Descriptors: 200})
	hog, good := table.Add("hog"), table.Add("good")
	hog.Announce(many("flood", 10000, 500))
	if n := states(hog); n[control.Active] != 100 {
		t.Fatal(n)
	}
	good.Announce(many("web", 8080, 20))
	if n := states(good); n[control.Active] != 20 {
		t.Error(n)
	}
	if n := states(hog); n[control.Active] != 80 || n[control.Denied] != 420 {
		t.Error(n)
	}
	good.Close()
	if n := states(hog); n[control.Active] != 100 {
		t.Error(n)
	}
}

func TestASummaryShowsOrdinaryPortsAndCountsTheRest(t *testing.T) {
	vm := newTable(t, forward.Config{Listen: anyPort}).Add("dev")
	vm.Announce(append(many("vsftpd", 1100, 1500), many("nginx", 8080, 2)...))
	shown, more := vm.Summary(200)
	if last := shown[len(shown)-1]; len(shown) != 200 || last.Process != "nginx[101]" {
		t.Errorf("%d rows, the last: %+v", len(shown), last)
	}
	if more[control.Active] != 1024-200 || more[control.Denied] != 1502-1024 {
		t.Error(more)
	}
	if all, more := vm.Summary(0); len(all) != 1502 || len(more) > 0 {
		t.Errorf("%d rows, and %v", len(all), more)
	}
}
