package output

import (
	"fmt"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
)

// kinds are what people call events, and their colours.
var kinds = map[string]Cell{
	events.Forwarding: {"forwarding", "32"}, events.Stopped: {"stopped", "2"}, events.Claim: {"claim", "33"},
	events.Claimed: {"claimed", "32"}, events.Denied: {"denied", "31"}, events.PathChanged: {"path changed", "33"},
	events.Released: {"released", "33"}, events.VMUp: {"VM up", "32"}, events.VMDown: {"VM down", "31"}, events.AgentOutdated: {"agent outdated", "33"},
	events.PageAsked: {"page asked", "33"}, events.PageOpened: {"page opened", "32"}, events.PageRefused: {"page refused", "33"},
	events.LeftOut: {"left out", "2"}, events.Missed: {"missed", "31"},
}

// kindWidth is that of the longest of them.
const kindWidth = len("agent outdated")

// Event is an event as a line, without its end.
func Event(e events.Event, now time.Time, colour bool) string {
	at, layout := e.Time.Local(), "15:04:05.000"
	if at.YearDay() != now.Local().YearDay() || at.Year() != now.Local().Year() {
		layout = "2006-01-02 15:04:05.000"
	}
	kind, known := kinds[e.Kind]
	if !known {
		kind = Cell{text: Clean(e.Kind)} // of an agent newer than this program
	}
	var b strings.Builder
	b.WriteString(at.Format(layout) + "  ")
	writeCell(&b, kind, colour)
	b.WriteString(strings.Repeat(" ", max(0, kindWidth-len(kind.text))))
	add := func(text string) {
		if text != "" {
			b.WriteString("  " + text)
		}
	}
	add(Clean(e.VM))
	switch {
	case e.Socket != "":
		add(Clean(e.Socket))
	case e.Proto != "":
		add(fmt.Sprintf("%d/%s", e.Port, Clean(e.Proto)))
	}
	if len(e.Host) > 0 {
		add(addresses(e.Host))
	}
	add(Clean(e.Process))
	if e.Label != "" {
		add("(" + Clean(e.Label) + ")")
	}
	if e.AfterSeconds > 0 {
		add("after " + Duration(time.Duration(e.AfterSeconds*float64(time.Second))))
	}
	add(CleanError(e.Words))
	if e.Kind == events.Missed {
		add(fmt.Sprintf("%d events that are not remembered any more", e.Count))
	}
	return b.String()
}

// Duration is how long something lasted, as people say it.
func Duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
