package output

import (
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
)

func TestAnEventIsALineWithItsTimeFirst(t *testing.T) {
	now := time.Date(2026, 11, 29, 15, 4, 5, 123e6, time.Local)
	for want, e := range map[string]events.Event{
		"15:04:05.123  claimed         dev  8080/tcp  127.0.0.1:8080,[::1]:8080  nginx[812]  after 3.2 s": {
			Kind: events.Claimed, VM: "dev", Proto: "tcp", Port: 8080, Host: []string{"127.0.0.1:8080", "[::1]:8080"}, Process: "nginx[812]", AfterSeconds: 3.2},
		"15:04:05.123  VM down         dev  after 2m5s  the guest agent ended the link": {Kind: events.VMDown, VM: "dev", AfterSeconds: 125.2, Words: "the guest agent ended the link"},
		"15:04:05.123  left out        dev  312 more like it":                           {Kind: events.LeftOut, VM: "dev", Count: 312, Words: "312 more like it"},
		"15:04:05.123  missed          7 events that are not remembered any more":       {Kind: events.Missed, Count: 7},
		"15:04:05.123  forwarding      dev  /run/x?[2J.sock  127.0.0.1:80  after 12 ms": {Kind: events.Forwarding, VM: "dev", Proto: "unix", Socket: "/run/x\x1b[2J.sock", Host: []string{"127.0.0.1:80"}, AfterSeconds: 0.012},
		"15:04:05.123  from?the future  de?v":                                           {Kind: "from\nthe future", VM: "de\x00v"},
	} {
		e.Time = now
		if got := Event(e, now, false); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if got := Event(e, now.AddDate(0, 0, 1), false); got != "2026-11-29 "+want {
			t.Errorf("of yesterday: %q", got)
		}
	}
	if got := Event(events.Event{Kind: events.Claim, Time: now}, now, true); !strings.Contains(got, "\x1b[33mclaim\x1b[0m") {
		t.Errorf("no colour in %q", got)
	}
}
