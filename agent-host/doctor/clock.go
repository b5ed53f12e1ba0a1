package doctor

import (
	"context"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

const nameClock = "clock"

// released is before any build of this program.
var released = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// clock finds one that cannot be right: certificates are not valid then, and leases not over.
func clock(_ context.Context, x *exam) []status.Check {
	now := x.now()
	if now.Before(released) {
		return []status.Check{ill(nameClock, "set it with: sudo timedatectl set-ntp true", "it says %s, which is before this program was made", now.Format(time.DateTime))}
	}
	var state unix.Timex
	if _, err := unix.Adjtimex(&state); err == nil && state.Status&unix.STA_UNSYNC != 0 {
		return []status.Check{well(nameClock, "it says %s; the kernel knows of nothing that keeps it right, such as NTP", now.Format(time.DateTime))}
	}
	return []status.Check{well(nameClock, "it is kept right")}
}

// maxAhead is by how many seconds the clock of a guest may be off: what is built or signed on one side is not from the
// future on the other, as far as programs look at that.
const maxAhead = 2

// guestClock finds a guest's clock that is off, as that of a VM is which was suspended: certificates are not valid yet
// then, and make takes what is new for old. The command needs no NTP in the guest, and no hardware clock.
func (x *exam) guestClock(vm status.VM) []status.Check {
	if math.Abs(vm.ClockAhead) <= maxAhead {
		return nil
	}
	side := "ahead of"
	if vm.ClockAhead < 0 {
		side = "behind"
	}
	return []status.Check{ill(vm.Name+" "+nameClock,
		"set it with: "+ask.Command(x.Socket, "ssh", vm.Name)+" -- sudo date -s @$(date +%s); and keep it right by NTP in the guest, such as chrony with makestep 1 -1",
		"the guest's clock is %s %s this machine's: certificates, make and git go by it", far(math.Abs(vm.ClockAhead)), side)}
}

// far is a number of seconds, which may be more than a duration has room for.
func far(seconds float64) string {
	const day = 24 * 60 * 60
	if seconds < 2*day {
		return (time.Duration(seconds) * time.Second).String()
	}
	return fmt.Sprintf("%.0f days", seconds/day)
}
