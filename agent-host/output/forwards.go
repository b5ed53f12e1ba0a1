package output

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// writeForwards writes the forwards of a VM, problems first and marked. What does not fit is
// left out or shortened step by step, reasons last: those get lines of their own.
func writeForwards(b *strings.Builder, vm status.VM, look Look) {
	all := bySeverity(&vm)
	names := []string{"PORT", "LABEL", "STATE", "HOST", "GUEST", "PATH", "PROCESS", "CONNS"}
	if !slices.ContainsFunc(all, func(f status.Forward) bool { return f.Label != "" }) {
		names = slices.Delete(names, 1, 2)
	}
	if len(look.Rates) > 0 {
		names = append(names, "IN/S", "OUT/S")
	}
	names = append(names, "REASON")
	t := newTable(vm, all, names, look)
	t.narrow(look, []func(*table){
		func(t *table) { t.drop("REASON") },
		(*table).sayLocalhost,
		func(t *table) { t.drop("GUEST") },
		func(t *table) { t.drop("PATH") },
		func(t *table) { t.shortenTo("PROCESS", 8) },
		func(t *table) { t.shortenTo("LABEL", 8) },
		(*table).sayOneHost,
		func(t *table) { t.drop("PROCESS") },
		func(t *table) { t.drop("CONNS") },
		func(t *table) { t.shortenTo("HOST", maxHost) },
		func(t *table) { t.drop("LABEL") },
		func(t *table) { t.shortenTo("HOST", 12) },
	})
	t.write(b, look)
}

// narrow makes a table narrower step by step until it fits.
func (t *table) narrow(look Look, steps []func(*table)) {
	for _, narrower := range steps {
		if look.Width == 0 || t.width() <= look.Width {
			break
		}
		narrower(t)
	}
}

// urgency is lower for what should be seen to.
func urgency(vm *status.VM, f *status.Forward) int {
	switch {
	case f.State == status.Claim, f.State == status.Denied, f.Reason == "" && reason(vm, f) != "":
		return 0
	case f.State == status.Ignored:
		return 2
	}
	return 1
}

// table is the forwards of a VM as cells.
type table struct {
	names []string
	rows  [][]Cell // the first are the names
	marks []bool   // which of the others are problems
	below []string // what is said of them in lines of their own; nil for nothing
}

func newTable(vm status.VM, all []status.Forward, names []string, look Look) *table {
	t := &table{names: names, rows: [][]Cell{Plain(names...)}}
	for i := range all {
		f := &all[i]
		rate := look.Rates[RateKey(vm.Name, f)]
		cells := map[string]Cell{
			"PORT": {text: portName(f)}, "LABEL": {text: OrDash(f.Label)}, "STATE": stateCell(f.State),
			"HOST": {text: addresses(withoutOwn(vm, f.Host))}, "GUEST": {text: addresses(f.Guest)},
			"PATH": {text: OrDash(f.Path)}, "PROCESS": {text: OrDash(f.Process)},
			"CONNS": {text: fmt.Sprintf("%d/%d", f.ConnectionsActive, f.ConnectionsTotal)},
			"IN/S":  {text: rateText(rate[0])}, "OUT/S": {text: rateText(rate[1])}, "REASON": {text: reason(&vm, f)},
		}
		row := make([]Cell, len(names))
		for n, name := range names {
			row[n] = cells[name]
		}
		t.rows = append(t.rows, row)
		t.marks = append(t.marks, urgency(&vm, f) == 0)
	}
	return t
}

// portName is how people call what is forwarded.
func portName(f *status.Forward) string {
	name := fmt.Sprintf("%d/%s", f.Port, Clean(f.Proto))
	if f.Port == 0 {
		name = "socket"
	}
	if f.Reverse {
		name += " rev"
	}
	return name
}

// withoutOwn leaves out the VM's own address, which is in its heading, unless it is all there is.
func withoutOwn(vm status.VM, all []string) []string {
	others := slices.DeleteFunc(slices.Clone(all), func(a string) bool {
		at, err := netip.ParseAddrPort(a)
		return err == nil && at.Addr().String() == vm.Loopback
	})
	if len(others) == 0 {
		return all
	}
	return others
}

// rateText is bytes a second.
func rateText(rate float64) string {
	if rate < 1 {
		return "-"
	}
	for _, unit := range []string{"B", "kB", "MB"} {
		if rate < 1000 {
			return fmt.Sprintf("%.3g %s", rate, unit)
		}
		rate /= 1000
	}
	return fmt.Sprintf("%.3g GB", rate)
}

func (t *table) width() int {
	total := 0
	for _, w := range widths(t.rows) {
		total += w + 2
	}
	return total
}

// drop leaves a column out; reasons get lines of their own.
func (t *table) drop(name string) {
	at := slices.Index(t.names, name)
	if at < 0 {
		return
	}
	t.names = slices.Delete(slices.Clone(t.names), at, at+1)
	for i, row := range t.rows {
		if name == "REASON" && i > 0 {
			t.below = append(t.below, row[at].text)
		}
		t.rows[i] = slices.Delete(row, at, at+1)
	}
}

// sayLocalhost says localhost where both of its addresses are meant.
func (t *table) sayLocalhost() {
	at := slices.Index(t.names, "HOST")
	for _, row := range t.rows[1:] {
		parts := strings.Split(row[at].text, ",")
		for _, p := range parts {
			port, is := strings.CutPrefix(p, "127.0.0.1:")
			six := slices.Index(parts, "[::1]:"+port)
			if is && six >= 0 {
				parts = slices.Delete(parts, six, six+1)
				parts[slices.Index(parts, p)] = "localhost:" + port
				break
			}
		}
		row[at].text = strings.Join(parts, ",")
	}
}

// maxHost is the columns of an address in 127/8 with its port, which no one but a socket's path or an address of IPv6 exceeds.
const maxHost = len("127.255.255.255:65535")

// sayOneHost leaves all but the first of the host addresses of a forward out, and says how many those are.
func (t *table) sayOneHost() {
	at := slices.Index(t.names, "HOST")
	for _, row := range t.rows[1:] {
		parts := strings.Split(row[at].text, ",")
		more := len(parts) - 1
		if more > 0 {
			if n, err := strconv.Atoi(parts[more]); err == nil {
				more += n - 1 // of a "+3"
			}
			row[at].text = fmt.Sprintf("%s,+%d", parts[0], more)
		}
	}
}

// shortenTo cuts the texts of a column.
func (t *table) shortenTo(name string, width int) {
	if at := slices.Index(t.names, name); at >= 0 {
		for _, row := range t.rows {
			row[at].text = shorten(row[at].text, width)
		}
	}
}

func (t *table) write(b *strings.Builder, look Look) {
	all := widths(t.rows)
	for i, row := range t.rows {
		mark := Cell{text: " "}
		if i > 0 && t.marks[i-1] {
			mark = Cell{"!", "31"}
		}
		writeCell(b, mark, look.Colour)
		writeRow(b, row, all, 1, look.Colour)
		if i > 0 && t.below != nil && t.below[i-1] != "" {
			b.WriteString(wrapped(t.below[i-1], "      ", look.Width))
		}
	}
}

// errorShown is how long what went wrong with a connection is worth a person's
// look.
const errorShown = 10 * time.Minute

// reason is why a host address does not listen, and which does all the same, or
// what went wrong of late if all do.
func reason(vm *status.VM, f *status.Forward) string {
	switch {
	case f.Reason == "" && f.LastError != "":
		if f.LastErrorAt == nil || time.Since(*f.LastErrorAt) > errorShown || vm.IsBack(f) {
			return ""
		}
		ago := max(0, time.Since(*f.LastErrorAt)).Truncate(time.Second)
		return fmt.Sprintf("last error, %v ago: %s", ago, CleanError(f.LastError))
	case f.State != status.Active && len(f.Listening) > 0:
		return CleanError(f.Reason) + "; open on " + addresses(f.Listening)
	}
	return CleanError(f.Reason)
}
