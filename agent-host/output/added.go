package output

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// maxNamed bounds how many rules a text names.
const maxNamed = 3

// ForwardAdded writes for people what has become of a forward that was added, and by which command it is taken back.
func ForwardAdded(w io.Writer, f status.Added, undo string, look Look) error {
	vm := Clean(f.VM)
	says := "nothing listens there yet; it is forwarded as soon as something does"
	switch {
	case f.State == "" && f.Reason != "":
		says = CleanError(f.Reason)
	case f.State != "":
		says = f.State
		if f.Reason != "" {
			says += ": " + CleanError(f.Reason)
		}
	}
	text := wrapped(fmt.Sprintf("%s/%s of this host is %s of %s until the agent ends%s: %s", Clean(f.Host), Clean(f.Proto), Clean(f.Guest), vm, InPlaceOf(f.InPlaceOf), says), "", look.Width) +
		wrapped("take it back with: "+Clean(undo), "", look.Width)
	_, err := io.WriteString(w, text)
	return err
}

// ForwardRemoved writes for people that a forward was taken back.
func ForwardRemoved(w io.Writer, f status.Added, look Look) error {
	text := fmt.Sprintf("%s/%s of %s is taken back; what the file says of the port counts", Clean(f.Ports()), Clean(f.Proto), Clean(f.VM))
	_, err := io.WriteString(w, wrapped(text, "", look.Width))
	return err
}

// InPlaceOf says for people from which rules another takes ports; "" for none.
func InPlaceOf(rules []string) string {
	n := len(rules)
	if n == 0 {
		return ""
	}
	text := ", in the place of " + Clean(strings.Join(rules[:min(n, maxNamed)], " and "))
	if n > maxNamed {
		text += fmt.Sprintf(" and %d more", n-maxNamed)
	}
	return text
}

// ForwardsAdded writes for people what was added.
func ForwardsAdded(w io.Writer, all []status.Added, look Look) error {
	if len(all) == 0 {
		_, err := io.WriteString(w, "no forwards were added\n")
		return err
	}
	names := []string{"FORWARD", "VM", "STATE", "HOLD", "ADDED", "REASON"}
	t := &table{names: names, rows: [][]Cell{Plain(names...)}}
	for i := range all {
		f := &all[i]
		state := Cell{text: "-"}
		if f.State != "" {
			state = stateCell(f.State)
		}
		t.rows = append(t.rows, []Cell{
			{text: Clean(f.Ports() + "/" + f.Proto)}, {text: Clean(f.VM)}, state, {text: OrDash(f.Hold)},
			{text: f.AddedAt.Local().Format(time.DateTime)}, {text: CleanError(f.Reason)},
		})
		t.marks = append(t.marks, f.State == status.Claim || f.State == status.Denied)
	}
	t.narrow(look, []func(*table){
		func(t *table) { t.drop("REASON") },
		func(t *table) { t.drop("HOLD") },
		func(t *table) { t.shortenTo("VM", 12) },
		func(t *table) { t.drop("ADDED") },
	})
	var b strings.Builder
	t.write(&b, look)
	_, err := io.WriteString(w, b.String())
	return err
}
