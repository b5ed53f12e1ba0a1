package main

import (
	"encoding/binary"
	"testing"
)

func TestTheCounterTellsEachSenderHowManyItHasSentSinceItAsked(t *testing.T) {
	count := counter()
	a, b := sender{port: 1}, sender{port: 2}
	for range 3 {
		if count(a, []byte("x")) != nil {
			t.Error("what is counted is answered")
		}
	}
	count(b, []byte("x"))
	for _, row := range []struct {
		from sender
		want uint64
	}{{a, 3}, {a, 0}, {b, 1}} {
		if got := binary.NativeEndian.Uint64(count(row.from, nil)); got != row.want {
			t.Errorf("sender %d is told %d, want %d", row.from.port, got, row.want)
		}
	}
}
