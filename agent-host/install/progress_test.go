package install

import (
	"bytes"
	"strings"
	"testing"
)

func TestProgressIsALineThatChangesOnATerminalAndOneLineElsewhere(t *testing.T) {
	const total = 1 << 20
	var plain, shown bytes.Buffer
	p := newProgress(&plain, total)
	if plain.Len() > 0 {
		t.Errorf("before anything has gone: %q", plain.String())
	}
	onTerminal := &progress{w: &shown, terminal: true, total: total, shown: -1}
	for range total / 1024 {
		p.sent(1024)
		onTerminal.sent(1024)
		if onTerminal.gone < quiet && shown.Len() > 0 {
			t.Fatal("it is in the way of what ssh asks")
		}
	}
	if got := plain.String(); got != "sending 1.0 MiB\n" {
		t.Errorf("elsewhere: %q", got)
	}
	got := shown.String()
	if !strings.HasSuffix(got, "\rsending 1.0 MiB: 99 %\rsending 1.0 MiB: 100 %\n") || strings.Count(got, "\r") > 100 || strings.Count(got, "\n") != 1 {
		t.Errorf("on a terminal: %q", got)
	}
	shown.Reset()
	small := newProgress(&shown, 2000)
	if small.sent(2000); shown.Len() > 0 {
		t.Errorf("of a small script: %q", shown.String())
	}
}
