package output

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Colours of states, as ANSI SGR parameters.
var stateColours = map[string]string{
	status.Connected: "32", status.Active: "32",
	status.Connecting: "33", status.Paused: "33", status.Claim: "33",
	status.Down: "31", status.Incompatible: "31", status.Denied: "31",
	status.Ignored: "2",
}

// Cell is text in a column; colour is empty for none.
type Cell struct{ text, colour string }

// Status writes VMs and forwards for people.
func Status(w io.Writer, st status.Status, look Look) error {
	_, err := io.WriteString(w, fitted(st, look))
	return err
}

// statusText is a status in as many lines as it takes.
func statusText(st status.Status, look Look) string {
	var b strings.Builder
	say := func(text string) { b.WriteString(wrapped(text, "", look.Width)) }
	if st.Config.Error != "" {
		say("configuration error: " + CleanError(st.Config.Error))
	}
	if st.Warning != "" {
		say("warning: " + CleanError(st.Warning))
	}
	for _, text := range st.Config.Warnings {
		say("configuration warning: " + CleanError(text))
	}
	if p := st.Page; p != nil && p.State != status.Active {
		say("the page and the names of ports are not served: " + CleanError(p.Reason))
	}
	for _, d := range st.Discovery {
		if d.Error != "" && d.Host == "" {
			say(Clean(d.Source) + "  error: " + CleanError(d.Error))
		}
	}
	for _, c := range st.Projects {
		if c.Error != "" && !slices.ContainsFunc(st.VMs, func(vm status.VM) bool { return vm.Config != nil && vm.Config.File == c.File }) {
			say("configuration error of " + Clean(c.VM) + ", which is not served: " + CleanError(c.Error))
		}
	}
	for _, r := range st.Refused {
		say("no project is taken from " + Clean(r.Path) + ": " + CleanError(r.Reason) + "; " + CleanError(r.Remedy))
	}
	for _, s := range st.Setups {
		say(setupText(s))
	}
	for _, r := range st.Requests {
		say(fmt.Sprintf("%s asks to open a page of %s, until %s; answer it on the page of: rum-host-agent dashboard", Clean(r.VM), Clean(r.Host), r.EndsAt.Local().Format(time.TimeOnly)))
	}
	writeHosts(&b, st, look)
	others := ""
	if len(st.Projects) > 0 {
		others = "of all other VMs: "
	}
	if c := st.Config; c.Found {
		b.WriteByte('\n')
		say(others + "rules of " + Clean(c.File) + ", " + Clean(c.Why))
	} else if c.File != "" {
		b.WriteByte('\n')
		say(others + "default rules; there is no " + Clean(c.File) + ", " + Clean(c.Why))
	}
	return b.String()
}

// trouble is lower for VMs that should be seen to.
func trouble(vm status.VM) int {
	switch vm.State {
	case status.Down, status.Incompatible:
		return 0
	case status.Paused:
		return 1
	}
	return 2
}

func writeVM(b *strings.Builder, vm status.VM, look Look) {
	colour := look.Colour
	state := stateCell(vm.State)
	heading := []string{Clean(vm.Name), state.text}
	if vm.Endpoint != "" {
		heading = append(heading, Clean(vm.Endpoint))
	}
	for _, part := range [][2]string{{"auth", vm.Auth}, {"agent", vm.AgentVersion}, {"bridge", vm.BridgeIP}, {"loopback", vm.Loopback}, {"name", vm.WebName}} {
		if part[1] != "" {
			heading = append(heading, part[0]+" "+Clean(part[1]))
		}
	}
	text := strings.Join(heading, "  ")
	if look.Width > 0 && columns(text) > look.Width {
		first, rest := heading[0]+"  "+state.text, strings.Join(heading[2:], " ")
		text = wrapped(first, "", look.Width) + strings.TrimSuffix(wrapped(rest, "  ", look.Width), "\n")
	}
	if colour && state.colour != "" {
		text = strings.Replace(text, "  "+state.text, "  \x1b["+state.colour+"m"+state.text+"\x1b[0m", 1)
	}
	b.WriteString(text + "\n")
	say := func(text string) { b.WriteString(wrapped(text, "  ", look.Width)) }
	if vm.Error != "" {
		say("error: " + CleanError(vm.Error))
	}
	if vm.Warning != "" {
		say("warning: " + CleanError(vm.Warning))
	}
	if vm.RedefinedAt != nil {
		say("defined anew at " + vm.RedefinedAt.Local().Format(time.DateTime) + "; key, address and rules are its project's as before")
	}
	if c := vm.Config; c != nil {
		if c.Error != "" {
			say("configuration error: " + CleanError(c.Error))
		}
		for _, text := range c.Warnings {
			say("configuration warning: " + CleanError(text))
		}
		say("rules of " + Clean(c.File) + ", " + Clean(c.Why))
	}
	if len(vm.Forwards) > 0 {
		writeForwards(b, vm, look)
	}
	if len(vm.More) > 0 {
		say(more(vm, look.Flag))
	}
}

func setupText(s status.Setup) string {
	if s.Domain == "" {
		return Clean(s.Source) + "  what setup added is not put back when a domain is defined anew: " + CleanError(s.Error)
	}
	text := fmt.Sprintf("setup of %s: defined anew at %s", Clean(s.Domain), s.RedefinedAt.Local().Format(time.DateTime))
	switch {
	case s.Error != "":
		return text + "; nothing was put back: " + CleanError(s.Error)
	case len(s.Done) == 0:
		return text + "; nothing was missing"
	}
	return text + "; put back: " + CleanError(strings.Join(s.Done, "; "))
}

// MaxRowsOfVM is how many forwards are shown to people who ask about one VM; the others are
// counted.
const MaxRowsOfVM = 1000

// more counts the forwards that are not shown, and says what shows them.
func more(vm status.VM, flag string) string {
	left := 0
	var parts []string
	for _, state := range status.ForwardStates {
		if n := vm.More[state]; n > 0 {
			left += n
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	text := fmt.Sprintf("and %d more: %s; see all with: rum-host-agent status %s", left, strings.Join(parts, ", "), Clean(vm.Name))
	if len(vm.Forwards)+left > MaxRowsOfVM {
		text += " --json"
	}
	return text + flag
}

func stateCell(s string) Cell { return Cell{Clean(s), stateColours[s]} }

// maxAddresses is how many addresses a column names.
const maxAddresses = 4

func addresses(all []string) string {
	shown := all[:min(len(all), maxAddresses)]
	text := OrDash(strings.Join(shown, ","))
	if more := len(all) - len(shown); more > 0 {
		text += fmt.Sprintf(",+%d", more)
	}
	return text
}

// OrDash is a text safe to print, and a dash for none.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return Clean(s)
}

// Plain is a row of texts, which are safe to print, without colours.
func Plain(texts ...string) []Cell {
	row := make([]Cell, len(texts))
	for i, t := range texts {
		row[i].text = t
	}
	return row
}

// WriteTable writes rows with columns as wide as their widest cell, and nothing
// after the last text of a line.
func WriteTable(b *strings.Builder, rows [][]Cell, colour bool) {
	all := widths(rows)
	for _, row := range rows {
		writeRow(b, row, all, 2, colour)
	}
}

// widths are those of columns.
func widths(rows [][]Cell) []int {
	all := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			all[i] = max(all[i], columns(c.text))
		}
	}
	return all
}

// writeRow writes a row behind so many spaces.
func writeRow(b *strings.Builder, row []Cell, widths []int, pad int, colour bool) {
	for i, c := range row {
		if c.text == "" {
			pad += widths[i] + 2
			continue
		}
		b.WriteString(strings.Repeat(" ", pad))
		writeCell(b, c, colour)
		pad = widths[i] - columns(c.text) + 2
	}
	b.WriteByte('\n')
}

func writeCell(b *strings.Builder, c Cell, colour bool) {
	if colour && c.colour != "" {
		fmt.Fprintf(b, "\x1b[%sm%s\x1b[0m", c.colour, c.text)
		return
	}
	b.WriteString(c.text)
}
