package hostagent_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

func TestAnAddedForwardOutlivesTheRulesOfItsVMsProject(t *testing.T) {
	t.Parallel()
	a, g, port, host := startAgent(t), newGuest(t), echo(t), ownnet.FreePort(t)
	g.announce(port)
	g.start()
	vm := g.vm("dev")
	vm.Project = projectFile(t, "dev", "[[forward]]\nignore = true\n")
	add(t, a, vm)
	within(t, a, patience, "ignored", func(vms []status.VM) bool {
		return len(vms[0].Forwards) == 1 && vms[0].Forwards[0].State == status.Ignored
	})
	f, err := a.AddForward("", fmt.Sprintf("%d:%d", host, port), "tcp", 0)
	if err != nil || f.VM != "dev" || f.State != status.Active {
		t.Fatalf("%+v, %v", f, err)
	}
	for _, rules := range []string{"[[forward]]\nignore = true\nproto = \"tcp\"\n", "[auto_ports]\nenabled = false\n"} {
		a.SetProject("dev", projectFile(t, "dev", rules))
		if all, err := a.AddedForwards("dev"); err != nil || len(all) != 1 || all[0].State != status.Active || roundTrip(host) != nil {
			t.Errorf("after %q: %+v", rules, all)
		}
	}
	// Also while the VM is away.
	a.RemoveVM("dev")
	for _, vm := range []string{"", "dev"} {
		if all, err := a.AddedForwards(vm); err != nil || len(all) != 1 || all[0].State != "" {
			t.Errorf("%+v, %v", all, err)
		}
	}
	if all, err := a.AddedForwards("nope"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a VM that never was there: %+v, %v", all, err)
	}
	if _, err := a.RemoveForward("dev", fmt.Sprintf("%d:%d", host, port), "tcp"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a VM that is not there: %v", err)
	}
	add(t, a, vm)
	within(t, a, patience, "forwarded again", active(0, 1))
}

// VMs, rules and what is added to them change at once, and nobody waits for another for ever.
func TestForwardsAreAddedWhileVMsComeAndGo(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	vm := func(name string) hostagent.VM {
		return hostagent.VM{Name: name, Problem: "it has no device", Bridge: netip.MustParseAddr("127.0.0.2")}
	}
	add(t, a, vm("dev"))
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 50 {
				ports := fmt.Sprintf("%d:80", 30000+100*i+n)
				if _, err := a.AddForward("dev", ports, "tcp", 0); err != nil {
					t.Error(err)
				}
				other := fmt.Sprint("other", i)
				if err := a.AddVM(vm(other)); err != nil {
					t.Error(err)
				}
				_, _ = a.AddedForwards("")
				a.SetRules(nil)
				a.RemoveVM(other)
				if _, err := a.RemoveForward("dev", ports, "tcp"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if left, err := a.AddedForwards(""); err != nil || len(left) != 0 {
		t.Errorf("%+v", left)
	}
}

// A list of what was added looks at a VM's forwards once, and not for each that it lists.
func TestAListOfManyAddedForwardsTakesNoLongerThanAStatus(t *testing.T) {
	const many = 300
	a, g := startAgent(t), newGuest(t)
	ports := make([]uint16, many)
	for i := range ports {
		ports[i] = uint16(21000 + i)
	}
	g.announce(ports...)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "announced", func(vms []status.VM) bool { return len(vms[0].Forwards) == many })
	for _, port := range ports {
		if _, err := a.AddForward("", fmt.Sprint(port), "tcp", 0); err != nil {
			t.Fatal(err)
		}
	}
	quickest := func(do func()) time.Duration {
		best := time.Hour
		for range 5 {
			began := time.Now()
			do()
			best = min(best, time.Since(began))
		}
		return best
	}
	one := quickest(func() { a.Status() })
	all := quickest(func() {
		if all, err := a.AddedForwards(""); err != nil || len(all) != many {
			t.Fatalf("%d are listed, %v", len(all), err)
		}
	})
	if all > 20*one {
		t.Errorf("a list of %d takes %v, and a status %v", many, all, one)
	}
}

// A list says of a forward whose service listens what has become of it, also where that is not
// forwarded.
func TestAnAddedForwardThatIsNotThereSaysWhy(t *testing.T) {
	a, g, released, taken := startAgent(t), newGuest(t), echo(t), echo(t)
	g.announce(released, taken)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "announced", active(0, 2))
	if _, err := a.Release("dev", "tcp", released); err != nil {
		t.Fatal(err)
	}
	f, err := a.AddForward("", fmt.Sprint(released), "tcp", 0)
	if err != nil || f.State != status.Ignored || f.Reason != status.Released {
		t.Errorf("what was given back: %+v, %v", f, err)
	}

	host := ownnet.FreePort(t)
	first, err := a.AddForward("", fmt.Sprintf("%d:%d", host, taken), "tcp", 0)
	if err != nil || first.State != status.Active || first.InPlaceOf != nil {
		t.Fatalf("%+v, %v", first, err)
	}
	beside, err := a.AddForward("", fmt.Sprintf("%d:%d", ownnet.FreePort(t), taken), "tcp", 0)
	if err != nil || beside.State != status.Active || beside.InPlaceOf != nil {
		t.Fatalf("%+v, %v", beside, err)
	}
	more := fmt.Sprintf("17000-17001:%d-%d", taken, taken+1)
	over, err := a.AddForward("", more, "tcp", 0)
	if err != nil || len(over.InPlaceOf) != 2 || !slices.Contains(over.InPlaceOf, fmt.Sprintf("%d:%d (%s)", host, taken, first.Rule)) {
		t.Errorf("%+v, %v", over, err)
	}
	all, err := a.AddedForwards("dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if want := f.Ports() == first.Ports() || f.Ports() == beside.Ports(); want != strings.Contains(f.Reason, "takes ports of it: "+more) || want && f.State != "" {
			t.Errorf("%+v", f)
		}
	}
}
