package forward_test

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// anyPort listens on a free port in the place of the one that is asked for: tests
// of thousands of ports would meet those of others.
func anyPort(netip.AddrPort) (*net.TCPListener, error) {
	return net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
}

// many are listeners of one program on n ports from first up.
func many(program string, first, n int) []portlist.Listener {
	out := make([]portlist.Listener, n)
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
	if n := states(hogs[0]); n[status.Active] != 1024 {
		t.Errorf("alone, it has %v", n)
	}
}

func TestWhatManyVMsAnnounceAtOnceIsNotOpenedToBeClosedAgain(t *testing.T) {
	const vms, budget = 20, 4000
	var opened atomic.Int32
	table := newTable(t, forward.Config{Descriptors: budget, Listen: func(at netip.AddrPort) (*net.TCPListener, error) {
		opened.Add(1)
		return anyPort(at)
	}})
	all := many("flood", 10000, 4096)
	var wg sync.WaitGroup
	for i := range vms {
		vm := withOwn(table, fmt.Sprint("hog", i), fmt.Sprintf("127.64.2.%d", i+1))
		wg.Go(func() { vm.Announce(all) })
	}
	wg.Wait()
	if n := opened.Load(); n > budget*3/2 {
		t.Errorf("%d listeners were opened for the %d that there is room for", n, budget)
	}
}

func TestARangeOverTheLimitDoesNotKeepAnOrdinaryPortOut(t *testing.T) {
	vm := newTable(t, forward.Config{Listen: anyPort}).Add("dev")
	ftp := many("vsftpd", 10000, 2000)
	vm.Announce(ftp)
	if n := states(vm); n[status.Active] != 1024 || n[status.Denied] != 976 {
		t.Fatal(n)
	}
	web := many("nginx", 8080, 3)
	vm.Announce(append(slices.Clone(ftp), web...))
	for _, f := range vm.Status()[:3] {
		if f.Process[:5] != "nginx" || f.State != status.Active {
			t.Errorf("%+v", f)
		}
	}
	if n := states(vm); n[status.Active] != 1024 {
		t.Error(n)
	}
	// And what gave way has it back.
	vm.Announce(ftp)
	if n := states(vm); n[status.Active] != 1024 || n[status.Denied] != 976 {
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
	if n := states(vm); n[status.Active] != 1024 {
		t.Fatal(n)
	}
	web := many("name7", 8080, 20) // and one of them has this name too
	for i := range web {
		web[i].UID = 1001
	}
	vm.Announce(append(slices.Clone(flood), web...))
	for _, f := range vm.Status()[:20] {
		if f.Port >= 8100 || f.State != status.Active {
			t.Errorf("%+v", f)
		}
	}
	if n := states(vm); n[status.Active] != 1024 {
		t.Error(n)
	}
}

func TestAVMThatNeedsLittleHasItBesideOneThatHasAll(t *testing.T) {
	table := newTable(t, forward.Config{Listen: anyPort, Descriptors: 200})
	hog, good := table.Add("hog"), table.Add("good")
	hog.Announce(many("flood", 10000, 500))
	if n := states(hog); n[status.Active] != 100 {
		t.Fatal(n)
	}
	good.Announce(many("web", 8080, 20))
	if n := states(good); n[status.Active] != 20 {
		t.Error(n)
	}
	if n := states(hog); n[status.Active] != 80 || n[status.Denied] != 420 {
		t.Error(n)
	}
	good.Close()
	if n := states(hog); n[status.Active] != 100 {
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
	if more[status.Active] != 1024-2 || more[status.Denied] != 1502-1024-198 {
		t.Error(more)
	}
	if all, more := vm.Summary(0); len(all) != 1502 || len(more) > 0 {
		t.Errorf("%d rows, and %v", len(all), more)
	}
}

func TestASummaryIsOfWhatThereIsNow(t *testing.T) {
	table := newTable(t, forward.Config{Listen: anyPort, Descriptors: 600})
	hog, other := table.Add("hog"), table.Add("other")
	flood := many("flood", 10000, 500)
	summary := func() string {
		shown, more := hog.Summary(5)
		return fmt.Sprintf("%d of %s, and %v", len(shown), shown[0].Process, more)
	}
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"all ports", func() { hog.Announce(flood) }, "5 of flood[400], and map[active:300 denied:195]"},
		{"some of them", func() { hog.Announce(flood[100:]) }, "5 of flood[500], and map[active:300 denied:95]"},
		{"another's ports", func() { other.Announce(many("web", 8080, 20)) }, "5 of flood[480], and map[active:280 denied:115]"},
		{"a program with few", func() { hog.Announce(append(slices.Clone(flood[100:]), many("web", 7080, 1)...)) }, "5 of web[100], and map[active:279 denied:117]"},
		{"which goes", func() { hog.Announce(flood[100:]) }, "5 of flood[479], and map[active:280 denied:115]"},
	} {
		step.do()
		for range 2 {
			if got := summary(); got != step.want {
				t.Errorf("%s: %s, want %s", step.what, got, step.want)
			}
		}
	}
}

func TestAPortWithoutRoomCostsLittle(t *testing.T) {
	const vms, ports = 20, 2000
	table := newTable(t, forward.Config{Listen: anyPort, Descriptors: 10})
	all := many("flood", 10000, ports)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what finalizers held
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range vms {
		table.Add(fmt.Sprint("hog", i)).Announce(all)
	}
	each := (int64(heap()) - int64(before)) / (vms * ports)
	t.Logf("%d bytes for each port", each)
	if each > 512 {
		t.Errorf("a port that is not open takes %d bytes", each)
	}
	runtime.KeepAlive(table)
}

func TestAPortThatGaveWayHasItsCountsStill(t *testing.T) {
	table := newTable(t, forward.Config{Descriptors: 20})
	hog, good := table.Add("hog"), table.Add("good")
	hog.SetLink(linkTo(echo(t, "127.0.0.3:0")))
	first := ownnet.FreePort(t)
	hog.Announce(many("flood", int(first), 10))
	for _, f := range hog.Status() {
		roundTrip(t, dial(t, addr("127.0.0.1", f.Port)))
	}
	good.Announce(many("web", int(first)+100, 4))
	if n := states(hog); n[status.Active]+n[status.Denied] != 10 || n[status.Denied] == 0 {
		t.Fatal(n)
	}
	for _, f := range hog.Status() {
		if f.ConnectionsTotal != 1 {
			t.Errorf("%+v", f)
		}
	}
	good.Close()
	if n := states(hog); n[status.Active] != 10 {
		t.Fatal(n)
	}
	for _, f := range hog.Status() {
		if f.ConnectionsTotal != 1 {
			t.Errorf("%+v", f)
		}
		roundTrip(t, dial(t, addr("127.0.0.1", f.Port)))
	}
}

func TestLocalhostMeansNoOtherServiceForWantOfRoom(t *testing.T) {
	table := newTable(t, forward.Config{Listen: anyPort, Descriptors: 20})
	hog, good := table.Add("hog"), table.Add("good")
	// Those of the first program are on localhost, and give way first.
	flood := many("flood", 10000, 10)
	hog.Announce(flood)
	good.Announce(many("web", 8080, 5))
	if n := states(hog); n[status.Active]+n[status.Denied] != 10 || n[status.Denied] == 0 {
		t.Fatal(n)
	}
	var others []portlist.Listener
	for _, l := range flood {
		l.Addr = netip.AddrPortFrom(netip.MustParseAddr("10.1.2.3"), l.Addr.Port())
		l.Process = "other[7]"
		others = append(others, l)
	}
	hog.Announce(append(slices.Clone(flood), others...))
	for _, f := range hog.Status() {
		if f.Process == "other[7]" && f.State == status.Active {
			t.Errorf("port %d on localhost is that of 10.1.2.3: %+v", f.Port, f)
		}
	}
	// With room for all, each port is localhost's.
	good.Close()
	active := 0
	for _, f := range hog.Status() {
		if f.State == status.Active {
			active++
			if f.Process == "other[7]" {
				t.Errorf("%+v", f)
			}
		}
	}
	if active != 10 {
		t.Errorf("%d are open", active)
	}
}
