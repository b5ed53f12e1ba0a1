package output

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

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
func Status(w io.Writer, st status.Status, colour bool) error {
	var b strings.Builder
	if st.Config.Error != "" {
		b.WriteString("configuration error: " + CleanError(st.Config.Error) + "\n")
	}
	if st.Warning != "" {
		b.WriteString("warning: " + CleanError(st.Warning) + "\n")
	}
	for _, text := range st.Config.Warnings {
		b.WriteString("configuration warning: " + CleanError(text) + "\n")
	}
	for _, d := range st.Discovery {
		if d.Error != "" {
			b.WriteString(Clean(d.Source) + "  error: " + CleanError(d.Error) + "\n")
		}
	}
	for _, c := range st.Projects {
		if c.Error != "" && !slices.ContainsFunc(st.VMs, func(vm status.VM) bool { return vm.Config != nil && vm.Config.File == c.File }) {
			b.WriteString("configuration error of " + Clean(c.VM) + ", which is not served: " + CleanError(c.Error) + "\n")
		}
	}
	for _, r := range st.Refused {
		b.WriteString("no project is taken from " + Clean(r.Path) + ": " + CleanError(r.Reason) + "; " + CleanError(r.Remedy) + "\n")
	}
	for _, s := range st.Setups {
		writeSetup(&b, s)
	}
	for i, vm := range st.VMs {
		if i > 0 {
			b.WriteByte('\n')
		}
		writeVM(&b, vm, colour)
	}
	if len(st.VMs) == 0 {
		b.WriteString("no VMs\n")
	}
	others := ""
	if len(st.Projects) > 0 {
		others = "of all other VMs: "
	}
	if c := st.Config; c.Found {
		b.WriteString("\n" + others + "rules of " + Clean(c.File) + ", " + Clean(c.Why) + "\n")
	} else if c.File != "" {
		b.WriteString("\n" + others + "default rules; there is no " + Clean(c.File) + ", " + Clean(c.Why) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeVM(b *strings.Builder, vm status.VM, colour bool) {
	b.WriteString(Clean(vm.Name) + "  ")
	writeCell(b, stateCell(vm.State), colour)
	if vm.Endpoint != "" {
		b.WriteString("  " + Clean(vm.Endpoint))
	}
	for _, part := range [][2]string{{"auth", vm.Auth}, {"agent", vm.AgentVersion}, {"bridge", vm.BridgeIP}, {"loopback", vm.Loopback}} {
		if part[1] != "" {
			b.WriteString("  " + part[0] + " " + Clean(part[1]))
		}
	}
	b.WriteByte('\n')
	if vm.Error != "" {
		b.WriteString("  error: " + CleanError(vm.Error) + "\n")
	}
	if vm.Warning != "" {
		b.WriteString("  warning: " + CleanError(vm.Warning) + "\n")
	}
	if vm.RedefinedAt != nil {
		b.WriteString("  defined anew at " + vm.RedefinedAt.Local().Format(time.DateTime) + "; key, address and rules are its project's as before\n")
	}
	if c := vm.Config; c != nil {
		if c.Error != "" {
			b.WriteString("  configuration error: " + CleanError(c.Error) + "\n")
		}
		for _, text := range c.Warnings {
			b.WriteString("  configuration warning: " + CleanError(text) + "\n")
		}
		b.WriteString("  rules of " + Clean(c.File) + ", " + Clean(c.Why) + "\n")
	}
	if len(vm.Forwards) > 0 {
		WriteTable(b, forwardRows(vm.Forwards), colour)
	}
	if len(vm.More) > 0 {
		b.WriteString("  " + more(vm) + "\n")
	}
}

func writeSetup(b *strings.Builder, s status.Setup) {
	if s.Domain == "" {
		b.WriteString(Clean(s.Source) + "  what setup added is not put back when a domain is defined anew: " + CleanError(s.Error) + "\n")
		return
	}
	fmt.Fprintf(b, "setup of %s: defined anew at %s", Clean(s.Domain), s.RedefinedAt.Local().Format(time.DateTime))
	switch {
	case s.Error != "":
		b.WriteString("; nothing was put back: " + CleanError(s.Error) + "\n")
	case len(s.Done) == 0:
		b.WriteString("; nothing was missing\n")
	default:
		b.WriteString("; put back: " + CleanError(strings.Join(s.Done, "; ")) + "\n")
	}
}

// MaxRowsOfVM is how many forwards are shown to people who ask about one VM; the others are
// counted.
const MaxRowsOfVM = 1000

// more counts the forwards that are not shown, and says what shows them.
func more(vm status.VM) string {
	left := 0
	var parts []string
	for _, state := range []string{status.Active, status.Claim, status.Denied, status.Ignored} {
		if n := vm.More[state]; n > 0 {
			left += n
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	text := fmt.Sprintf("and %d more: %s; see all with: rum-host-agent status %s", left, strings.Join(parts, ", "), Clean(vm.Name))
	if len(vm.Forwards)+left > MaxRowsOfVM {
		text += " --json"
	}
	return text
}

func stateCell(s string) Cell { return Cell{Clean(s), stateColours[s]} }

func forwardRows(forwards []status.Forward) [][]Cell {
	labels := slices.ContainsFunc(forwards, func(f status.Forward) bool { return f.Label != "" })
	header := "PORT STATE HOST GUEST PATH PROCESS CONNS REASON"
	if labels {
		header = "PORT LABEL STATE HOST GUEST PATH PROCESS CONNS REASON"
	}
	rows := [][]Cell{Plain(strings.Fields(header)...)}
	for _, f := range forwards {
		row := Plain(
			fmt.Sprintf("%d/%s", f.Port, Clean(f.Proto)),
			"",
			addresses(f.Host),
			addresses(f.Guest),
			OrDash(f.Path),
			OrDash(f.Process),
			fmt.Sprintf("%d/%d", f.ConnectionsActive, f.ConnectionsTotal),
			reason(f),
		)
		row[1] = stateCell(f.State)
		if labels {
			row = slices.Insert(row, 1, Cell{text: OrDash(f.Label)})
		}
		rows = append(rows, row)
	}
	return rows
}

// errorShown is how long what went wrong with a connection is worth a person's
// look.
const errorShown = 10 * time.Minute

// reason is why a host address does not listen, and which does all the same, or
// what went wrong of late if all do.
func reason(f status.Forward) string {
	switch {
	case f.Reason == "" && f.LastError != "":
		if f.LastErrorAt == nil || time.Since(*f.LastErrorAt) > errorShown {
			return ""
		}
		ago := max(0, time.Since(*f.LastErrorAt)).Truncate(time.Second)
		return fmt.Sprintf("last error, %v ago: %s", ago, CleanError(f.LastError))
	case f.State != status.Active && len(f.Listening) > 0:
		return CleanError(f.Reason) + "; open on " + addresses(f.Listening)
	}
	return CleanError(f.Reason)
}

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
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		pad := 2
		for i, c := range row {
			if c.text == "" {
				pad += widths[i] + 2
				continue
			}
			b.WriteString(strings.Repeat(" ", pad))
			writeCell(b, c, colour)
			pad = widths[i] - utf8.RuneCountInString(c.text) + 2
		}
		b.WriteByte('\n')
	}
}

func writeCell(b *strings.Builder, c Cell, colour bool) {
	if colour && c.colour != "" {
		fmt.Fprintf(b, "\x1b[%sm%s\x1b[0m", c.colour, c.text)
		return
	}
	b.WriteString(c.text)
}
